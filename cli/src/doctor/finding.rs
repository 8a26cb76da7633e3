//! Findings of a check: the problem, its consequence, and the remedy.

use std::io::{self, Write};

use serde::Serialize;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// The check did not run.
    Skipped,
    Warning,
    Error,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) mend: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, what: what.into(), why: String::new(), mend: String::new() }
    }

    pub(super) fn skipped(check: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Skipped, ..Self::ok(check, what) }
    }

    pub(super) fn warning(
        check: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, why: why.into(), mend: mend.into(), ..Self::ok(check, what) }
    }

    pub(super) fn error(
        check: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { level: Level::Error, ..Self::warning(check, what, why, mend) }
    }

    /// Writes the finding as lines for people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Skipped => "skipped",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        writeln!(out, "{level:<8}{:<13}{}", self.check, self.what)?;
        for (name, text) in [("why", &self.why), ("mend", &self.mend)] {
            if !text.is_empty() {
                writeln!(out, "{:21}{name}: {text}", "")?;
            }
        }
        Ok(())
    }
}
