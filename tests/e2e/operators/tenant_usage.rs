//! The usage of tenants is counted, held against their quotas, and billed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use aws::UsageOfTerm;
use e2e::{
    Emulator, Kind, Phone, SOON, Trouble, TroubledWay, Upwire, XmppServer, browse, eventually,
    eventually_some, folder, hashed, http,
};
use push::ports::TenantsWriter;
use push::usage::{Counts, Slot, Usage, hour_of};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::said;
use crate::ports::at;

type Variables = BTreeMap<&'static str, String>;

/// A server whose users belong to a tenant.
struct Scene {
    upwire: Upwire,
    store: Variables,
    domain: String,
    phone: Phone,
    endpoint: String,
}

impl Scene {
    async fn set(server: &XmppServer, terms: &[&str]) -> Self {
        let upwire = Upwire::on(server).set("UPWIRE_ACL", "elsewhere.example").start_ready().await;
        let store = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
        let user = server.user().await;
        let domain = user.jid.domain().to_string();
        said(&[&["tenant", "add", &domain], terms].concat(), &store);
        let phone = Phone::connect(server, &user, "phone").await;
        let component = &upwire.component.jid;
        let register = async || phone.register(component, &hashed("app"), &hashed("1")).await.ok();
        let endpoint = eventually_some(SOON, "the tenant is known", register).await.endpoint;
        Self { upwire, store, domain, phone, endpoint }
    }

    fn usage(&self) -> Vec<Value> {
        let lines = said(&["usage", "--format", "json"], &self.store);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the sums of these counts.
    fn counted<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        let usage = self.usage();
        names.map(|name| usage.iter().map(|line| line[name].as_u64().unwrap()).sum())
    }

    async fn counts<const N: usize>(&self, names: [&str; N], expected: [u64; N]) {
        let what = format!("{names:?} are {expected:?}");
        eventually(SOON, &what, async || self.counted(names) == expected).await;
    }

    async fn pushes(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(http::post(&self.endpoint, "hello").await.status, 201);
        }
    }
}

const ALL: [&str; 6] = ["accepted", "delivered", "waited", "expired", "dropped", "bytes"];

