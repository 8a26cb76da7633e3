//! Bytes from an XMPP server, of any kind: they are framed the same in any pieces, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| relay::fuzzing::stream(input.1, input.0.into()));
