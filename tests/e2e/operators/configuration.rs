//! Starting `upwire`: a wrong setting is named with its remedy before anything is opened, and secrets rotate.

use std::process::Command;

use e2e::{Kind, Phone, SOON, Upwire, XmppServer, folder, hashed, http, profile_folder};

const OLD: &str = "an-old-secret-of-more-than-32-bytes-0123456789";
const NEW: &str = "a-new-secret-of-more-than-32-bytes-0123456789";

#[tokio::test]
async fn a_missing_or_wrong_value_is_one_line_and_64() {
    let server = XmppServer::shared(Kind::Prosody).await;
    for variable in ["UPWIRE_PUBLIC_URL", "UPWIRE_COMPONENT", "UPWIRE_COMPONENT_SECRET"] {
        refuses(Upwire::on(server).unset(variable), variable, "is missing").await;
        refuses(Upwire::on(server).set(variable, ""), variable, "is missing").await;
    }
    let wrong = [
        ("UPWIRE_PUBLIC_URL", "push.example.com", "https://push.example.com"),
        ("UPWIRE_COMPONENT", "juliet@example.com", "names a user"),
        ("UPWIRE_XMPP_SERVER", "localhost", "host:port"),
        ("UPWIRE_XMPP_SERVER", "tls://localhost", "tls://host:port"),
        ("UPWIRE_LISTEN", "everywhere", "as in 127.0.0.1:8080"),
        ("UPWIRE_ADMIN_LISTEN", "127.0.0.1:99999", "as in 127.0.0.1:8080"),
        ("UPWIRE_SECRET", "short", "at least 32"),
        ("UPWIRE_ACL", "a b", "neither a domain"),
        ("UPWIRE_ACL", "example.*", "*.example.com stands for"),
        ("UPWIRE_ACL_FILE", "/nowhere/acl", "cannot be read"),
        ("UPWIRE_ACL_FILE", "/dev/null", "names nobody"),
        ("UPWIRE_REGISTRATION_TTL", "1", "from 10s to 365d"),
        ("UPWIRE_ACK_TIMEOUT", "soon", "as in 3600, 90s, 12h or 7d"),
        ("UPWIRE_DEFAULT_TTL", "-1", "as in 3600, 90s, 12h or 7d"),
        ("UPWIRE_RATE", "fast", "as in 60/1; or off"),
        ("UPWIRE_RATE", "0/1", "is no rate"),
        ("UPWIRE_QUEUE_MAX", "0", "1.."),
        ("UPWIRE_MAILBOX_MAX", "0", "1..=100000"),
        ("UPWIRE_ACCOUNT_MAILBOX_MAX", "0", "1..=1000000"),
        ("UPWIRE_ACCOUNT_REGISTRATIONS_MAX", "0", "1..=100000"),
        ("UPWIRE_DISK_FLOOR", "1 GB", "write it as 268435456"),
        ("UPWIRE_LOG_FORMAT", "xml", "json"),
        ("UPWIRE_LOG", "loud", "level"),
        ("UPWIRE_SECRET_FILE", "/nowhere/secret", "cannot be read"),
    ];
    for (variable, value, mend) in wrong {
        refuses(Upwire::on(server).set(variable, value), variable, mend).await;
    }
    let over_tls = || Upwire::on(server).set("UPWIRE_XMPP_SERVER", "tls://localhost:5348");
    refuses(over_tls().set("SSL_CERT_FILE", "/nowhere/ca.pem"), "SSL_CERT_FILE", "cannot be read").await;
    refuses(over_tls().set("SSL_CERT_FILE", "/dev/null"), "SSL_CERT_FILE", "has no certificate").await;
    let two = Upwire::on(server).set("UPWIRE_COMPONENT_SECRET_FILE", "secret");
    refuses(two, "UPWIRE_COMPONENT_SECRET", "one of the two").await;
    let two = Upwire::on(server).set("UPWIRE_ACL", "localhost").set("UPWIRE_ACL_FILE", "acl");
    refuses(two, "UPWIRE_ACL", "one of the two").await;
}