#[tokio::test]
async fn what_becomes_of_pushes_is_counted_and_a_bill_of_it_is_printed() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let scene = Scene::set(server, &[]).await;
    scene.pushes(3).await;
    scene.counts(ALL, [3, 3, 0, 0, 0, 15]).await;
    scene.phone.disconnect().await;
    let Scene { mut upwire, store, domain, endpoint, .. } = scene;
    for _ in 0..2 {
        assert_eq!(http::post(&endpoint, "hello").await.status, 201);
    }
    upwire.mailbox_holds(2).await;
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));

    let lines = said(&["usage", "--format", "json"], &store);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sum = |name: &str| lines.iter().map(|line| line[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(ALL.map(sum), [5, 3, 2, 0, 0, 25], "a clean stop loses nothing");
    assert!(lines.iter().any(|line| line["registrations"] == 1), "{lines:?}");
    let mut ids: Vec<_> = lines.iter().map(|line| line["id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), lines.len());
    let csv = said(&["usage", "--format", "csv"], &store);
    assert!(
        csv.starts_with("id,tenant,domain,hour,accepted") && csv.lines().count() == lines.len() + 1,
        "{csv}"
    );

    let folder = folder("usage");
    let (prices, page) = (folder.join("usage.toml"), folder.join("report.html"));
    fs::write(&prices, "currency = \"EUR\"\nper_1000_accepted = 1000\nminimum = 2\n").unwrap();
    let (prices, page) = (prices.to_str().unwrap(), page.to_str().unwrap());
    let table = said(&["usage", "--prices", prices, "--html", page], &store);
    assert!(table.contains("EUR") && table.contains("5.00"), "{table}");
    let html = fs::read_to_string(page).unwrap();
    assert!(
        html.contains("<svg") && !html.contains("src=") && !html.contains("href="),
        "it needs nothing else"
    );
    let shown = browse(&[
        json!({"open": format!("file://{page}")}),
        json!({"screenshot": folder.join("report.png")}),
    ])
    .await;
    let text = shown[0].as_str().unwrap();
    assert!(text.contains(&domain) && text.contains("Total") && text.contains("5.00"), "{text}");
    assert!(fs::metadata(folder.join("report.png")).unwrap().len() > 10_000);
}

#[tokio::test]
async fn a_crash_counts_nothing_that_was_not() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut scene = Scene::set(server, &[]).await;
    scene.pushes(10).await;
    scene.counts(["accepted", "delivered"], [10, 10]).await;
    scene.pushes(20).await;
    scene.upwire.kill();
    let [accepted, delivered] = scene.counted(["accepted", "delivered"]);
    assert!((10..=30).contains(&accepted) && (10..=30).contains(&delivered), "{accepted}, {delivered}");
    scene.upwire.start_again();
    scene.upwire.ready().await;
    scene.pushes(5).await;
    // Pushes that the crash left in the queue are delivered and counted now.
    eventually(SOON, "the new ones are counted", async || scene.counted(["accepted"])[0] >= accepted + 5)
        .await;
    scene.upwire.terminate();
    scene.upwire.wait_exit(SOON).await;
    let [accepted, delivered] = scene.counted(["accepted", "delivered"]);
    assert!(accepted <= 35 && delivered <= 35, "{accepted}, {delivered}");
}

#[tokio::test]
async fn quotas_hold_senders_and_new_registrations_and_the_host_is_told() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = format!("http://{}/upwire", listener.local_addr().unwrap());
    let terms = ["--pushes-per-month", "5", "--registrations", "1", "--webhook", &webhook];
    let mut scene = Scene::set(server, &terms).await;
    let told = tokio::spawn(events(listener, 4));
    let component = scene.upwire.component.jid.clone();
    let second = async || {
        let refused = scene.phone.register(&component, &hashed("second"), &hashed("1")).await;
        refused.err().map(|error| error.defined_condition)
    };
    eventually(SOON, "a new one is refused", async || {
        second().await == Some(DefinedCondition::ResourceConstraint)
    })
    .await;
    let renewed = scene.phone.register(&component, &hashed("app"), &hashed("1")).await.unwrap();
    assert_eq!(renewed.endpoint, scene.endpoint, "what lives is renewed");

    let answers = async || http::post(&scene.endpoint, "hello").await;
    eventually(SOON, "senders wait", async || answers().await.status == 429).await;
    let answer = answers().await;
    assert!(answer.text().contains("quota_used_up"), "{}", answer.text());
    assert!(
        answer.header("retry-after").is_some_and(|wait| (1..=3600).contains(&wait.parse::<u64>().unwrap()))
    );
    let mut told = tokio::time::timeout(SOON, told).await.unwrap().unwrap();
    told.sort();
    let all = ["pushes 100", "pushes 80", "registrations 100", "registrations 80"];
    assert_eq!(told, all.map(|event| format!("{} {event}", scene.domain)));
    scene.upwire.log_line(&["a tenant has used so much of a quota", "\"percent\":80"]).await;

    said(&["tenant", "set", &scene.domain, "--pushes-per-month", "none"], &scene.store);
    let answers = async || http::post(&scene.endpoint, "again").await.status == 201;
    eventually(SOON, "senders are served", answers).await;
    scene.phone.wait_for_body(b"again").await;
}

/// Receives this number of events that are POSTed to the webhook, and returns them.
async fn events(listener: TcpListener, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
        let text = String::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        let event: Value = serde_json::from_str(body).unwrap();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        events.push(format!("{} {} {}", text("tenant"), text("quota"), event["percent"]));
    }
    events
}

fn counted(hour: i64, domain: &str, accepted: u64) -> Usage {
    let slot = Slot { hour, tenant: "example.com".parse().unwrap(), domain: domain.into() };
    [(slot, Counts { accepted, registrations: 7, ..Counts::default() })].into()
}

#[tokio::test]
async fn usage_on_dynamodb_is_absolute_for_each_term_of_a_relay() {
    let emulator = Emulator::shared().await;
    let table = aws::RegistrationsTable::new(&emulator.config(), &emulator.table().await);
    let (now, hour) = (at(0), hour_of(at(0)));
    let mut first = UsageOfTerm::new(table.clone(), "first".into());
    first.add(counted(hour, "example.com", 3));
    first.write(now).await.unwrap();
    first.add(counted(hour, "example.com", 2));
    first.add(counted(hour - 1, "example.com", 10));
    first.write(now).await.unwrap();
    // This write repeats the one before, and counts once.
    first.add(counted(hour, "example.com", 0));
    first.write(now).await.unwrap();
    let mut second = UsageOfTerm::new(table.clone(), "second".into());
    second.add(counted(hour, "example.com", 100));
    second.add(counted(hour + 24, "a.example.com", 1000));
    second.write(now + Duration::from_secs(60)).await.unwrap();
    let sum = async |from, to| {
        let usage = table.usage(from, to).await.unwrap();
        let most = usage.values().map(|counts| counts.registrations).max();
        (usage.values().map(|counts| counts.accepted).sum::<u64>(), most)
    };
    assert_eq!(sum(hour, hour + 1).await, (105, Some(7)));
    assert_eq!(sum(hour - 1, hour + 1).await, (115, Some(7)));
    assert_eq!(sum(hour - 100, hour + 100).await, (1115, Some(7)));
    assert_eq!(sum(hour + 25, hour + 100).await, (0, None));
    let read_units = async || {
        let usage = table.usage(hour - 100, hour + 100).await.unwrap();
        usage.values().map(|counts| f64::from(counts.read_units)).sum::<f64>()
    };
    assert_eq!(read_units().await, 1115.0 / 2.0, "the function's reads for the accepted pushes");
    // A term that died before its first write has named nothing. A new term goes on under its own name.
    drop(first);
    let mut third = UsageOfTerm::new(table.clone(), "third".into());
    third.write(now).await.unwrap();
    third.add(counted(hour, "example.com", 1));
    third.write(now).await.unwrap();
    assert_eq!(sum(hour, hour + 1).await, (106, Some(7)));
}

