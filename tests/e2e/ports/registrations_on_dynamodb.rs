//! Registrations on DynamoDB, where calls overtake each other.

use std::sync::Arc;

use aws::RegistrationsTable;
use chrono::TimeDelta;
use e2e::{Emulator, SOON};
use push::ports::{Consistency, Registrations, Renewal};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Register, at, target};
use crate::cloud::start::in_between;

const WEEK: TimeDelta = TimeDelta::weeks(1);

/// The phone has moved on before the write of its renewal comes through.
#[tokio::test]
async fn a_renewal_that_comes_late_does_not_undo_the_next_one() {
    let emulator = Emulator::shared().await;
    let table = emulator.table().await;
    let (asked, passes) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let (asks, passing) = (Arc::clone(&asked), Arc::clone(&passes));
    let (slow, server) = in_between(emulator.endpoint.clone(), move |target| {
        let (asks, passing) = (Arc::clone(&asks), Arc::clone(&passing));
        async move {
            if target.ends_with(".PutItem") {
                asks.notify_one();
                passing.notified().await;
                // The next write passes at once.
                passing.notify_one();
            }
            None
        }
    })
    .await;
    let slow = RegistrationsTable::new(&Emulator::config_at(&slow), &table);
    let fast = RegistrationsTable::new(&emulator.config(), &table);

    let first =
        fast.register_one(target("juliet", "balcony"), at(0), WEEK, Renewal::WhereNeeded).await.unwrap();
    let late = tokio::spawn(async move {
        slow.register_one(target("juliet", "garden"), at(1), WEEK, Renewal::WhereNeeded).await
    });
    timeout(SOON, asked.notified()).await.expect("it writes");
    let moved = target("juliet", "chamber");
    let last = fast.register_one(moved.clone(), at(2), WEEK, Renewal::WhereNeeded).await.unwrap();
    passes.notify_one();
    let late = timeout(SOON, late).await.expect("it is answered").unwrap().unwrap();
    assert_eq!((late.epoch, last.epoch), (first.epoch, first.epoch), "the endpoint is the same");
    let row = fast.find(moved.registration_id(), Consistency::Strong).await.unwrap().unwrap();
    assert_eq!(row.target, moved);
    server.abort();
}
