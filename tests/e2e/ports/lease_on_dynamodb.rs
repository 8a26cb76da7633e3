//! The contract of the lease, on DynamoDB: the only store that several relays share.

use aws::{RegistrationsTable, RelayLease};
use e2e::Emulator;
use futures::future::join_all;
use push::ports::{Holder, Lease, Tenure};

const ONE: Holder = Holder([1; 16]);
const OTHER: Holder = Holder([2; 16]);

async fn lease() -> RelayLease {
    let emulator = Emulator::shared().await;
    let table = RegistrationsTable::new(&emulator.config(), &emulator.table().await);
    table.check().await.unwrap();
    table.lease()
}

fn tenure(holder: impl Into<Option<Holder>>, count: u64) -> Tenure {
    Tenure { holder: holder.into(), count }
}

#[tokio::test]
async fn a_lease_passes_on_only_as_it_was_seen() {
    let lease = lease().await;
    let take = async |holder, seen| lease.take(holder, seen).await.unwrap();
    let look = async || lease.look().await.unwrap();
    assert_eq!(look().await, None);
    assert_eq!(take(ONE, Some(tenure(OTHER, 1))).await, None);
    assert_eq!(take(ONE, None).await, Some(tenure(ONE, 1)));
    for holder in [ONE, OTHER] {
        assert_eq!(take(holder, None).await, None);
    }
    assert_eq!(take(ONE, Some(tenure(ONE, 1))).await, Some(tenure(ONE, 2)));
    for seen in [tenure(ONE, 1), tenure(OTHER, 2), tenure(None, 2)] {
        assert_eq!(take(OTHER, Some(seen)).await, None, "{seen:?}");
    }
    assert_eq!(look().await, Some(tenure(ONE, 2)));
    assert_eq!(take(OTHER, Some(tenure(ONE, 2))).await, Some(tenure(OTHER, 3)));
    assert_eq!(take(ONE, Some(tenure(ONE, 2))).await, None);
}

#[tokio::test]
async fn a_lease_is_given_back_by_its_holder_alone_and_keeps_its_count() {
    let lease = lease().await;
    lease.release(ONE).await.unwrap();
    assert_eq!(lease.look().await.unwrap(), None);
    lease.take(ONE, None).await.unwrap();
    lease.release(OTHER).await.unwrap();
    assert_eq!(lease.look().await.unwrap(), Some(tenure(ONE, 1)));
    lease.release(ONE).await.unwrap();
    assert_eq!(lease.look().await.unwrap(), Some(tenure(None, 1)));
    assert_eq!(lease.take(ONE, Some(tenure(ONE, 1))).await.unwrap(), None);
    assert_eq!(lease.take(OTHER, Some(tenure(None, 1))).await.unwrap(), Some(tenure(OTHER, 2)));
}

#[tokio::test]
async fn of_many_who_take_it_at_once_one_has_it() {
    let lease = lease().await;
    for seen in [None, Some(tenure(ONE, 2))] {
        let takers = (10..30).map(|number| lease.take(Holder([number; 16]), seen));
        let taken: Vec<_> = join_all(takers).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(taken.len(), 1);
        assert_eq!(lease.look().await.unwrap(), Some(taken[0]));
        lease.take(ONE, Some(taken[0])).await.unwrap();
    }
}
