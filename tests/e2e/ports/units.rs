//! The units of DynamoDB that each access to a mailbox takes, as the module `aws::mailbox` lists them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws::MailboxTable;
use axum::{Json, Router, extract::State, http::HeaderMap, http::StatusCode};
use chrono::DateTime;
use e2e::{Emulator, http, prices};
use push::ports::{Kept, Mailbox, Waiting};
use push::usage::{self, Counts};
use push::{Body, Clock, MailboxBounds, Registration, Roster, Tenant, Urgency};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::mailbox::{account, id, ids, juliet, plain, push, registration};

/// Write units of a mailbox row with a body of 1 KiB.
const ROW_UNITS: f64 = 2.0;
/// Bytes of an entry of the index: keys, `epoch` and `purge_at`.
const ENTRY_BYTES: u64 = 110;
const BOUNDS: MailboxBounds = MailboxBounds { of_registration: 40, of_account: 60 };

/// Units that were consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Units {
    written: f64,
    read: f64,
}

/// A proxy to DynamoDB that counts the units that each call consumes.
struct Meter {
    mailbox: MailboxTable,
    counted: Arc<Mutex<Units>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Way {
    endpoint: String,
    counted: Arc<Mutex<Units>>,
}

async fn pass_on(
    State(Way { endpoint, counted }): State<Way>,
    headers: HeaderMap,
    asked: String,
) -> (StatusCode, Json<Value>) {
    let mut asked: Value = serde_json::from_str(&asked).unwrap();
    let target = headers["x-amz-target"].to_str().unwrap();
    asked["ReturnConsumedCapacity"] = "TOTAL".into();
    let passed_on = [
        ("x-amz-target", target),
        ("x-amz-date", headers["x-amz-date"].to_str().unwrap()),
        ("content-type", "application/x-amz-json-1.0"),
        ("authorization", headers["authorization"].to_str().unwrap()),
    ];
    let answer = http::post_with(&endpoint, &passed_on, asked.to_string()).await;
    let said: Value = serde_json::from_str(&answer.text()).unwrap();
    let consumed = match &said["ConsumedCapacity"] {
        Value::Array(tables) => tables.iter().filter_map(|table| table["CapacityUnits"].as_f64()).sum(),
        // A write that its condition stopped takes its units, but does not report them.
        Value::Null if answer.status == 400 => 1.0,
        table => table["CapacityUnits"].as_f64().unwrap(),
    };
    let consumed = if asked["IndexName"].is_null() { consumed } else { of_index(&said) };
    let least = if target.ends_with("Query") { 1.0 } else { 0.0 };
    let half = target.ends_with("Scan") || target.ends_with("Query") && asked["ConsistentRead"] != true;
    let consumed = f64::max(consumed, least) * if half { 0.5 } else { 1.0 };
    let is_read = ["Query", "Scan", "GetItem"].iter().any(|read| target.ends_with(read));
    let mut units = counted.lock().unwrap();
    *if is_read { &mut units.read } else { &mut units.written } += consumed;
    (StatusCode::from_u16(answer.status).unwrap(), Json(said))
}

/// Returns the units that DynamoDB bills for the entries of an index, without its minimum of one unit. The emulator
/// bills whole items, and nothing for an empty result.
fn of_index(said: &Value) -> f64 {
    let entries = said["ScannedCount"].as_u64().unwrap();
    (entries * ENTRY_BYTES).div_ceil(4096) as f64
}

impl Meter {
    async fn new() -> Self {
        let emulator = Emulator::shared().await;
        let table = emulator.mailbox_table().await;
        let counted = Arc::<Mutex<Units>>::default();
        let way = Way { endpoint: emulator.endpoint.clone(), counted: Arc::clone(&counted) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mailbox = MailboxTable::new(
            &Emulator::config_at(&format!("http://{}", listener.local_addr().unwrap())),
            &table,
        );
        let router = Router::new().fallback(pass_on).with_state(way);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { mailbox, counted, server }
    }

    /// Returns the units that were consumed since the last call.
    fn read(&self) -> Units {
        std::mem::take(&mut *self.counted.lock().unwrap())
    }

    async fn keep(&self, waiting: &Waiting) -> (Kept, Units) {
        self.keep_within(waiting, BOUNDS).await
    }

    async fn keep_within(&self, waiting: &Waiting, bounds: MailboxBounds) -> (Kept, Units) {
        let kept = self.mailbox.keep(waiting.clone(), bounds).await.unwrap();
        (kept, self.read())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Returns a push of [`ROW_UNITS`].
fn large(registration: &Registration, second: i64, topic: Option<&str>) -> Waiting {
    let mut waiting = push(registration, Urgency::Normal, second, topic);
    waiting.message.body = Body::from_bytes(&[7; 1024]);
    waiting
}

fn units(written: f64, read: f64) -> Units {
    Units { written, read }
}

#[tokio::test]
async fn a_push_that_is_kept_replaced_dropped_or_drained_takes_the_units_that_the_module_says() {
    let meter = Meter::new().await;
    let [one, other] = [1, 2].map(juliet);
    // The push takes a row and an entry in the index.
    let row = ROW_UNITS + 1.0;

    let first = large(&one, 0, Some("topic"));
    let (kept, taken) = meter.keep(&first).await;
    assert_eq!((kept, taken), (Kept::default(), units(row + 2.0, 1.0 + 4.0)), "the first of an account");
    for second in 1..10 {
        let (kept, taken) = meter.keep(&large(&one, second, None)).await;
        assert_eq!((kept, taken), (Kept::default(), units(row + 1.0, 0.0)), "with room");
    }
    let (kept, taken) = meter.keep(&large(&one, 10, Some("topic"))).await;
    assert_eq!(kept.replaced, ids([&first]));
    assert_eq!(taken, units(2.0 * row + 1.0, 1.0), "it replaces another");

    for second in 11..40 {
        meter.keep(&plain(&one, second)).await;
    }
    meter.read();
    // Forty pushes were counted, one of which was replaced. So they are counted anew, once.
    let (kept, taken) = meter.keep(&large(&one, 40, None)).await;
    assert_eq!((kept.dropped.len(), taken.written), (0, row + 1.0), "the count read high");
    for second in 41..45 {
        let (kept, taken) = meter.keep(&large(&one, second, None)).await;
        assert_eq!(kept.dropped.len(), 1);
        assert_eq!(taken, units(2.0 * row + 1.0, 1.0 + 2.0), "its registration is full: of forty entries");
    }

    for second in 45..65 {
        meter.keep(&plain(&other, second)).await;
    }
    meter.read();
    let (kept, taken) = meter.keep(&large(&other, 65, None)).await;
    assert_eq!(kept.dropped.len(), 1);
    assert!(taken.written >= 2.0 * row + 1.0 && taken.written <= 2.0 * row + 2.0, "{taken:?}");
    assert!((1.0 + 4.0..=1.0 + 6.0).contains(&taken.read), "its account is full: {taken:?}");
}

#[tokio::test]
async fn the_units_of_calls_for_a_tenants_accounts_are_counted_for_it() {
    let meter = Meter::new().await;
    let mut roster = Roster::default();
    for name in ["example.com", "example.org"] {
        roster.add(name.parse().unwrap(), Tenant::new(DateTime::UNIX_EPOCH)).unwrap();
    }
    let of_tenants = usage::Meter::default();
    of_tenants.set_tenants(roster.standings());
    let mailbox = meter.mailbox.clone().counting_units(of_tenants.clone(), Clock::system());
    let used = || {
        let used = of_tenants.take().into_iter();
        let units = |counts: Counts| units(counts.write_units.into(), counts.read_units.into());
        used.map(|(slot, counts)| (slot.domain, units(counts))).collect::<BTreeMap<_, _>>()
    };

    let [ours, theirs] =
        ["juliet@example.com/phone", "romeo@example.org/phone"].map(|jid| registration(jid, 1));
    for registration in [&ours, &theirs] {
        mailbox.keep(large(registration, 0, None), BOUNDS).await.unwrap();
    }
    used();
    let kept = large(&ours, 1, None);
    mailbox.keep(kept.clone(), BOUNDS).await.unwrap();
    let row = ROW_UNITS + 1.0;
    assert_eq!(used(), BTreeMap::from([("example.com".to_owned(), units(row + 1.0, 0.0))]));
    assert_eq!(mailbox.find(&account(&ours), kept.message.id).await.unwrap(), Some(kept.clone()));
    assert_eq!(used(), BTreeMap::from([("example.com".to_owned(), units(0.0, 1.0))]));
    let of_ours = [large(&ours, 0, None), kept].map(|waiting| (account(&ours), waiting.message.id));
    let of_theirs = (account(&theirs), large(&theirs, 0, None).message.id);
    mailbox.remove(of_ours.into_iter().chain([of_theirs]).collect()).await.unwrap();
    let shares = [("example.com", 2.0 * row), ("example.org", row)];
    assert_eq!(used(), BTreeMap::from(shares.map(|(name, written)| (name.to_owned(), units(written, 0.0)))));
}

/// A push costs at most 15 write units. 14 of them write the largest push and its entry in the index, and remove the
/// oldest.
#[tokio::test]
async fn the_largest_push_for_a_full_mailbox_takes_the_units_that_the_page_on_costs_says() {
    const BODY_BYTES: usize = 4096;
    let bounds = MailboxBounds { of_registration: prices::DRAINED, of_account: 10 * prices::DRAINED };
    let meter = Meter::new().await;
    let registration = juliet(1);
    let full = |second| {
        let mut waiting = plain(&registration, second);
        waiting.message.body = Body::from_bytes(&[7; BODY_BYTES]);
        waiting
    };
    // The body takes six units, in Base64 and with all that a delivery needs beside it. The entry in the index takes
    // one.
    let row = 6.0 + 1.0;
    let most = prices::DRAINED as i64;
    for second in 0..most {
        meter.keep_within(&full(second), bounds).await;
    }
    for second in most..most + 3 {
        let (kept, taken) = meter.keep_within(&full(second), bounds).await;
        assert_eq!(kept.dropped.len(), 1);
        let (writes, reads) = prices::dropped_units(BODY_BYTES);
        assert_eq!(
            (taken.written, writes),
            (2.0 * row + 1.0, 2.0 * row + 1.0),
            "it, the oldest, and the count that is stopped"
        );
        // The relay also reads the registration. The page reckons with longer addresses than these.
        assert!((reads - 1.0..=reads).contains(&(taken.read + 1.0)), "{taken:?}, {reads}");
    }
    let dollars = prices::dropped(BODY_BYTES);
    let (write, rest) = (2.0 * row * prices::WRITE_UNIT, dollars - 2.0 * row * prices::WRITE_UNIT);
    assert!(write == 8.75 && rest < 1.4, "a million: {dollars}, of which {write} for the rows alone");
}

#[tokio::test]
async fn a_mailbox_that_is_drained_takes_the_units_that_the_module_says() {
    const PUSHES: usize = 32;
    let meter = Meter::new().await;
    let registration = juliet(1);
    let account = account(&registration);
    let pushes: Vec<_> = (0..PUSHES as i64).map(|second| large(&registration, second, None)).collect();
    for push in &pushes {
        meter.keep(push).await;
    }
    meter.read();
    let page = |of, after| meter.mailbox.waiting(&account, of, after, 16);

    let of = [id(&registration)].into();
    let found = page(Some(&of), None).await.unwrap();
    assert_eq!(found, pushes[..16]);
    let taken = meter.read();
    assert_eq!(taken, units(0.0, 1.0 + 16.0), "its entries, and each push");

    assert_eq!(page(None, None).await.unwrap(), pushes[..16]);
    // All pushes are in one part. The mailbox reads on there, five at a time.
    let taken = meter.read();
    assert!(taken.read <= 3.0 + 4.0 * 3.0, "pushes by the part: {taken:?}");

    let removed = pushes.iter().map(|push| (account.clone(), push.message.id)).collect();
    meter.mailbox.remove(removed).await.unwrap();
    assert_eq!(meter.read(), units((ROW_UNITS + 1.0) * PUSHES as f64, 0.0), "each that is removed");
    assert_eq!(page(Some(&of), None).await.unwrap(), []);
    assert_eq!(meter.read(), units(0.0, 1.0), "an empty one");

    // The count still has the removed pushes, until a push finds no room by it.
    let (kept, taken) = meter.keep(&large(&registration, 100, None)).await;
    assert_eq!((kept, taken), (Kept::default(), units(ROW_UNITS + 2.0, 0.0)));
}

/// The relay also reads the registration, for each push that comes and for each page.
#[tokio::test]
async fn a_push_that_waits_for_a_phone_takes_the_units_that_the_page_on_costs_says() {
    const PUSHES: usize = 16;
    let meter = Meter::new().await;
    let registration = juliet(1);
    let account = account(&registration);
    // The first push of an account makes its counts.
    let first = large(&registration, 0, None);
    meter.keep(&first).await;
    meter.mailbox.remove(vec![(account.clone(), first.message.id)]).await.unwrap();
    meter.read();

    for second in 1..=PUSHES as i64 {
        let kept = meter.mailbox.keep(large(&registration, second, None), BOUNDS).await.unwrap();
        assert_eq!(kept, Kept::default());
    }
    let of = [id(&registration)].into();
    let page = meter.mailbox.waiting(&account, Some(&of), None, PUSHES).await.unwrap();
    let drained = page.iter().map(|push| (account.clone(), push.message.id)).collect();
    meter.mailbox.remove(drained).await.unwrap();
    let (writes, reads) = prices::waiting_units(1024, PUSHES);
    let taken = meter.read();
    let each = |units: f64| units / PUSHES as f64;
    assert_eq!((each(taken.written), each(taken.read + 1.0) + 1.0), (writes, reads));
}

#[tokio::test]
async fn an_account_that_a_sweep_meets_takes_the_units_that_the_module_says() {
    let meter = Meter::new().await;
    let registrations: Vec<_> = (0..8).map(juliet).collect();
    for registration in &registrations {
        for second in 0..3 {
            meter.keep(&large(registration, second, None)).await;
        }
    }
    meter.read();
    let (found, further) = meter.mailbox.recipients(None, 100).await.unwrap();
    assert_eq!((found.len(), further), (registrations.len(), None));
    assert!(found.iter().all(|(_, pushes)| *pushes == 3));
    let taken = meter.read();
    // The units are those of the scan, of four parts, and of a look below each of the other three.
    assert!(taken.written == 0.0 && taken.read <= 0.5 + 4.0 * 0.5 + 6.0 * 0.5, "{taken:?}");
}
