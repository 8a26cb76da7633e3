//! kill -9 at any moment: the counts of a tenant agree with the ends of its pushes, each counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::{Answer, Kind, Phone, SOON, Upwire, XmppServer, eventually, eventually_some, hashed, http};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::said;

const KILLS: u64 = 4;
/// Least and most pushes of one sender between two kills.
const PUSHES: (u64, u64) = (20, 60);
const PAUSE: Duration = Duration::from_millis(5);

/// The answers that one sender got. It does not post a push again.
#[derive(Default)]
struct Told {
    taken: AtomicU64,
    /// Pushes that were neither accepted nor refused for certain.
    unknown: AtomicU64,
}

struct Sender {
    endpoint: String,
    ttl: &'static str,
    told: Arc<Told>,
}

impl Sender {
    fn of(endpoint: &str, ttl: &'static str) -> Self {
        Self { endpoint: endpoint.into(), ttl, told: Arc::default() }
    }

    fn taken(&self) -> u64 {
        self.told.taken.load(Ordering::Relaxed)
    }

    fn start(&self, senders: &mut JoinSet<()>, stop: &Arc<AtomicBool>) {
        let (endpoint, ttl, told, stop) =
            (self.endpoint.clone(), self.ttl, Arc::clone(&self.told), Arc::clone(stop));
        senders.spawn(async move {
            let (client, mut pace) = (http::client(), interval(PAUSE));
            while !stop.load(Ordering::Relaxed) {
                let posted = http::try_send(&client, "POST", &endpoint, &[("ttl", ttl)], "hello").await;
                match posted {
                    Ok(answer) if answer.status == 201 => told.taken.fetch_add(1, Ordering::Relaxed),
                    _ => told.unknown.fetch_add(1, Ordering::Relaxed),
                };
                pace.tick().await;
            }
        });
    }
}

/// Returns a number of pushes that differs from run to run.
fn at_random() -> u64 {
    rand::random_range(PUSHES.0..PUSHES.1)
}

fn ids(phones: &[&Phone]) -> u64 {
    let all = phones.iter().flat_map(|phone| phone.pushes());
    all.map(|push| push.id).collect::<BTreeSet<_>>().len() as u64
}

/// Returns these counts, summed over all tenants.
fn counted<const N: usize>(names: [&str; N], store: &BTreeMap<&str, String>) -> [u64; N] {
    let lines = said(&["usage", "--format", "json"], store);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    names.map(|name| lines.iter().map(|line| line[name].as_u64().unwrap()).sum())
}

