//! The function: its size, cold start and memory, and the time and the calls of each kind of request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws::RegistrationsTable;
use chrono::{TimeDelta, Utc};
use e2e::machine::Process;
use e2e::{ENDPOINT_SECRET, Emulator};
use push::marker::Keys;
use push::ports::{MarkerWriter, Registrations, Renewal};
use push::{Application, Instance, Marker, Registration, Secrets, Target};
use serde_json::{Value, json};

use crate::runtime_api::Environment;
use crate::{Calls, Cloud};

const COLD_STARTS: usize = 30;
/// Number of requests of each kind.
pub(crate) const REQUESTS: usize = 500;
const WARM_UP: usize = 20;
const BODY_BYTES: usize = 1024;

/// The size and the cold starts of the function.
pub(crate) struct Cold {
    pub(crate) size_mb: f64,
    pub(crate) this: Starts,
    /// A function of the same runtime that does nothing, and has no SDK.
    pub(crate) empty: Starts,
}

/// Times from exec to the first poll.
pub(crate) struct Starts {
    pub(crate) fastest: Duration,
    pub(crate) median: Duration,
}

/// The figures of the function under requests.
pub(crate) struct Warm {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) memory_peak_mib: f64,
}

/// The figures of one kind of request.
pub(crate) struct Kind {
    pub(crate) title: &'static str,
    pub(crate) p50: Duration,
    pub(crate) calls: Calls,
}

/// Returns the binary that `make sam-build` makes for AWS.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let path = e2e::target_folder().join("sam/build/Ingress/bootstrap");
    path.canonicalize().with_context(|| format!("no {}: `make sam-build` first", path.display()))
}

/// Returns the empty function, built for this machine with the same options.
pub(crate) fn empty_binary() -> anyhow::Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu/release/empty-function", std::env::consts::ARCH);
    let path = e2e::target_folder().join(target);
    path.canonicalize().with_context(|| format!("no {}: `make empty-function` first", path.display()))
}

/// Starts both functions in turn, so that a busy moment of the machine affects both.
pub(crate) async fn cold_starts(binary: &Path, empty: &Path) -> anyhow::Result<Cold> {
    let mut variables = Emulator::variables("http://127.0.0.1:9");
    variables.remove("AWS_ENDPOINT_URL");
    variables.insert("UPWIRE_SECRET", ENDPOINT_SECRET.to_owned());
    variables.insert("UPWIRE_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/queue".to_owned());
    variables.insert("UPWIRE_REGISTRATIONS_TABLE", "registrations".to_owned());
    variables.insert("UPWIRE_MAILBOX_TABLE", "mailbox".to_owned());
    let (mut this, mut nothing) = (Vec::with_capacity(COLD_STARTS), Vec::with_capacity(COLD_STARTS));
    for _ in 0..COLD_STARTS {
        nothing.push(Environment::start(empty, &variables).await?.cold_start);
        this.push(Environment::start(binary, &variables).await?.cold_start);
    }
    let size_mb = std::fs::metadata(binary)?.len() as f64 / 1e6;
    Ok(Cold { size_mb, this: Starts::of(this), empty: Starts::of(nothing) })
}

impl Starts {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { fastest: times[0], median: times[times.len() / 2] }
    }
}

pub(crate) async fn warm(binary: &Path, cloud: &Cloud) -> anyhow::Result<Warm> {
    let (living, dead) = endpoints(cloud).await?;
    let forged = e2e::http::forged(&living);
    let mut environment = Environment::start(binary, &cloud.variables()).await?;
    let mut kinds = Vec::new();
    for (title, token, status) in
        [("accepted", &living, 201), ("refused for good (410)", &dead, 410), ("forged (404)", &forged, 404)]
    {
        kinds.push(measure(&mut environment, cloud, title, token, status).await?);
    }
    // Nobody receives these entries.
    cloud.sqs.call("AmazonSQS.PurgeQueue", json!({"QueueUrl": cloud.queue_url})).await;
    let process = Process { title: "the function".to_owned(), pid: environment.pid() };
    Ok(Warm { kinds, memory_peak_mib: process.memory_peak_mib()? })
}

async fn measure(
    environment: &mut Environment,
    cloud: &Cloud,
    title: &'static str,
    token: &str,
    expected: u64,
) -> anyhow::Result<Kind> {
    let event = event(token);
    // An environment reads the marker before the first refusal.
    for _ in 0..WARM_UP {
        environment.invoke(&event).await?;
    }
    let before = cloud.ways.calls();
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let (status, time) = environment.invoke(&event).await?;
        ensure!(status == expected, "{title}: answered {status}");
        times.push(time);
    }
    times.sort_unstable();
    Ok(Kind { title, p50: times[REQUESTS / 2], calls: cloud.ways.calls_since(&before) })
}

/// Registers two endpoints, revokes one of them, and stores the marker of a relay that has run for a month. Returns the
/// token of the one that lives and of the one that was revoked.
#[expect(clippy::disallowed_methods, reason = "the function compares with its own clock")]
async fn endpoints(cloud: &Cloud) -> anyhow::Result<(String, String)> {
    let table = RegistrationsTable::new(&cloud.dynamodb.config(), &cloud.table);
    let secrets = Secrets::parse(ENDPOINT_SECRET)?;
    let keys = Keys { secrets: secrets.fingerprints(), ..Keys::default() };
    let mut marker = Marker::begin(None, keys.clone(), None, Utc::now() - TimeDelta::days(30));
    marker.note(keys, Utc::now());
    table.set_marker(&marker).await?;
    let register = async |user: &str| {
        let target = Target {
            recipient: format!("{user}@localhost/phone").parse()?,
            application: Application::from_bytes([1; 32]),
            instance: Instance::from_bytes([2; 32]),
            vapid: None,
            legacy: None,
        };
        let registered = table.register(target, Utc::now(), TimeDelta::days(7), Renewal::Always, 1).await?;
        registered.stored().context("the account is full")
    };
    let (living, dead) = (register("living").await?, register("dead").await?);
    table.revoke(dead.target.registration_id(), dead.epoch, &dead.target.recipient, Utc::now()).await?;
    let token = |row: Registration| secrets.sign(row.target.registration_id(), row.epoch).as_str().to_owned();
    Ok((token(living), token(dead)))
}

/// Returns the event that a Function URL makes of a push.
fn event(token: &str) -> Value {
    let path = format!("/push/{token}");
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {
            "content-length": BODY_BYTES.to_string(),
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "host": "example.lambda-url.us-east-1.on.aws",
            "ttl": "86400",
            "urgency": "high",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "example",
            "domainName": "example.lambda-url.us-east-1.on.aws",
            "domainPrefix": "example",
            "http": {
                "method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "bench",
            },
            "requestId": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
            "routeKey": "$default",
            "stage": "$default",
            "time": "24/Nov/2026:12:00:00 +0000",
            "timeEpoch": 1_795_521_600_000_u64,
        },
        "body": "A".repeat(BODY_BYTES * 4 / 3 / 4 * 4),
        "isBase64Encoded": true,
    })
}
