//! kill -9 while no commit can be made: a push that is settled before its commit begins is never written.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use e2e::{Answer, Phone, SOON, Upwire, XmppServer, eventually_some, http};

use crate::mailbox::bodies;

/// Number of pushes in each try: more than one commit can take, if they are posted one after the other.
const PUSHES: usize = 3;

/// Python that holds the database so that nobody else can commit, until its input is closed.
const HOLD: &str = "
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
";

struct Holding(Child);

impl Holding {
    fn of(upwire: &Upwire) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", HOLD]).arg(upwire.database()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    fn release(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it was held until now");
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Ends the process if a test has failed.
impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Posts until a sender gets a 201 although nothing can be written. Returns the body of that push.
async fn is_taken_without_a_commit(upwire: &Upwire, endpoint: &str) -> (String, Holding) {
    let mut tries = 0;
    eventually_some(SOON, "a delivery answers its sender", async || {
        let holding = Holding::of(upwire);
        for _ in 0..PUSHES {
            tries += 1;
            let body = format!("try {tries}");
            if http::post(endpoint, body.clone()).await.status == 201 {
                return Some((body, holding));
            }
        }
        // After a failed commit, no push is delivered before its own commit, until a commit succeeds.
        holding.release();
        assert_eq!(http::post(endpoint, "in between").await.status, 201);
        None
    })
    .await
}

async fn a_push_that_its_phone_took_needs_no_commit(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let silent = Phone::connect_to_answer(server, &server.user().await, "phone", Answer::Silent).await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    let unanswered = silent.endpoint(&upwire.component.jid, "app").await;
    assert_eq!(http::post(&endpoint, "first").await.status, 201);

    let (taken, holding) = is_taken_without_a_commit(&upwire, &endpoint).await;
    let refused = http::post(&unanswered, "not taken").await;
    assert_eq!(refused.status, 503, "neither a commit nor an answer");
    upwire.kill();
    holding.release();
    phone.wait_for_body(&taken).await;
    upwire.start_again();
    upwire.ready().await;
    assert_eq!(http::post(&endpoint, "last").await.status, 201);
    phone.wait_for_body("last").await;
    upwire.queue_empties().await;
    // An older push comes before a younger one. If the push had a row, it would have come again by now.
    let got = bodies(&phone.pushes());
    assert_eq!(
        got.iter().filter(|body| **body == taken).count(),
        1,
        "it has no row, and comes once: {got:?}"
    );
}

on_each_server!(a_push_that_its_phone_took_needs_no_commit);
