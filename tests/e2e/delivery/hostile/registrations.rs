//! Thousands of registrations of one account.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use e2e::{RawClient, SOON, UNIFIED_PUSH, Upwire, XmppServer, hashed};
use tokio_xmpp::jid::BareJid;

/// Number of requests: more than a blocked store is given, and more than may wait of one account.
const REQUESTS: usize = 2000;

/// A write lock on the database of a server. Until its release, no registration is stored.
struct Standstill(Child);

impl Standstill {
    fn of(upwire: &Upwire) -> Self {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], 60, isolation_level=None); \
                      c.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(upwire.database()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(told.read_line(&mut String::new()).unwrap(), 1, "it has the lock");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn register(component: &BareJid, id: &str) -> String {
    let (application, instance) = (hashed(id), hashed("1"));
    format!(
        "<iq type='set' id='{id}' to='{component}'><register xmlns='{UNIFIED_PUSH}' \
         application='{application}' instance='{instance}'/></iq>"
    )
}

/// Returns the number in the id of an answer to the flood.
fn number(answer: &str) -> usize {
    let (_, from) = answer.split_once("flood-").unwrap_or_else(|| panic!("an answer to what? {answer}"));
    let digits: String = from.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// While the store is slow, the waiting requests of one account reach their bound.
async fn a_flood_of_registrations_is_answered_and_leaves_others_their_turns(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let component = &upwire.component.jid;
    let mut villain = RawClient::connect(server, &server.user().await, "villain").await;
    let mut other = RawClient::connect(server, &server.user().await, "phone").await;
    let standstill = Standstill::of(&upwire);
    let flood: String = (0..REQUESTS).map(|number| register(component, &format!("flood-{number}"))).collect();
    villain.send(flood).await.unwrap();
    let mut answers = villain.read_until("resource-constraint", SOON).await.unwrap();
    answers.push_str(&villain.read_until("</iq>", SOON).await.unwrap());

    other.send(register(component, "other")).await.unwrap();
    for (id, payload) in [
        ("disco", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
        ("last", "<ping xmlns='urn:xmpp:ping'/>"),
    ] {
        other.send(format!("<iq type='get' id='{id}' to='{component}'>{payload}</iq>")).await.unwrap();
    }
    let meanwhile = other.read_until("last", SOON).await.unwrap();
    assert!(meanwhile.contains("disco#info") && meanwhile.contains(UNIFIED_PUSH), "{meanwhile}");
    standstill.end();
    is_registered(&mut other, component, meanwhile).await;

    let mut answered = BTreeSet::new();
    answers.split_inclusive("</iq>").for_each(|answer| note(answer, &mut answered));
    while answered.len() < REQUESTS {
        note(&villain.read_until("</iq>", SOON).await.unwrap(), &mut answered);
    }
    villain.send(register(component, "flood-0")).await.unwrap();
    let renewed = villain.read_until("</iq>", SOON).await.unwrap();
    assert!(renewed.contains("<registered "), "{renewed}");
    upwire.never_counted("upwire_xmpp_reconnects_total").await;
}

/// Waits until the client is registered. Sends the request again if it was refused because storing it took too long.
async fn is_registered(client: &mut RawClient, component: &BareJid, mut so_far: String) {
    while !so_far.contains("<registered ") {
        assert!(!so_far.contains("resource-constraint"), "{so_far}");
        if so_far.contains("internal-server-error") {
            client.send(register(component, "other")).await.unwrap();
        }
        so_far = client.read_until("</iq>", SOON).await.unwrap();
    }
}

fn note(answer: &str, answered: &mut BTreeSet<usize>) {
    let may_come_again =
        ["resource-constraint", "internal-server-error"].iter().any(|word| answer.contains(word));
    assert!(answer.contains("<registered ") || answer.contains("wait") && may_come_again, "{answer}");
    assert!(answered.insert(number(answer)), "answered once: {answer}");
}

on_each_server!(a_flood_of_registrations_is_answered_and_leaves_others_their_turns);
