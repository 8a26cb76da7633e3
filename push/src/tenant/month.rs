//! Calendar months.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, Months, TimeZone, Utc};
use serde::{Deserialize, Serialize};

/// A calendar month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: i32,
    /// The number of the month, from 1.
    month: u32,
}

/// A month was not written as `2026-11`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no month; write it as 2026-11")]
pub struct BadMonth(String);

impl Month {
    /// Returns the month of a moment.
    #[must_use]
    pub fn of(moment: DateTime<Utc>) -> Self {
        Self { year: moment.year(), month: moment.month() }
    }

    /// Returns the first moment of the month.
    #[must_use]
    pub fn start(self) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(self.year, self.month, 1, 0, 0, 0).single().unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Returns the first moment after the month.
    #[must_use]
    pub fn end(self) -> DateTime<Utc> {
        self.start() + Months::new(1)
    }
}

impl FromStr for Month {
    type Err = BadMonth;

    fn from_str(text: &str) -> Result<Self, BadMonth> {
        let parse = || {
            let (year, month) = text.split_once('-')?;
            let parsed = Self { year: year.parse().ok()?, month: month.parse().ok()? };
            let sound = (1970..=9999).contains(&parsed.year) && (1..=12).contains(&parsed.month);
            sound.then_some(parsed)
        };
        parse().ok_or_else(|| BadMonth(text.to_owned()))
    }
}

impl TryFrom<String> for Month {
    type Error = BadMonth;

    fn try_from(text: String) -> Result<Self, BadMonth> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}
