//! A wrong deployment of `upwire serve` tells no sender that an endpoint has ended.

use chrono::{TimeDelta, Utc};
use e2e::{Kind, Phone, SOON, Upwire, XmppServer, eventually, http};
use embedded::Database;
use push::{
    Instance, Marker, Secrets, Target,
    marker::Keys,
    ports::{MarkerWriter, Registered, Registrations, Renewal},
    testing::target,
};

const FIRST: &str = "the-first-secret-of-more-than-32-bytes-012345";
const OTHER: &str = "another-secret-of-more-than-32-bytes-01234567";

/// Starts an `upwire serve`, registers a phone, and stops the server. Returns a builder with another secret, the
/// server, and the endpoint.
async fn stopped(server: &XmppServer) -> (e2e::UpwireBuilder, Upwire, String) {
    let folder = e2e::folder("marker");
    let builder = |secret| {
        let database = folder.join("upwire.db").display().to_string();
        Upwire::on(server).set("UPWIRE_DATABASE", database).set("UPWIRE_SECRET", secret)
    };
    let mut upwire = builder(FIRST).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    phone.next_push(SOON).await;
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    (builder(OTHER), upwire, endpoint)
}

#[tokio::test]
async fn secrets_without_the_one_that_signs_are_refused_unless_it_is_meant() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let (wrong, _upwire, endpoint) = stopped(server).await;
    let mut refused = wrong.clone().start();
    assert_eq!(refused.wait_exit(SOON).await.code(), Some(64));
    let log = refused.log();
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("upwire: UPWIRE_SECRET: lacks") && last.contains("--drop-secrets"), "{log}");

    let meant = wrong.argument("--drop-secrets").start_ready().await;
    let token = endpoint.rsplit('/').next().unwrap();
    assert_eq!(http::post(&format!("{}/push/{token}", meant.public_url), "hello").await.status, 404);
}

#[tokio::test]
async fn an_empty_database_ends_no_endpoint() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let (_, _upwire, endpoint) = stopped(server).await;
    let token = endpoint.rsplit('/').next().unwrap();
    let mut empty = Upwire::on(server).set("UPWIRE_SECRET", FIRST).start_ready().await;
    let answer = http::post(&format!("{}/push/{token}", empty.public_url), "hello").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!((answer.header("retry-after"), answer.text().contains("in_doubt")), (Some("600"), true));
    empty.log_line(&["rows of this table may be missing"]).await;
    let metrics = http::get(&format!("{}/metrics", empty.admin_url)).await.text();
    assert!(metrics.contains(r#"upwire_endpoints_doubted_total{reason="restored"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_database_that_was_restored_ends_no_endpoint_that_it_may_have_lost() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).set("UPWIRE_SECRET", FIRST).start_ready().await;
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    let backup = std::fs::read(upwire.database()).unwrap();

    upwire.start_again();
    upwire.ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    upwire.kill();
    std::fs::write(upwire.database(), backup).unwrap();
    for journal in ["-wal", "-shm"] {
        let journal = format!("{}{journal}", upwire.database().display());
        let _ = std::fs::remove_file(journal);
    }
    upwire.start_again();
    upwire.ready().await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 503);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the server compares with its own clock")]
async fn an_empty_database_without_the_secret_that_the_old_one_kept_ends_no_endpoint() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).unset("UPWIRE_SECRET").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let registered = Utc::now().timestamp();
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    let aside = upwire.database().with_extension("aside");
    std::fs::rename(upwire.database(), &aside).unwrap();

    // Only an endpoint of an earlier second is surely older than the database.
    eventually(SOON, "the next second", async || registered < Utc::now().timestamp()).await;
    upwire.start_again();
    upwire.ready().await;
    let answer = http::post(&endpoint, "hello").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("600")), "{}", answer.text());
    assert!(answer.text().contains("in_doubt"));
    upwire.log_line(&["a token is older than this table", "UPWIRE_SECRET"]).await;
    let metrics = http::get(&format!("{}/metrics", upwire.admin_url)).await.text();
    assert!(metrics.contains(r#"upwire_endpoints_doubted_total{reason="new"} 1"#), "{metrics}");
    // A forgery that claims to be of this database is not of the old one.
    let forged = phone.endpoint(&upwire.component.jid, "app").await;
    let (start, last) = forged.split_at(forged.len() - 1);
    let forged = format!("{start}{}", if last == "A" { "E" } else { "A" });
    assert_eq!(http::post(&forged, "hello").await.status, 404);

    upwire.terminate();
    upwire.wait_exit(SOON).await;
    std::fs::rename(&aside, upwire.database()).unwrap();
    upwire.start_again();
    upwire.ready().await;
    assert_eq!(http::post(&endpoint, "hello").await.status, 201);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the server compares with its own clock")]
async fn a_row_that_lapsed_in_a_restored_database_ends_no_endpoint() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let path = e2e::folder("marker").join("upwire.db");
    let secrets = Secrets::parse(FIRST).unwrap();
    let ago = |hours| Utc::now() - TimeDelta::hours(hours);
    let database = Database::open(&path).unwrap();
    let register = async |instance, lifetime| {
        let target =
            Target { instance: Instance::from_bytes([instance; 32]), ..target("juliet@localhost/phone") };
        let registered =
            database.register(target, ago(120), lifetime, Renewal::Always, usize::MAX).await.unwrap();
        let Registered::Begun(row) = registered else { panic!("{registered:?}") };
        secrets.sign(row.target.registration_id(), row.epoch).as_str().to_owned()
    };
    let lived_then = register(1, TimeDelta::hours(48)).await;
    let over_before = register(2, TimeDelta::hours(12)).await;
    // The copy is four days old.
    let keys = Keys { secrets: secrets.fingerprints(), ..Keys::default() };
    let mut marker = Marker::begin(None, keys.clone(), None, ago(240));
    marker.note(keys, ago(96));
    database.set_marker(&marker).await.unwrap();
    drop(database);

    let upwire = Upwire::on(server).set("UPWIRE_DATABASE", path.display()).set("UPWIRE_SECRET", FIRST);
    let mut upwire = upwire.start_ready().await;
    let push = async |token: &str| http::post(&format!("{}/push/{token}", upwire.public_url), "hello").await;
    assert_eq!(push(&over_before).await.status, 410);
    let answer = push(&lived_then).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("600")), "{}", answer.text());
    upwire.log_line(&["rows of this table may be missing"]).await;
}
