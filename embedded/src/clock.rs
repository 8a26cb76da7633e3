//! Times that are stored in the file.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use push::ports::Unavailable;
use rusqlite::{Connection, params};

use crate::{database::Database, writer::Haste};

const NAME: &str = "clock";
const SET: &str = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";
/// Longest time from now to the moment at which a push in the queue is due. A later moment comes from a wrong clock.
const DUE_WITHIN: TimeDelta = TimeDelta::hours(2);

/// A reading of the clock that was trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTime {
    /// The time that the clock showed.
    pub wall: DateTime<Utc>,
    /// The machine's uptime at that time.
    pub uptime: Duration,
    /// The id of the machine's boot; empty if it is not known.
    pub boot: String,
}

impl KnownTime {
    fn to_text(&self) -> String {
        format!("{} {} {}", self.wall.timestamp_millis(), self.uptime.as_millis(), self.boot)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let wall = DateTime::from_timestamp_millis(words.next()?.parse().ok()?)?;
        let uptime = Duration::from_millis(words.next()?.parse().ok()?);
        Some(Self { wall, uptime, boot: words.next()?.to_owned() })
    }
}

impl Database {
    /// Returns the last trusted reading; `None`: there was none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn known_time(&self) -> Result<Option<KnownTime>, Unavailable> {
        Ok(self.setting(NAME)?.as_deref().and_then(KnownTime::parse))
    }

    /// Stores a trusted reading.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn note_time(&self, known: &KnownTime) -> Result<(), Unavailable> {
        let text = known.to_text();
        self.write(move |connection| connection.execute(SET, params![NAME, text]).map(drop)).await
    }

    /// Makes pushes due at `now` whose due time comes from a wrong clock. Returns their number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn hasten(&self, now: DateTime<Utc>) -> Result<usize, Unavailable> {
        const HASTEN: &str = "UPDATE queue SET due_at = ?1 WHERE due_at > ?2";
        let moments @ [due, latest] = [now, now + DUE_WITHIN].map(|moment| moment.timestamp_millis());
        let known = self.known().clone();
        let hasten = move |connection: &Connection| connection.execute(HASTEN, moments);
        let committed = move |_: &usize| {
            known.backlog.lock().hasten(due, latest);
            known.arrivals.notify_one();
        };
        self.write_then(Haste::Now, hasten, committed).await
    }
}

#[cfg(test)]
mod tests {
    use push::ports::{Delivery, QueueReader, QueueWriter, Settlement};

    use super::*;
    use crate::queue::tests::message;

    #[tokio::test]
    async fn the_time_is_remembered_and_what_is_none_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        assert_eq!(database.known_time().unwrap(), None);
        for boot in ["0b5f", ""] {
            let known = KnownTime {
                wall: DateTime::from_timestamp_millis(1_800_000_000_123).unwrap(),
                uptime: Duration::from_millis(12_345),
                boot: boot.into(),
            };
            database.note_time(&known).await.unwrap();
            assert_eq!(database.known_time().unwrap(), Some(known));
        }
        for wrong in ["", "1", "1 2", "x 2 y", "1 -2 y"] {
            assert_eq!(KnownTime::parse(wrong), None, "{wrong}");
        }
    }
    #[tokio::test]
    async fn what_a_wrong_clock_put_off_is_due_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let database = database.with_clock(push::Clock::new(move || now));
        for number in [1, 2] {
            database.send(message(number)).await.unwrap();
        }
        let received = database.receive(2).await.unwrap();
        let late = |delivery: &Delivery<i64>, put_off| Settlement::Postpone(delivery.receipt, now + put_off);
        let settlements =
            vec![late(&received[0], TimeDelta::days(30)), late(&received[1], TimeDelta::minutes(1))];
        database.settle(settlements).await.unwrap();
        assert_eq!(database.hasten(now).await.unwrap(), 1);
        let due = database.receive(2).await.unwrap();
        assert_eq!(
            due.iter().map(|delivery| delivery.message.id).collect::<Vec<_>>(),
            [received[0].message.id]
        );
    }
}