async fn refuses(builder: e2e::UpwireBuilder, variable: &str, text: &str) {
    let mut upwire = builder.start();
    let status = upwire.wait_exit(SOON).await;
    let log = upwire.log();
    assert_eq!(status.code(), Some(64), "{variable}: {log}");
    assert_eq!(log.trim_end().lines().count(), 1, "{log}");
    assert!(log.contains(variable) && log.contains(text), "{variable}, {text}: {log}");
    assert!(!upwire.database().exists(), "nothing was opened");
}

#[tokio::test]
async fn a_short_life_of_registrations_is_warned_of() {
    let server = XmppServer::shared(Kind::Prosody).await;
    const WARNING: &str = "UPWIRE_REGISTRATION_TTL is a day or less";
    let mut short = Upwire::on(server).set("UPWIRE_REGISTRATION_TTL", 86_400).start_ready().await;
    short.log_line(&[WARNING]).await;
    let longer = Upwire::on(server).set("UPWIRE_REGISTRATION_TTL", 86_401).start_ready().await;
    longer.never_logged(&[WARNING]);
}

#[tokio::test]
async fn a_taken_port_or_database_is_named() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let first = Upwire::on(server).start_ready().await;
    let address = first.public_url.strip_prefix("http://").unwrap();
    let cases = [
        ("UPWIRE_LISTEN", address.to_owned(), "cannot listen"),
        ("UPWIRE_DATABASE", first.database().display().to_string(), "in use by another upwire process"),
        ("UPWIRE_DATABASE", "/nowhere/upwire.db".to_owned(), "cannot be opened"),
    ];
    for (variable, value, text) in cases {
        let mut second = Upwire::on(server).set(variable, value).start();
        assert_eq!(second.wait_exit(SOON).await.code(), Some(1));
        let log = second.log();
        assert!(log.contains(variable) && log.contains(text), "{log}");
    }
}

#[tokio::test]
async fn a_secret_is_made_kept_and_rotated_without_losing_an_endpoint() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let component = server.component();
    let mut upwire = Upwire::as_component(server, component.clone()).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let register =
        async |instance| phone.register(&component.jid, &hashed("app"), &hashed(instance)).await.unwrap();
    let kept = register("kept").await.endpoint;
    let database = upwire.database();
    upwire.kill();

    // The secrets come from the environment, a file with a list, and a flag. The kept secret verifies behind them.
    let path = folder("secret").join("secrets");
    std::fs::write(&path, format!("{NEW},{OLD}\n")).unwrap();
    let base = || {
        Upwire::as_component(server, component.clone())
            .set("UPWIRE_DATABASE", database.display())
            .set("UPWIRE_PUBLIC_URL", &upwire.public_url)
            .set("UPWIRE_LISTEN", upwire.public_url.strip_prefix("http://").unwrap())
    };
    let mut old = base().set("UPWIRE_SECRET", OLD).start_ready().await;
    let signed_by_old = register("old").await.endpoint;
    old.kill();
    let mut rotated = base().set("UPWIRE_SECRET_FILE", path.display()).start_ready().await;
    let signed_by_new = register("new").await.endpoint;
    for endpoint in [&kept, &signed_by_old, &signed_by_new] {
        assert_eq!(http::post(endpoint, "x").await.status, 201);
    }
    assert_ne!(register("old").await.endpoint, signed_by_old, "the first signs: the next renewal moves it");
    rotated.kill();
    let new_alone = base().argument("--secret").argument(NEW).start_ready().await;
    assert_eq!(http::post(&signed_by_old, "x").await.status, 404);
    assert_eq!(http::post(&signed_by_new, "x").await.status, 201);
    for text in [OLD, NEW] {
        new_alone.never_logged(&[text]);
        rotated.never_logged(&[text]);
    }
}

#[test]
fn help_is_worth_reading_and_keygen_prints_a_secret() {
    let upwire = |arguments: &[&str]| {
        let output = Command::new(profile_folder().join("upwire")).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let help = upwire(&["--help"]);
    for word in ["serve", "relay", "distributor", "keygen", "Exit codes"] {
        assert!(help.contains(word), "{word}");
    }
    assert!(upwire(&["serve", "--help"]).contains("UPWIRE_PUBLIC_URL"));
    assert!(upwire(&["relay", "--help"]).contains("AWS_PROFILE"));
    let (one, other) = (upwire(&["keygen"]), upwire(&["keygen"]));
    assert!(one != other && one.trim_end().len() == 44 && one.ends_with('\n'));
}
