//! A look at the push servers: one of them is connected to the XMPP server, or none.

use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::ledger::Ledger;
use crate::http;

const READY_INTERVAL: Duration = Duration::from_millis(100);
/// One that hangs does not answer; one that is busy does, later.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns whether one of them is connected to the XMPP server: those that stand by are not.
pub(super) async fn is_one_ready(client: &Client, admin_urls: &[String]) -> bool {
    for url in admin_urls {
        let url = format!("{url}/readyz");
        let answer = timeout(READY_TIMEOUT, http::try_send(client, "GET", &url, &[], "")).await;
        if let Ok(Ok(answer)) = answer
            && answer.status == 200
            && answer.text().starts_with("ready\n")
        {
            return true;
        }
    }
    false
}

/// Notes when none of them is connected, for whatever reason, until it is told that all is over.
pub(super) async fn watch_readiness(admin_urls: &[String], ledger: &Ledger, mut over: watch::Receiver<bool>) {
    let (client, mut unready) = (http::client(), None);
    while !*over.borrow_and_update() {
        match (is_one_ready(&client, admin_urls).await, unready) {
            (true, Some(disturbance)) => {
                ledger.is_over(disturbance);
                unready = None;
            }
            (false, None) => unready = Some(ledger.is_disturbed(None, "upwire not ready")),
            _ => {}
        }
        tokio::select! {
            () = sleep(READY_INTERVAL) => {}
            _ = over.changed() => {}
        }
    }
}
