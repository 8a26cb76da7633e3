//! The free bytes of the disk. Below a floor, nothing new is accepted, so that accepted pushes can still be settled.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::fs::statvfs;

/// Default for the bytes that stay free on the disk ([`Database::with_disk_floor`](crate::Database::with_disk_floor)).
pub const DISK_FLOOR: u64 = 256 * 1024 * 1024;
/// Shortest time between two measurements.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// The disk has too few free bytes for new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk has fewer than {floor} bytes free (UPWIRE_DISK_FLOOR): nothing new is taken")]
pub struct DiskLow {
    floor: u64,
}

/// The disk that the file is on.
pub(crate) struct Disk {
    file: PathBuf,
    floor: AtomicU64,
    /// The time of the last measurement, and the free bytes that it found.
    free: Mutex<Option<(Instant, u64)>>,
    was_low: AtomicBool,
}

impl Disk {
    pub(crate) fn of(file: PathBuf) -> Self {
        Self {
            file,
            floor: AtomicU64::new(DISK_FLOOR),
            free: Mutex::default(),
            was_low: AtomicBool::default(),
        }
    }

    pub(crate) fn set_floor(&self, bytes: u64) {
        self.floor.store(bytes, Ordering::Relaxed);
    }

    /// Checks whether there is room for new data, by a measurement that is at most a second old.
    pub(crate) fn check(&self) -> Result<(), DiskLow> {
        let floor = self.floor.load(Ordering::Relaxed);
        let low = self.free() < floor;
        if self.was_low.swap(low, Ordering::Relaxed) != low {
            if low {
                tracing::error!(
                    floor,
                    "the disk has too little room (UPWIRE_DISK_FLOOR): nothing new is taken until it has more"
                );
            } else {
                tracing::info!("the disk has room again");
            }
        }
        if low { Err(DiskLow { floor }) } else { Ok(()) }
    }

    fn free(&self) -> u64 {
        let mut measured = self.free.lock();
        if let Some((at, free)) = *measured
            && at.elapsed() < MEASURE_INTERVAL
        {
            return free;
        }
        // A disk that cannot be measured counts as empty: writes go on until it refuses.
        let free = statvfs(&self.file).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        *measured = Some((Instant::now(), free));
        free
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use push::{
        MailboxBounds,
        ports::{
            Accounts, Consistency, Mailbox, QueueReader, QueueWriter, Registrations, RelayRegistrations,
            Renewal, Revocation, Settlement, Waiting, Withdrawals,
        },
    };

    use super::*;
    use crate::{
        database::Database,
        queue::tests::{message, target},
    };

    const FLOOR: u64 = u64::MAX - 1;

    #[tokio::test]
    async fn a_disk_below_the_floor_takes_nothing_new_and_settles_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("upwire.db")).unwrap().with_disk_floor(0);
        let (now, week) = (DateTime::UNIX_EPOCH, TimeDelta::days(7));
        let bounds = MailboxBounds { of_registration: 10, of_account: 10 };
        let waiting = |number| Waiting { message: message(number), asked_at: None };
        let row =
            database.register(target(), now, week, Renewal::Always, 10).await.unwrap().stored().unwrap();
        let (id, account) = (target().registration_id(), target().recipient.to_bare());
        for number in 0..4 {
            database.send(message(number)).await.unwrap();
            database.keep(waiting(number), bounds).await.unwrap();
        }
        let received = database.receive(4).await.unwrap();

        let clone = database.clone().with_disk_floor(FLOOR);
        assert_eq!(database.check_room(), Err(DiskLow { floor: FLOOR }), "for all clones");
        let refused = format!("{}", DiskLow { floor: FLOOR });
        let refusals = [
            database.register(target(), now, week, Renewal::Always, 10).await.err(),
            database.keep(waiting(9), bounds).await.err(),
            database.note_seen(&account, Vec::new(), now).await.err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.expect("it is new").to_string(), refused);
        }
        let refusals = [database.send(message(9)).await, clone.send_all(vec![message(8), message(9)]).await];
        for refusal in refusals {
            assert_eq!(refusal.expect_err("it is new").to_string(), refused);
        }
        assert_eq!((database.queue_depth(), database.mailbox_depth()), (4, 4));

        let receipts = [received[0].receipt, received[1].receipt];
        let settlements = vec![Settlement::Delete(receipts[0]), Settlement::Postpone(receipts[1], now)];
        database.settle(settlements).await.unwrap();
        database.note_asked(&account, message(1).id, now).await.unwrap();
        database.remove(vec![(account.clone(), message(0).id)]).await.unwrap();
        assert!(database.withdraw(&account, message(1).id, now).await.unwrap());
        database.throttle(id, row.epoch, now).await.unwrap();
        let revoked = database.revoke(id, row.epoch, &target().recipient, now).await.unwrap();
        assert_eq!(revoked, Revocation::Revoked);
        assert_eq!(database.clear(&account, id, row.epoch).await.unwrap(), 2);
        assert_eq!((database.queue_depth(), database.mailbox_depth()), (3, 0));
        assert!(Registrations::find(&database, id, Consistency::Strong).await.unwrap().unwrap().revoked);

        let database = clone.with_disk_floor(0);
        database.send(message(9)).await.unwrap();
        assert_eq!(database.check_room(), Ok(()));
    }
}
