//! Tenants: added, suspended, resumed and removed while the servers run.

use std::collections::BTreeMap;

use e2e::{Emulator, Kind, Phone, SOON, Upwire, XmppServer, eventually, eventually_some, hashed, http};
use push::ports::operator::change;
use push::ports::{Consistency::Strong, Registrations, Renewal, Tenants, TenantsWriter};
use push::{Roster, Tenant, TenantName};
use serde_json::Value;
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::{said, upwire as command};
use crate::cloud::Cloud;
use crate::ports::{Backend, WEEK, at, on_each_backend, target};

type Variables = BTreeMap<&'static str, String>;

/// An access list without any user of the tests.
const NOBODY: &str = "elsewhere.example";

async fn registers(phone: &Phone, upwire: &Upwire, app: &str) -> Result<String, DefinedCondition> {
    let registered = phone.register(&upwire.component.jid, &hashed(app), &hashed("1")).await;
    registered.map(|registered| registered.endpoint).map_err(|error| error.defined_condition)
}

async fn a_tenant_is_served_while_it_pays(server: &XmppServer, upwire: Upwire, store: Variables) {
    let user = server.user().await;
    let domain = user.jid.domain().to_string();
    let tenant = |action: &str| said(&["tenant", action, &domain], &store);
    let phone = Phone::connect(server, &user, "phone").await;
    assert_eq!(registers(&phone, &upwire, "app").await, Err(DefinedCondition::Forbidden));

    tenant("add");
    let endpoint =
        eventually_some(SOON, "the relay knows it", async || registers(&phone, &upwire, "app").await.ok())
            .await;
    eventually(SOON, "it gets pushes", async || http::post(&endpoint, "first").await.status == 201).await;
    phone.wait_for_body(b"first").await;

    tenant("suspend");
    let suspended = async || {
        let answer = http::post(&endpoint, "x").await;
        answer.status == 429 && answer.header("retry-after") == Some("3600")
    };
    eventually(SOON, "senders wait", suspended).await;
    let refused = async || registers(&phone, &upwire, "app").await == Err(DefinedCondition::Forbidden);
    eventually(SOON, "nobody registers", refused).await;

    tenant("resume");
    eventually(SOON, "senders are served", async || http::post(&endpoint, "again").await.status == 201).await;
    phone.wait_for_body(b"again").await;
    let same = async || registers(&phone, &upwire, "app").await.as_ref() == Ok(&endpoint);
    eventually(SOON, "a renewal gives the same endpoint", same).await;

    tenant("remove");
    eventually(SOON, "nobody registers", refused).await;
}

#[tokio::test]
async fn a_tenant_of_one_process_is_served_while_it_pays() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_ACL", NOBODY).start_ready().await;
    let store = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
    a_tenant_is_served_while_it_pays(server, upwire, store).await;
}

#[tokio::test]
async fn a_tenant_on_aws_is_served_while_it_pays() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let upwire = cloud.relay_on(server).set("UPWIRE_ACL", NOBODY).start_ready().await;
    let mut store = Emulator::variables(&cloud.emulator.endpoint);
    store.insert("UPWIRE_REGISTRATIONS_TABLE", cloud.table.clone());
    store.insert("UPWIRE_MAILBOX_TABLE", cloud.mailbox.clone());
    a_tenant_is_served_while_it_pays(server, upwire, store).await;
}

#[tokio::test]
async fn a_suspension_beats_a_list_that_has_everyone() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).set("UPWIRE_ACL", "*").start_ready().await;
    let store = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let domain = phone.jid().domain().to_string();
    said(&["tenant", "add", &domain, "--note", "pays in advance", "--rate", "100/10"], &store);
    said(&["tenant", "set", &domain, "--registrations", "7", "--rate", "none"], &store);
    let shown: Value = serde_json::from_str(&said(&["tenant", "show", &domain, "--json"], &store)).unwrap();
    assert_eq!((&shown["tenant"], &shown["registrations"]), (&Value::from(&*domain), &Value::from(7)));
    assert_eq!((&shown["note"], &shown["rate"]), (&Value::from("pays in advance"), &Value::Null));
    for wrong in
        [&["tenant", "add", &domain][..], &["tenant", "set", &domain], &["tenant", "resume", "other.example"]]
    {
        assert_eq!(command(wrong, &store).status.code(), Some(1), "{wrong:?}");
    }
    assert_eq!(command(&["tenant", "add", "a@b.example"], &store).status.code(), Some(64));

    said(&["tenant", "suspend", &domain], &store);
    let refused = async || registers(&phone, &upwire, "app").await == Err(DefinedCondition::Forbidden);
    eventually(SOON, "nobody registers", refused).await;
    eventually(SOON, "senders wait", async || http::post(&endpoint, "x").await.status == 429).await;
    let listed = said(&["tenant", "list"], &store);
    assert!(listed.contains("suspended since") && listed.lines().count() == 1, "{listed}");
}

