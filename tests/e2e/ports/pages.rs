//! The contract of reading the pushes that wait for some registrations of an account, over every backend.

use std::collections::BTreeSet;

use push::ports::{Mailbox, Waiting};
use push::{MessageId, Registration, RegistrationId, Urgency};

use super::mailbox::{MANY, account, id, ids, juliet, keep_all, next_life, plain, push, romeo};
use super::{Backend, on_each_backend};

fn of(registrations: &[&Registration]) -> BTreeSet<RegistrationId> {
    registrations.iter().map(|registration| id(registration)).collect()
}

/// Reads all pages of this size, for these registrations of the first one's account.
async fn paged<B: Backend>(backend: &B, registrations: &[&Registration], max: usize) -> Vec<Waiting> {
    let (account, of) = (account(registrations[0]), of(registrations));
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = backend.mailbox().waiting(&account, Some(&of), after, max).await.unwrap();
        after = page.last().map(|last| last.message.id);
        let full = page.len() == max;
        found.extend(page);
        if !full {
            return found;
        }
    }
}

async fn what_waits_for_some_registrations_is_handed_out_in_order_and_nothing_else<B: Backend>() {
    let backend = B::fresh().await;
    let [one, other, third] = [1, 2, 3].map(juliet);
    let all = [
        push(&other, Urgency::High, 5, None),
        push(&third, Urgency::High, 6, None),
        push(&one, Urgency::High, 7, Some("topic")),
        push(&one, Urgency::Normal, 3, None),
        push(&other, Urgency::Normal, 4, None),
        push(&next_life(&one), Urgency::Normal, 8, None),
        push(&third, Urgency::Low, 1, None),
        push(&one, Urgency::Low, 2, None),
        push(&other, Urgency::VeryLow, 9, None),
    ];
    for index in [3, 6, 0, 8, 2, 7, 5, 1, 4] {
        keep_all(&backend, &all[index..=index]).await;
    }
    keep_all(&backend, &[plain(&romeo(1), 1)]).await;
    let expected = |registrations: &[&Registration]| -> Vec<Waiting> {
        let of = of(registrations);
        all.iter().filter(|waiting| of.contains(&waiting.message.registration)).cloned().collect()
    };
    for registrations in
        [&[&one][..], &[&other, &one], &[&one, &other, &third], &[&one, &juliet(9), &romeo(1)]]
    {
        for max in [1, 2, 3, MANY] {
            assert_eq!(paged(&backend, registrations, max).await, expected(registrations), "pages of {max}");
        }
    }
    let crowd: Vec<_> = (2..60).map(juliet).collect();
    let crowd: Vec<_> = crowd.iter().collect();
    assert_eq!(paged(&backend, &crowd, 2).await, expected(&[&other, &third]));
    assert_eq!(paged(&backend, &[&juliet(9)], 2).await, []);
    let nothing = backend.mailbox().waiting(&account(&one), Some(&BTreeSet::new()), None, MANY).await;
    assert_eq!(nothing.unwrap(), []);
}

async fn a_page_begins_behind_any_id<B: Backend>() {
    let backend = B::fresh().await;
    let [one, other] = [1, 2].map(juliet);
    let waiting: Vec<_> = (0..10).map(|second| plain(&one, 2 * second)).collect();
    keep_all(&backend, &waiting).await;
    keep_all(&backend, &[plain(&other, 5)]).await;
    let page = async |after| {
        let read = backend.mailbox().waiting(&account(&one), Some(&of(&[&one])), Some(after), 3).await;
        ids(&read.unwrap())
    };
    assert_eq!(page(plain(&other, 5).message.id).await, ids(&waiting[3..6]), "that of another registration");
    let gone = (account(&one), waiting[4].message.id);
    backend.mailbox().remove(vec![gone]).await.unwrap();
    assert_eq!(page(waiting[4].message.id).await, ids(&waiting[5..8]), "one that is gone");
    assert_eq!(page(waiting[9].message.id).await, []);
    assert_eq!(page(MessageId::from_bytes([0xff; MessageId::BYTES])).await, []);
}

async fn what_was_kept_shows_at_once<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    for second in 0..20 {
        keep_all(&backend, &[plain(&registration, second)]).await;
        assert_eq!(paged(&backend, &[&registration], 7).await.len(), second as usize + 1);
    }
    for second in 0..20 {
        let gone = plain(&registration, second).message.id;
        backend.mailbox().remove(vec![(account(&registration), gone)]).await.unwrap();
        assert_eq!(paged(&backend, &[&registration], 7).await.len(), 19 - second as usize);
    }
}

on_each_backend!(
    what_waits_for_some_registrations_is_handed_out_in_order_and_nothing_else,
    a_page_begins_behind_any_id,
    what_was_kept_shows_at_once,
);
