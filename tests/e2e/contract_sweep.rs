//! The contract of the mailbox's sweep, over every backend.

use std::collections::BTreeSet;

use push::Epoch;
use push::ports::{Mailbox, Recipient};

use crate::contract::{Backend, on_each_backend};
use crate::contract_mailbox::{MANY, account, id, keep_all, plain, registration, romeo};

/// The recipients of all pages.
async fn sweep<B: Backend>(backend: &B, max: usize) -> Vec<Recipient> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, further) = backend.mailbox().recipients(after, max).await.unwrap();
        found.extend(page.iter().cloned());
        assert!(further.is_none() || page.len() >= max);
        assert!(further.is_none() || further.as_ref() == page.last());
        after = further;
        if after.is_none() {
            return found;
        }
    }
}

/// Several registrations of several accounts, each with several pushes.
async fn crowd<B: Backend>(backend: &B) -> BTreeSet<Recipient> {
    let mut crowd = BTreeSet::new();
    for (user, registrations) in [("a", 1), ("b", 3), ("c", 1), ("d", 4)] {
        for number in 0..registrations {
            let registration = registration(&format!("{user}@example.com/phone"), number);
            keep_all(backend, &[1, 2, 3, 4, 5].map(|second| plain(&registration, second))).await;
            crowd.insert((account(&registration), id(&registration)));
        }
    }
    crowd
}

async fn a_sweep_finds_every_registration_that_has_something_waiting_once<B: Backend>() {
    let backend = B::fresh().await;
    assert_eq!(sweep(&backend, 3).await, []);
    let crowd = crowd(&backend).await;
    for max in [1, 2, 3, 4, 9, 10, MANY] {
        let found = sweep(&backend, max).await;
        assert_eq!(found.len(), crowd.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), crowd);
    }
    let lonely = plain(&romeo(1), 1).message;
    keep_all(&backend, &[plain(&romeo(1), 1)]).await;
    assert_eq!(sweep(&backend, 3).await.len(), crowd.len() + 1);
    backend.mailbox().remove(vec![(account(&romeo(1)), lonely.id)]).await.unwrap();
    assert_eq!(sweep(&backend, 3).await.len(), crowd.len());
}

async fn a_sweep_that_empties_mailboxes_misses_none<B: Backend>() {
    let backend = B::fresh().await;
    let crowd = crowd(&backend).await;
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let (page, further) = backend.mailbox().recipients(after, 2).await.unwrap();
        for (account, registration) in page {
            assert_eq!(backend.mailbox().clear(&account, registration, Epoch::MAX).await.unwrap(), 5);
            found.insert((account, registration));
        }
        after = further;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, crowd);
    assert_eq!(sweep(&backend, 2).await, []);
}

on_each_backend!(
    a_sweep_finds_every_registration_that_has_something_waiting_once,
    a_sweep_that_empties_mailboxes_misses_none,
);
