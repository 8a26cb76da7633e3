//! Endpoints and what else a sender says: no text but the one that was made verifies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push::{Application, Secrets, Topic, Ttl, Urgency, VapidKey};

fuzz_target!(|text: &str| {
    let secrets = Secrets::parse("a-secret-of-more-than-32-bytes-0123456789").expect("a secret");
    if let Ok((id, epoch)) = secrets.verify(text) {
        assert_eq!(secrets.sign(id, epoch).as_str(), text);
    }
    if let Ok((registration, message)) = secrets.verify_message(text) {
        assert_eq!(secrets.sign_message(registration, message).as_str(), text);
    }
    if let Some(ttl) = Ttl::parse(text) {
        assert!(
            ttl.as_seconds() == u32::MAX
                || text.trim_start_matches('0') == ttl.as_seconds().to_string().trim_start_matches('0')
        );
    }
    if let Some(topic) = Topic::parse(text) {
        assert!(topic.as_str().len() <= 32);
    }
    let _ = Urgency::parse(text);
    if let Ok(hash) = text.parse::<Application>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(key) = text.parse::<VapidKey>() {
        assert_eq!(VapidKey::from_bytes(key.as_bytes()), Ok(key));
    }
});
