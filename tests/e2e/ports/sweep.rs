//! The contract of the mailbox's sweep, over every backend.

use std::collections::BTreeMap;

use push::Epoch;
use push::ports::{Mailbox, Registrant};

use super::mailbox::{MANY, account, id, keep_all, plain, registration, romeo};
use super::{Backend, on_each_backend};

/// Reads all pages. Returns the recipients, and the number of pushes that wait for each.
async fn sweep<B: Backend>(backend: &B, max: usize) -> Vec<(Registrant, usize)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, further) = backend.mailbox().recipients(after, max).await.unwrap();
        found.extend(page.iter().cloned());
        assert!(further.is_none() || page.len() >= max);
        assert!(further.is_none() || further.as_ref() == page.last().map(|(last, _)| last));
        after = further;
        if after.is_none() {
            return found;
        }
    }
}

/// Keeps several pushes for each of several registrations of several accounts.
async fn crowd<B: Backend>(backend: &B) -> BTreeMap<Registrant, usize> {
    let mut crowd = BTreeMap::new();
    for (user, registrations) in [("a", 1), ("b", 3), ("c", 1), ("d", 4)] {
        for number in 0..registrations {
            let registration = registration(&format!("{user}@example.com/phone"), number);
            let pushes = 5 + usize::from(number);
            let waiting: Vec<_> = (1..).take(pushes).map(|second| plain(&registration, second)).collect();
            keep_all(backend, &waiting).await;
            crowd.insert((account(&registration), id(&registration)), pushes);
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
        let accounts: Vec<_> = found.iter().map(|((account, _), _)| account.clone()).collect();
        let together = accounts.chunk_by(|one, next| one == next).count();
        assert_eq!(together, 4, "those of an account come together");
        assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), crowd);
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
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let (page, further) = backend.mailbox().recipients(after, 2).await.unwrap();
        for ((account, registration), pushes) in page {
            assert_eq!(backend.mailbox().clear(&account, registration, Epoch::MAX).await.unwrap(), pushes);
            found.insert((account, registration), pushes);
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