/// Crash points of a write: before it, and after it but before its answer is known.
#[tokio::test]
async fn a_write_of_usage_whose_answer_is_lost_counts_once_on_dynamodb() {
    let emulator = Emulator::shared().await;
    let name = emulator.table().await;
    let (now, hour) = (at(0), hour_of(at(0)));
    let way = TroubledWay::to(&emulator.endpoint, "usage/", Trouble::Lost);
    let (endpoint, proxy) = way.open().await;
    let table = aws::RegistrationsTable::new(&Emulator::config_at(&endpoint), &name);
    let sum = async || {
        let usage = table.usage(hour, hour + 1).await.unwrap();
        usage.values().map(|counts| counts.accepted).sum::<u64>()
    };
    let mut term = UsageOfTerm::new(table.clone(), "first".into());
    term.add(counted(hour, "m.example.com", 3));
    assert_eq!(sum().await, 0, "a crash before the write");
    way.switch(true);
    assert!(term.write(now).await.is_err());
    eventually(SOON, "the write has met its trouble", async || way.met() > 0).await;
    way.switch(false);
    assert!([0, 3].contains(&sum().await), "a crash before the answer");
    term.add(counted(hour, "a.example.com", 4));
    term.write(now).await.unwrap();
    assert_eq!(sum().await, 7);
    way.switch(true);
    term.add(counted(hour, "m.example.com", 5));
    assert!(term.write(now).await.is_err());
    way.switch(false);
    eventually(SOON, "the write was made, and its answer is lost", async || sum().await == 12).await;
    term.write(now).await.unwrap();
    assert_eq!(sum().await, 12, "it is written again");
    // The next term counts for itself.
    drop(term);
    let mut next = UsageOfTerm::new(table.clone(), "second".into());
    next.add(counted(hour, "m.example.com", 1));
    next.write(now).await.unwrap();
    assert_eq!(sum().await, 13);

    proxy.abort();
}

#[tokio::test]
async fn a_crash_between_two_items_of_usage_loses_no_slot_that_was_written() {
    let emulator = Emulator::shared().await;
    let name = emulator.table().await;
    let (now, hour) = (at(0), hour_of(at(0)));
    let way = TroubledWay::to(&emulator.endpoint, "/first/0", Trouble::Lost);
    let (endpoint, proxy) = way.open().await;
    let table = aws::RegistrationsTable::new(&Emulator::config_at(&endpoint), &name);
    let domains = |from: usize| {
        let slots = (from..from + 1000).flat_map(|n| counted(hour, &format!("d{n:04}.example.com"), 1));
        slots.collect::<Usage>()
    };
    let mut term = UsageOfTerm::new(table.clone(), "first".into());
    term.add(domains(1000));
    term.write(now).await.unwrap();
    // These slots need a second item, and come before the others by name.
    term.add(domains(0));
    term.add(domains(1000));
    way.switch(true);
    assert!(term.write(now).await.is_err());
    way.switch(false);
    let usage = table.usage(hour, hour + 1).await.unwrap();
    let written = usage.iter().filter(|(slot, _)| *slot.domain >= *"d1000.example.com");
    assert_eq!(written.map(|(_, counts)| counts.accepted).sum::<u64>(), 2000);
    term.write(now).await.unwrap();
    let usage = table.usage(hour, hour + 1).await.unwrap();
    assert_eq!(usage.values().map(|counts| counts.accepted).sum::<u64>(), 3000);
    proxy.abort();
}
