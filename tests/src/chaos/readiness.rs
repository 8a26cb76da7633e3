//! A look at the push servers: is one of them connected to the XMPP server?

use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::ledger::Ledger;
use crate::http;

const READY_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for `/readyz`. A process that hangs does not answer; a busy one answers late.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns whether one of the push servers is connected to the XMPP server. A relay that stands by is not.
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

/// Notes each time when none of them is connected, for any reason, until the run is over.
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
