//! AWS on this machine: an emulator that the tests of this binary share, and the calls that prepare a test.

use std::collections::BTreeMap;
use std::env::VarError;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws::SdkConfig;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::tether::Tether;
use crate::{http, run::folder, tcp_ports::free_port, wait::eventually};

/// Longest wait for an emulator. LocalStack has taken 20 s on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(300);

/// The kind of emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulatorKind {
    /// LocalStack: the most complete SQS and DynamoDB; no functions.
    LocalStack,
    /// ministack: SQS, DynamoDB and functions.
    Ministack,
    /// fauxqs: SQS alone, fast.
    Fauxqs,
    /// dynalite: DynamoDB alone, fast.
    Dynalite,
}

/// Attribute of a queue that counts the entries which nobody has received yet.
const VISIBLE: &str = "ApproximateNumberOfMessages";

/// A running emulator.
pub struct Emulator {
    /// The base URL, `http://127.0.0.1:…`.
    pub endpoint: String,
    process: Tether,
}

/// A queue and its dead-letter queue.
#[derive(Clone, Debug)]
pub struct Queues {
    /// The queue's URL.
    pub url: String,
    /// The dead-letter queue's URL.
    pub dead_letters: String,
}

impl Emulator {
    /// Returns the emulator that the tests of the adapters share: LocalStack, or the one that `UPWIRE_TEST_EMULATOR`
    /// names.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Emulator> = OnceCell::const_new();
        let kind = match std::env::var("UPWIRE_TEST_EMULATOR").as_deref() {
            Ok("ministack") => EmulatorKind::Ministack,
            Ok("localstack") | Err(_) => EmulatorKind::LocalStack,
            Ok(other) => panic!("UPWIRE_TEST_EMULATOR: {other} is neither localstack nor ministack"),
        };
        SHARED.get_or_init(|| Self::start(kind)).await
    }

    /// Returns the ministack that end-to-end tests share. It takes more calls in a second than LocalStack does.
    pub async fn shared_stage() -> &'static Self {
        static STAGE: OnceCell<Emulator> = OnceCell::const_new();
        STAGE.get_or_init(|| Self::start(EmulatorKind::Ministack)).await
    }

    /// Starts an emulator of the test's own.
    pub async fn start(kind: EmulatorKind) -> Self {
        let (folder, port) = (folder(kind.name()), free_port());
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/local/emulator.sh"));
        command.args(["start", kind.name(), &port.to_string()]).arg(&folder);
        let mut process = Tether::start(&command, &folder.join("log"));
        let endpoint = format!("http://127.0.0.1:{port}");
        let (what, client) = (format!("{process:?} answers"), http::client());
        eventually(START_DEADLINE, &what, async || {
            process.assert_running();
            try_call(&client, &endpoint, kind.question(), &json!({})).await.is_ok()
        })
        .await;
        Self { endpoint, process }
    }

    /// Returns the configuration with which an adapter in this process reaches the emulator.
    pub fn config(&self) -> SdkConfig {
        Self::config_at(&self.endpoint)
    }

    /// Returns the configuration with which an adapter in this process reaches this endpoint.
    pub fn config_at(endpoint: &str) -> SdkConfig {
        let variables = Self::variables(endpoint);
        let lookup = |name: &str| variables.get(name).cloned().ok_or(VarError::NotPresent);
        aws::for_relay(aws::for_ingress(lookup).expect("all variables are set"))
    }

    /// Returns the variables with which a process finds AWS at this endpoint, an emulator's or a proxy's.
    pub fn variables(endpoint: &str) -> BTreeMap<&'static str, String> {
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.map(|(name, value)| (name, value.to_owned())).into()
    }

    /// Creates a queue with this visibility timeout, and its dead-letter queue.
    pub async fn queue(&self, visibility: Duration, receives_max: u32) -> Queues {
        let name = fresh_name("queue");
        let create = async |name: &str, attributes: Value| {
            let created =
                self.call("AmazonSQS.CreateQueue", json!({"QueueName": name, "Attributes": attributes}));
            created.await["QueueUrl"].as_str().expect("a URL").to_owned()
        };
        let dead_letters = create(&format!("{name}-dead-letters"), json!({})).await;
        let asked = json!({"QueueUrl": dead_letters, "AttributeNames": ["QueueArn"]});
        let arn = self.call("AmazonSQS.GetQueueAttributes", asked).await["Attributes"]["QueueArn"].clone();
        let redrive = json!({"deadLetterTargetArn": arn, "maxReceiveCount": receives_max}).to_string();
        let visibility = visibility.as_secs().to_string();
        let url = create(&name, json!({"VisibilityTimeout": visibility, "RedrivePolicy": redrive})).await;
        Queues { url, dead_letters }
    }

    /// Creates a table of registrations, as template.yaml has it.
    pub async fn table(&self) -> String {
        let name = fresh_name("registrations");
        self.create_table(json!({
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "id", "AttributeType": "S"},
                {"AttributeName": "account", "AttributeType": "S"},
            ],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "GlobalSecondaryIndexes": [{
                "IndexName": "by_account",
                "KeySchema": [{"AttributeName": "account", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }],
        }))
        .await;
        name
    }

    /// Creates a table of mailboxes, as template.yaml has it.
    pub async fn mailbox_table(&self) -> String {
        let name = fresh_name("mailbox");
        self.create_table(json!({
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "mailbox", "AttributeType": "S"},
                {"AttributeName": "id", "AttributeType": "B"},
                {"AttributeName": "place", "AttributeType": "B"},
            ],
            "KeySchema": [
                {"AttributeName": "mailbox", "KeyType": "HASH"},
                {"AttributeName": "id", "KeyType": "RANGE"},
            ],
            "LocalSecondaryIndexes": [{
                "IndexName": "by_registration",
                "KeySchema": [
                    {"AttributeName": "mailbox", "KeyType": "HASH"},
                    {"AttributeName": "place", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["epoch", "topic", "purge_at"]},
            }],
        }))
        .await;
        name
    }

    async fn create_table(&self, table: Value) {
        let asked = json!({"TableName": table["TableName"]});
        self.call("DynamoDB_20120810.CreateTable", table).await;
        eventually(START_DEADLINE, "the table is active", async || {
            self.call("DynamoDB_20120810.DescribeTable", asked.clone()).await["Table"]["TableStatus"]
                == "ACTIVE"
        })
        .await;
    }

    /// Returns up to 10 entries that wait in a queue. Their visibility timeout is 0.
    pub async fn peek(&self, url: &str) -> Vec<String> {
        let asked = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0});
        let received = self.call("AmazonSQS.ReceiveMessage", asked).await;
        let messages = received["Messages"].as_array().cloned().unwrap_or_default();
        messages.iter().map(|message| message["Body"].as_str().expect("a body").to_owned()).collect()
    }

    /// Puts any text into a queue as an entry.
    pub async fn send(&self, url: &str, body: &str) {
        self.call("AmazonSQS.SendMessage", json!({"QueueUrl": url, "MessageBody": body})).await;
    }

    /// Returns the number of entries in a queue, hidden ones included.
    pub async fn depth(&self, url: &str) -> u64 {
        let counts = [VISIBLE, "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"];
        self.counts(url, &counts).await
    }

    /// Returns the number of entries in a queue that nobody has received yet.
    pub async fn unreceived(&self, url: &str) -> u64 {
        self.counts(url, &[VISIBLE]).await
    }

    async fn counts(&self, url: &str, counts: &[&str]) -> u64 {
        let asked = json!({"QueueUrl": url, "AttributeNames": counts});
        let answer = self.call("AmazonSQS.GetQueueAttributes", asked).await;
        let count = |name| answer["Attributes"][name].as_str().and_then(|text| text.parse::<u64>().ok());
        counts.iter().map(|name| count(*name).unwrap_or(0)).sum()
    }

    /// Returns the process id, to measure the process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Calls a target, `AmazonSQS.…` or `DynamoDB_20120810.…`. Panics if the call fails.
    pub async fn call(&self, target: &str, body: Value) -> Value {
        match try_call(&http::client(), &self.endpoint, target, &body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{target} {body}: {error:#}"),
        }
    }
}

impl EmulatorKind {
    fn name(self) -> &'static str {
        match self {
            Self::LocalStack => "localstack",
            Self::Ministack => "ministack",
            Self::Fauxqs => "fauxqs",
            Self::Dynalite => "dynalite",
        }
    }

    /// Returns a call that the emulator answers once it is up.
    fn question(self) -> &'static str {
        if self == Self::Dynalite { "DynamoDB_20120810.ListTables" } else { "AmazonSQS.ListQueues" }
    }
}

fn fresh_name(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("upwire-{}-{what}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Calls a target. Emulators read only the service in a signature.
async fn try_call(client: &Client, endpoint: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
    let service = if target.starts_with("AmazonSQS") { "sqs" } else { "dynamodb" };
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    let headers = [
        ("x-amz-target", target),
        ("x-amz-date", "20260101T000000Z"),
        ("content-type", "application/x-amz-json-1.0"),
        ("authorization", &signature),
    ];
    let answer = http::try_send(client, "POST", endpoint, &headers, body.to_string()).await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(answer.json())
}
