//! The contract of the marker, over every backend.

use push::marker::{Doubt, Keys};
use push::ports::{Consistency::Strong, MarkerWriter, Markers, Registrations};
use push::{Fingerprint, Marker, RegistrationId};

use super::{Backend, at, on_each_backend};

fn keys(secrets: &[&str]) -> Keys {
    let secrets = secrets.iter().map(|secret| Fingerprint::of(secret.as_bytes())).collect();
    Keys { secrets, legacy: [Fingerprint::of(b"of a predecessor")].into() }
}

async fn a_marker_is_kept_as_it_was_set<B: Backend>() {
    let backend = B::fresh().await;
    assert_eq!(backend.store().marker().await.unwrap(), None);
    let first = Marker::begin(None, keys(&["a"]), Some("table".into()), at(0));
    backend.store().set_marker(&first).await.unwrap();
    let backend = backend.after_a_restart().await;
    assert_eq!(backend.store().marker().await.unwrap().as_ref(), Some(&first));
    let second = Marker::begin(Some(&first), keys(&["b", "a"]), None, at(60));
    backend.store().set_marker(&second).await.unwrap();
    let found = backend.store().marker().await.unwrap().unwrap();
    assert_eq!(found, second);
    assert_eq!(found.vouch(&keys(&["a"]), Some("table")), Err(Doubt::Secrets));
    let nobody = RegistrationId::from_bytes([0; RegistrationId::BYTES]);
    assert_eq!(backend.store().find(nobody, Strong).await.unwrap(), None, "it is no registration");
}

on_each_backend!(a_marker_is_kept_as_it_was_set);
