//! Senders under load, and the ledger of the pushes that were accepted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http;
use crate::phone::Phone;
use crate::wait::eventually;

/// Longest wait for the load. Generous: servers are killed and started meanwhile, and the delays of retries add up.
const LOAD_DEADLINE: Duration = Duration::from_secs(300);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
const SENDERS_PER_ENDPOINT: usize = 4;

/// Senders that POST unique bodies to endpoints, each until it gets a 201, whatever happens to the push server
/// meanwhile.
pub struct Load {
    ledger: Ledger,
    refused: Arc<AtomicUsize>,
    senders: JoinSet<()>,
}

/// The pushes that got a 201: body and index of the endpoint.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, usize>>>);

impl Load {
    /// Starts the senders, with `count` pushes for each endpoint.
    pub fn start(endpoints: &[String], count: usize) -> Self {
        static LOADS: AtomicUsize = AtomicUsize::new(1);
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let (ledger, refused) = (Ledger::default(), Arc::<AtomicUsize>::default());
        let mut senders = JoinSet::new();
        let client = http::client();
        for (index, endpoint) in endpoints.iter().enumerate() {
            for sender in 0..SENDERS_PER_ENDPOINT {
                let (client, endpoint, ledger) = (client.clone(), endpoint.clone(), ledger.clone());
                let refused = Arc::clone(&refused);
                senders.spawn(async move {
                    for number in (sender..count).step_by(SENDERS_PER_ENDPOINT) {
                        let body = format!("load {load}, push {number} to phone {index}");
                        send(&client, &endpoint, &body, &refused).await;
                        ledger.0.lock().expect("no panic while held").insert(body, index);
                    }
                });
            }
        }
        Self { ledger, refused, senders }
    }

    /// Waits until this number of pushes got a 201.
    pub async fn accepted(&self, count: usize) {
        let what = format!("{count} pushes are accepted");
        eventually(LOAD_DEADLINE, &what, async || self.ledger.len() >= count).await;
    }

    /// Waits until an accepted push is still on its way.
    pub async fn is_in_mid_delivery(&self, phones: &[&Phone]) {
        eventually(LOAD_DEADLINE, "accepted pushes are on their way", async || {
            !self.ledger.missing(phones).is_empty()
        })
        .await;
    }

    /// Waits until a sender got a 503.
    pub async fn is_refused(&self) {
        eventually(LOAD_DEADLINE, "a sender is told 503", async || self.refused() > 0).await;
    }

    /// Returns the number of answers 503 that senders got.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the pushes that got a 201 so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Waits until all pushes are accepted.
    pub async fn finish(self) -> Ledger {
        self.senders.join_all().await;
        self.ledger
    }
}

async fn send(client: &Client, endpoint: &str, body: &str, refused: &AtomicUsize) {
    let accepted = async {
        loop {
            match http::try_send(client, "POST", endpoint, &[], body.to_owned()).await {
                Ok(response) if response.status == 201 => return,
                Ok(response) if response.status == 503 => {
                    assert!(response.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()));
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(response) => panic!("{body:?}: {} {}", response.status, response.text()),
                // The server is down. Nobody knows whether it took the push.
                Err(_) => {}
            }
            http::will_be_posted_again(endpoint, body.as_bytes());
            sleep(RETRY_INTERVAL).await;
        }
    };
    assert!(
        timeout(LOAD_DEADLINE, accepted).await.is_ok(),
        "not within {LOAD_DEADLINE:?}: {body:?} accepted"
    );
}

impl Ledger {
    /// Returns the number of pushes that got a 201.
    pub fn len(&self) -> usize {
        self.0.lock().expect("no panic while held").len()
    }

    /// Returns whether no push got a 201.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the pushes that have not arrived at their phones.
    pub fn missing(&self, phones: &[&Phone]) -> Vec<String> {
        let received: Vec<Vec<Vec<u8>>> = phones
            .iter()
            .map(|phone| {
                let mut bodies: Vec<_> = phone.pushes().into_iter().map(|push| push.body).collect();
                bodies.sort_unstable();
                bodies
            })
            .collect();
        let ledger = self.0.lock().expect("no panic while held");
        let arrived = |body: &str, index: usize| {
            received[index].binary_search_by(|other| other.as_slice().cmp(body.as_bytes())).is_ok()
        };
        ledger.iter().filter(|(body, index)| !arrived(body, **index)).map(|(body, _)| body.clone()).collect()
    }

    /// Asserts that none of the pushes has arrived. This proves something only after an event that comes later than a
    /// push would.
    pub fn has_not_begun_to_arrive(&self, phones: &[&Phone]) {
        let missing = self.missing(phones);
        assert_eq!(
            missing.len(),
            self.len(),
            "of {} pushes, these alone have not arrived: {missing:?}",
            self.len()
        );
    }

    /// Waits until all pushes have arrived. Returns the number of duplicates.
    pub async fn arrives(&self, phones: &[&Phone]) -> usize {
        let arrived = eventually(2 * LOAD_DEADLINE, "the ledger's pushes arrive", async || {
            self.missing(phones).is_empty()
        });
        let waited = timeout(LOAD_DEADLINE, arrived).await.is_ok();
        let (count, missing) = (self.len(), self.missing(phones));
        assert!(waited, "not within {LOAD_DEADLINE:?}: of {count} accepted pushes, {missing:?} arrive");
        phones.iter().map(|phone| phone.pushes().len()).sum::<usize>() - self.len()
    }
}
