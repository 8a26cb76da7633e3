//! The contract of the mark that a registration's senders are over their rate, over every backend.

use chrono::TimeDelta;
use push::ports::{
    Consistency::Strong,
    Registrations, RelayRegistrations,
    Renewal::{Always, WhereNeeded},
};
use push::{Epoch, RegistrationId};

use super::{Backend, Register, WEEK, at, on_each_backend, target};

async fn a_throttle_marks_this_life_and_no_other<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let first = store.register_one(target("juliet", "a"), at(0), WEEK, Always).await.unwrap();
    let (registration, life) = (first.target.registration_id(), first.epoch);
    let next_life = Epoch::from_seconds(life.as_seconds() + 1);
    let mark = async || store.find(registration, Strong).await.unwrap().unwrap().throttled_until;
    assert_eq!(mark().await, None);
    store.throttle(registration, next_life, at(60)).await.unwrap();
    assert_eq!(mark().await, None);
    for until in [60, 120] {
        store.throttle(registration, life, at(until)).await.unwrap();
        assert_eq!(mark().await, Some(at(until)));
    }
    assert_eq!(
        store.find(registration, Strong).await.unwrap().unwrap().throttled_for(at(119)),
        Some(TimeDelta::seconds(1))
    );

    let renewed = store.register_one(target("juliet", "b"), at(30), WEEK, Always).await.unwrap();
    assert_eq!((renewed.epoch, renewed.throttled_until), (life, Some(at(120))), "a renewal lifts no mark");
    let same = store.register_one(target("juliet", "b"), at(31), WEEK, WhereNeeded).await.unwrap();
    assert_eq!(same, renewed);
    let next = store.register_one(target("juliet", "b"), renewed.expires_at, WEEK, Always).await.unwrap();
    assert!(next.epoch > life && next.throttled_until.is_none(), "a new life has a new endpoint");
    store.throttle(registration, life, at(180)).await.unwrap();
    assert_eq!(mark().await, None);

    let nobody = RegistrationId::from_bytes([0; RegistrationId::BYTES]);
    store.throttle(nobody, life, at(60)).await.unwrap();
    assert_eq!(store.find(nobody, Strong).await.unwrap(), None);
}

on_each_backend!(a_throttle_marks_this_life_and_no_other);
