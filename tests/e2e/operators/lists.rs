//! An operator lists, ends and erases while the server runs.

use std::collections::BTreeMap;

use e2e::{Emulator, Kind, Phone, SOON, Upwire, XmppServer, eventually_some, hashed, http};
use push::ports::{Accounts, Registrations, Renewal};
use serde_json::Value;

use super::{said, upwire};
use crate::ports::{WEEK, at, target};

fn listed(arguments: &[&str], variables: &BTreeMap<&str, String>) -> Vec<Value> {
    let arguments = [&["registrations", "list", "--json"], arguments].concat();
    said(&arguments, variables).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn registrations_are_listed_and_ended_while_the_server_runs() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let component = &upwire.component.jid;
    let database = BTreeMap::from([("UPWIRE_DATABASE", upwire.database().display().to_string())]);
    let (user, other) = (server.user().await, server.user().await);
    let phone = Phone::connect(server, &user, "phone").await;
    let bystander = Phone::connect(server, &other, "phone").await;
    let first = phone.endpoint(component, "first").await;
    let second = phone.endpoint(component, "second").await;
    let untouched = bystander.endpoint(component, "first").await;
    let account = phone.jid().to_bare();

    assert_eq!(listed(&[], &database).len(), 3);
    let rows = listed(&["--account", account.as_str()], &database);
    assert!(rows.len() == 2 && rows.iter().all(|row| row["recipient"] == phone.jid().as_str()), "{rows:?}");
    assert_eq!(listed(&["--domain", account.domain().as_str()], &database).len(), 3);
    assert_eq!(listed(&["--domain", "elsewhere.example"], &database).len(), 0);

    phone.disconnect().await;
    assert_eq!(http::post(&first, "waits").await.status, 201);
    upwire.mailbox_holds(1).await;
    let dry = said(&["registrations", "end", "--dry-run", &first], &database);
    assert!(dry.contains("1 registrations would end"), "{dry}");
    assert_eq!(http::get(&first).await.status, 200);
    let ended = said(&["registrations", "end", &first], &database);
    assert!(ended.contains("1 pushes that waited were removed"), "{ended}");
    assert_eq!(http::post(&first, "x").await.status, 410);
    upwire.mailbox_holds(0).await;
    assert!(said(&["registrations", "end", &first], &database).contains("0 registrations have ended"));
    let left = listed(&["--account", account.as_str()], &database);
    let id = left[0]["id"].as_str().unwrap();
    assert!(left.len() == 1 && said(&["registrations", "end", id], &database).contains("1 registrations"));
    assert_eq!(http::post(&second, "x").await.status, 410);
    assert_eq!(http::post(&untouched, "x").await.status, 201);

    let phone = Phone::connect(server, &user, "phone").await;
    let renewed = phone.register(component, &hashed("first"), &hashed("1")).await.unwrap().endpoint;
    assert_ne!(renewed, first);
    assert!(
        said(&["registrations", "end", "--account", account.as_str()], &database).contains("1 registrations")
    );
    assert_eq!(http::post(&renewed, "x").await.status, 410);
}

#[tokio::test]
async fn an_account_is_shown_and_forgotten_while_the_server_runs() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).start_ready().await;
    let component = upwire.component.jid.clone();
    let admin = upwire.admin_url.replace("http://", "");
    let database = BTreeMap::from([
        ("UPWIRE_DATABASE", upwire.database().display().to_string()),
        ("UPWIRE_ADMIN_LISTEN", admin),
    ]);
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&component, "app").await;
    phone.greet(&component).await;
    let (account, resource) = (phone.jid().to_bare().to_string(), phone.jid().to_string());
    let shown = eventually_some(SOON, "its phone was seen", async || {
        let shown = said(&["account", "show", &account], &database);
        shown.contains("1 phones seen lately").then_some(shown)
    })
    .await;
    assert!(shown.contains("1 registrations:") && shown.contains(&resource), "{shown}");
    phone.disconnect().await;
    for body in ["one", "two"] {
        assert_eq!(http::post(&endpoint, body).await.status, 201);
    }
    upwire.mailbox_holds(2).await;
    assert!(said(&["account", "show", &account], &database).contains("2 pushes wait"));
    let shown: Value =
        serde_json::from_str(&said(&["account", "show", "--json", &account], &database)).unwrap();
    let id = shown["registrations"][0]["id"].as_str().unwrap();
    assert_eq!((&shown["waiting"][id], &shown["phones"][0]["jid"]), (&2.into(), &resource.as_str().into()));

    let forgotten = said(&["account", "forget", &account], &database);
    assert!(forgotten.contains("erased: 1 registrations, 2 pushes that waited"), "{forgotten}");
    for remains in ["SQS", "dead letters", "backups", "the running process was told"] {
        assert!(forgotten.contains(remains), "{remains}: {forgotten}");
    }
    assert_eq!(http::post(&endpoint, "x").await.status, 410);
    upwire.mailbox_holds(0).await;
    let shown = said(&["account", "show", &account], &database);
    let nothing = ["0 registrations:", "0 phones seen lately:", "0 pushes wait"];
    assert!(nothing.iter().all(|words| shown.contains(words)), "{shown}");

    // The file does not have the address any more, once its free pages are gone.
    upwire.terminate();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(0));
    let copy = e2e::folder("forgotten").join("copy.db");
    said(&["backup", copy.to_str().unwrap()], &database);
    let bytes = std::fs::read(&copy).unwrap();
    let address = account.as_bytes();
    assert!(!bytes.windows(address.len()).any(|window| window == address));
    upwire.start_again();
    upwire.ready().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let again = phone.endpoint(&component, "app").await;
    assert_ne!(again, endpoint);
    assert_eq!(http::post(&again, "x").await.status, 201);
}

#[tokio::test]
async fn the_same_commands_work_on_the_tables_on_aws() {
    let emulator = Emulator::shared().await;
    let (table, mailbox) = (emulator.table().await, emulator.mailbox_table().await);
    let mut variables = Emulator::variables(&emulator.endpoint);
    variables.insert("UPWIRE_REGISTRATIONS_TABLE", table.clone());
    let missing = upwire(&["registrations", "list"], &variables);
    assert!(missing.status.code() == Some(64), "{missing:?}");
    variables.insert("UPWIRE_MAILBOX_TABLE", mailbox);
    let store = aws::RegistrationsTable::new(&emulator.config(), &table);
    // The rows are compared with the present, which is later than the suite's moments.
    let life = WEEK + chrono::TimeDelta::days(36_500);
    for user in ["juliet", "romeo"] {
        store.register(target(user, "a"), at(0), life, Renewal::Always, 9).await.unwrap();
    }
    let juliet = target("juliet", "a").recipient.to_bare();
    eventually_some(SOON, "the index has both", async || (listed(&[], &variables).len() == 2).then_some(()))
        .await;
    let rows = listed(&["--account", juliet.as_str()], &variables);
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    assert!(said(&["account", "show", juliet.as_str()], &variables).contains(&id));
    assert!(said(&["registrations", "end", &id], &variables).contains("1 registrations have ended"));
    assert!(said(&["registrations", "end", &id], &variables).contains("does not live"));
    assert!(said(&["account", "forget", juliet.as_str()], &variables).contains("erased: 1 registrations"));
    eventually_some(SOON, "the other is left", async || {
        let rows = listed(&[], &variables);
        (rows.len() == 1 && rows[0]["account"] == "romeo@example.com").then_some(())
    })
    .await;
    let romeo = target("romeo", "a").recipient.to_bare();
    assert_eq!(store.account(&romeo, at(1)).await.unwrap().registrations.len(), 1);
}