fn name(text: &str) -> TenantName {
    text.parse().unwrap()
}

async fn of_two_changes_at_once_both_stand<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    assert_eq!(store.roster().await.unwrap(), Roster::default());
    let mut first = Roster { version: 1, ..Roster::default() };
    first.add(name("one.example"), Tenant::new(at(0))).unwrap();
    assert!(store.set_roster(&first).await.unwrap());
    assert!(!store.set_roster(&first).await.unwrap(), "it has that version already");
    assert!(!store.set_roster(&Roster { version: 3, ..first.clone() }).await.unwrap());
    let add = async |text: &'static str| {
        change(store, |roster| roster.add(name(text), Tenant::new(at(0)))).await.unwrap().unwrap();
    };
    tokio::join!(add("two.example"), add("three.example"), add("four.example"));
    let backend = backend.after_a_restart().await;
    let roster = backend.store().roster().await.unwrap();
    assert_eq!((roster.version, roster.tenants.iter().len()), (4, 4));
}

async fn keeping_rows_changes_no_registration<B: Backend>() {
    let backend = B::fresh().await;
    let store = backend.store();
    let registered = store.register(target("juliet", "a"), at(0), WEEK, Renewal::Always, 9).await.unwrap();
    let row = registered.stored().unwrap();
    let mut roster = Roster::default();
    let suspended = Tenant { suspended_since: Some(at(0)), ..Tenant::new(at(0)) };
    roster.add(name(row.target.recipient.domain().as_str()), suspended).unwrap();
    for roster in [roster, Roster::default()] {
        store.preserve_rows(&roster, at(1)).await.unwrap();
        let found = store.find(row.target.registration_id(), Strong).await.unwrap();
        assert_eq!(found.as_ref(), Some(&row));
    }
}

on_each_backend!(of_two_changes_at_once_both_stand, keeping_rows_changes_no_registration);

/// Returns the moment at which DynamoDB may delete the row.
async fn purge_at(emulator: &Emulator, table: &str, id: &str) -> i64 {
    let get = serde_json::json!({"TableName": table, "Key": {"id": {"S": id}}, "ConsistentRead": true});
    let item = emulator.call("DynamoDB_20120810.GetItem", get).await;
    item["Item"]["purge_at"]["N"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn dynamodb_deletes_no_row_of_a_suspended_tenant() {
    let emulator = Emulator::shared().await;
    let table = emulator.table().await;
    let store = aws::RegistrationsTable::new(&emulator.config(), &table);
    let row = store
        .register(target("juliet", "a"), at(0), WEEK, Renewal::Always, 9)
        .await
        .unwrap()
        .stored()
        .unwrap();
    let id = row.target.registration_id().to_string();
    let mut roster = Roster::default();
    let suspended = Tenant { suspended_since: Some(at(0)), ..Tenant::new(at(0)) };
    roster.add(name(row.target.recipient.domain().as_str()), suspended).unwrap();
    let before = purge_at(emulator, &table, &id).await;
    assert_eq!(before, row.purge_at().timestamp());
    // The index may be a moment behind.
    eventually(SOON, "the row is kept", async || {
        store.preserve_rows(&roster, at(1)).await.unwrap();
        purge_at(emulator, &table, &id).await > at(1).timestamp() + 10 * 365 * 24 * 3600
    })
    .await;
    eventually(SOON, "it goes when it would have gone", async || {
        store.preserve_rows(&Roster::default(), at(1)).await.unwrap();
        purge_at(emulator, &table, &id).await == before
    })
    .await;
}