#[tokio::test]
async fn usage_is_what_became_of_pushes_however_often_the_server_is_killed() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_ACL", "elsewhere.example")
        .set("UPWIRE_MAILBOX_MAX", 100_000)
        .set("UPWIRE_ACCOUNT_MAILBOX_MAX", 1_000_000)
        .start_ready()
        .await;
    let store = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
    let (user, other, third) = (server.user().await, server.user().await, server.user().await);
    said(&["tenant", "add", user.jid.domain().as_str()], &store);
    let component = upwire.component.jid.clone();
    let phone = Phone::connect(server, &user, "phone").await;
    let slow = Phone::connect(server, &third, "phone").await;
    slow.set_answer(Answer::DelayedBy(Duration::from_millis(300)));
    let away = Phone::connect(server, &other, "phone").await;
    let mut endpoints = Vec::new();
    for (phone, app) in [(&phone, "app"), (&slow, "app"), (&away, "kept"), (&away, "expiring")] {
        let register = async || phone.register(&component, &hashed(app), &hashed("1")).await.ok();
        endpoints.push(eventually_some(SOON, "the tenant is known", register).await.endpoint);
    }
    away.disconnect().await;

    let ttls = ["600", "600", "600", "1"];
    let senders: Vec<Sender> =
        endpoints.iter().zip(ttls).map(|(endpoint, ttl)| Sender::of(endpoint, ttl)).collect();
    let (mut posting, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    senders.iter().for_each(|sender| sender.start(&mut posting, &stop));
    let mut back = None;
    for kill in 0..KILLS {
        let enough: Vec<u64> = senders.iter().map(|sender| sender.taken() + at_random()).collect();
        eventually(SOON, "pushes are taken", async || {
            senders.iter().zip(&enough).all(|(sender, enough)| sender.taken() >= *enough)
        })
        .await;
        if kill == KILLS - 2 {
            // The mailbox of this phone is emptied while the next kills happen.
            let phone = Phone::connect(server, &other, "phone").await;
            for app in ["kept", "expiring"] {
                phone.hold(&hashed(app), &hashed("1"));
            }
            phone.greet(&component).await;
            back = Some(phone);
        }
        upwire.kill();
        upwire.start_again();
        upwire.ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    posting.join_all().await;
    for _ in 0..10 {
        assert_eq!(http::post(&endpoints[0], "last").await.status, 201);
    }
    upwire.queue_empties().await;
    // The mailbox is read, and expired pushes are counted.
    upwire.mailbox_holds(0).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));

    let [accepted, delivered, waited, expired, dropped] =
        counted(["accepted", "delivered", "waited", "expired", "dropped"], &store);
    let taken: u64 = 10 + senders.iter().map(Sender::taken).sum::<u64>();
    let unknown: u64 = senders.iter().map(|sender| sender.told.unknown.load(Ordering::Relaxed)).sum();
    println!(
        "{taken} taken, {unknown} unknown; {accepted} accepted, {delivered} delivered, {waited} waited, {expired} expired"
    );
    assert!(accepted <= taken + unknown, "no push counts twice: {accepted} of {taken} and {unknown}");
    // All pushes of these two senders were written, but for those that a phone took before their commits.
    let written = 10 + senders[2].taken() + senders[3].taken();
    assert!(accepted >= written - ids(&[back.as_ref().unwrap()]), "{accepted} of {written}");
    let arrived = ids(&[&phone, &slow, back.as_ref().unwrap()]);
    assert!(delivered <= arrived, "no delivery counts twice: {delivered} of {arrived}");
    assert_eq!(delivered + expired + dropped, accepted, "each push has one end");
    assert!(waited > 0 && expired > 0 && dropped == 0);
}

#[tokio::test]
async fn drops_are_counted_once_however_often_the_server_is_killed() {
    const WAITING: usize = 5;
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_ACL", "elsewhere.example")
        .set("UPWIRE_MAILBOX_MAX", WAITING)
        .start_ready()
        .await;
    let store = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
    let user = server.user().await;
    said(&["tenant", "add", user.jid.domain().as_str()], &store);
    let phone = Phone::connect(server, &user, "phone").await;
    let component = upwire.component.jid.clone();
    let register = async || phone.register(&component, &hashed("app"), &hashed("1")).await.ok();
    let endpoint = eventually_some(SOON, "the tenant is known", register).await.endpoint;
    phone.disconnect().await;

    let senders = [Sender::of(&endpoint, "600"), Sender::of(&endpoint, "600")];
    let (mut posting, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    senders.iter().for_each(|sender| sender.start(&mut posting, &stop));
    for _ in 0..2 * KILLS {
        let enough = senders[0].taken() + at_random();
        eventually(SOON, "pushes are taken", async || senders[0].taken() >= enough).await;
        upwire.kill();
        upwire.start_again();
        upwire.ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    posting.join_all().await;
    upwire.queue_empties().await;
    upwire.mailbox_holds(WAITING).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));

    let [accepted, waited, dropped] = counted(["accepted", "waited", "dropped"], &store);
    let told = |sender: &Sender| sender.taken() + sender.told.unknown.load(Ordering::Relaxed);
    let posted: u64 = senders.iter().map(told).sum();
    println!("{posted} posted, {accepted} accepted, {waited} waited, {dropped} dropped");
    // The acceptance of a push that was kept before its own commit is counted a little later. A kill may come first.
    assert_eq!(accepted, waited);
    let left = WAITING as u64;
    assert!(dropped >= waited - left, "no drop is missing");
    assert!(dropped <= posted - left, "no drop counts twice");
}
