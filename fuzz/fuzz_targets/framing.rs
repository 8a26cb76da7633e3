//! Whatever an XMPP server passes on: it is framed the same however it comes, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| relay::fuzzing::stream(input.1, input.0.into()));
