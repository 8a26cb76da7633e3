//! An application server's key (RFC 8292), which makes valid and invalid signatures.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::Value;

/// An application server with a key of its own.
pub struct ApplicationServer {
    pair: EcdsaKeyPair,
    /// The public key as it is registered and presented: base64url, 87 characters.
    pub key: String,
}

impl ApplicationServer {
    /// Returns an application server with a fresh key.
    #[expect(clippy::new_without_default, reason = "no two are equal")]
    pub fn new() -> Self {
        let (algorithm, chance) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &chance).expect("random bytes");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &chance).expect("it was just made");
        let key = URL_SAFE_NO_PAD.encode(pair.public_key());
        Self { pair, key }
    }

    /// Returns a JWT with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(r#"{"typ":"JWT","alg":"ES256"}"#, claims)
    }

    /// Returns a JWT with any header. The signature is ES256, whatever the header says.
    pub fn sign(&self, header: &str, claims: &Value) -> String {
        let signed = [header, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("random bytes");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
