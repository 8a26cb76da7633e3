//! Tokens that senders show: a predecessor's (JWT and PASETO) and their own (VAPID), as text and with any claims signed.
#![no_main]

use std::sync::LazyLock;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::DateTime;
use functions::LegacyKeys;
use libfuzzer_sys::fuzz_target;
use pasetors::{
    keys::SymmetricKey,
    version2::{LocalToken, V2},
};
use push::VapidKey;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};

const SECRET: &str = "a-secret-of-more-than-32-bytes-0123456789";
const KEY: [u8; 32] = [7; 32];

struct Keys {
    legacy: LegacyKeys,
    paseto: SymmetricKey<V2>,
    sender: EcdsaKeyPair,
    bound_to: VapidKey,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let chance = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &chance).expect("a key");
    let sender =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &chance).expect("a key");
    let bound_to =
        VapidKey::from_bytes(sender.public_key().as_ref().try_into().expect("a point")).expect("a point");
    let legacy = LegacyKeys::default().with_jwt(SECRET).with_paseto(&STANDARD.encode(KEY)).expect("a key");
    Keys { legacy, paseto: SymmetricKey::from(&KEY).expect("a key"), sender, bound_to }
});

fn signed(header: &str, claims: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fuzz_target!(|bytes: &[u8]| {
    let keys = &*KEYS;
    let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a moment");
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(!functions::fuzzing::legacy(&keys.legacy, text), "nobody made it");
        if let Ok(token) = LocalToken::encrypt(&keys.paseto, text.as_bytes(), None) {
            let _ = functions::fuzzing::legacy(&keys.legacy, &token);
        }
    }
    let jwt = signed(r#"{"alg":"HS256"}"#, bytes, |text| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text).as_ref().to_vec()
    });
    let _ = functions::fuzzing::legacy(&keys.legacy, &jwt);

    let (first, rest) = bytes.split_at(bytes.len() / 2);
    assert!(!functions::fuzzing::vapid(first, rest, &keys.bound_to, now), "nobody signed it");
    let jwt = signed(r#"{"alg":"ES256"}"#, bytes, |text| {
        keys.sender.sign(&SystemRandom::new(), text).expect("a signature").as_ref().to_vec()
    });
    let _ = functions::fuzzing::vapid(format!("vapid t={jwt}").as_bytes(), b"", &keys.bound_to, now);
});
