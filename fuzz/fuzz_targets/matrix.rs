//! Bodies from a homeserver, of any kind: each becomes a push that is no longer than one may be, or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    functions::fuzzing::notification(bytes);
});
