//! A push that can never be decrypted is refused, because its sender alone can mend it.

use e2e::{SOON, http};

use super::Scene;

const SALT: &str = "salt=CpweO6cOWHd1EVQcA5vsiA";
const DH: &str = "dh=BCGaik-XBjQgyYWLEPW-JZSR7QwsDczQL4HtRaT-dqfx0xPjU9MionWq_Du65JSh94VuDwOky9jx5tYUJOMa_Go";

/// mozilla-services/autopush#188: "`dh` or `salt` param … is missing, invalid base64url".
#[tokio::test]
async fn key_material_that_cannot_be_any_is_named() {
    let scene = Scene::set().await;
    let cases = [
        ("rs=4096", DH, "salt="),
        ("salt=tooshort", DH, "salt="),
        ("salt=no base64 at all!", DH, "salt="),
        (SALT, "p256ecdsa=BDd3", "dh="),
        (SALT, "dh=BA8", "dh="),
        (SALT, &DH[..DH.len() - 2], "dh="),
    ];
    for (encryption, crypto_key, named) in cases {
        let headers =
            [("Content-Encoding", "aesgcm"), ("Encryption", encryption), ("Crypto-Key", crypto_key)];
        let refused = http::post_with(&scene.endpoint, &headers, "x").await;
        assert_eq!(refused.status, 400, "{encryption}, {crypto_key}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{detail}");
    }
    // The headers of other encodings are not examined, and a push with good key material arrives.
    for (encoding, body) in [("aes128gcm", "looked at by nobody"), ("aesgcm", "good")] {
        let headers = [("Content-Encoding", encoding), ("Encryption", SALT), ("Crypto-Key", DH)];
        assert_eq!(http::post_with(&scene.endpoint, &headers, body).await.status, 201);
        assert!(scene.phone.next_push(SOON).await.body.ends_with(body.as_bytes()));
    }
}

/// web-push-libs/web-push#238: senders confuse `aesgcm128` with `aesgcm`.
#[tokio::test]
async fn an_encoding_that_is_superseded_names_those_that_are_not() {
    let scene = Scene::set().await;
    let headers = [("Content-Encoding", "aesgcm128"), ("Encryption", SALT), ("Encryption-Key", DH)];
    let refused = http::post_with(&scene.endpoint, &headers, "x").await;
    assert_eq!((refused.status, refused.header("accept-encoding")), (415, Some("aes128gcm, aesgcm")));
    let problem = refused.json();
    assert!(problem["type"].as_str().unwrap().ends_with("#why-did-my-push-get-a-415"), "{problem}");
}
