//! Bytes in a queue, of any kind: an entry is read and written the same, or is none. So are markers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push::{Marker, PushMessage};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = PushMessage::from_entry(bytes) {
        let again = PushMessage::from_entry(message.to_entry().as_bytes()).expect("what was written is read");
        assert_eq!(again, message);
    }
    if let Some(marker) = std::str::from_utf8(bytes).ok().and_then(|text| Marker::parse(text).ok()) {
        assert_eq!(Marker::parse(&marker.to_json()), Ok(marker));
    }
});
