//! An operator changes a running stack: `make close`, `open`, `parameters` and `rollback`, and a second deployment.

use e2e::{Emulator, EmulatorKind, SOON, eventually, http, profile_folder};
use serde_json::{Value, json};

use super::template::{python, python_at};

/// Python that prints the function that senders reach, as JSON.
const LIVE: &str = "
import boto3, json
functions, stacks = boto3.client('lambda'), boto3.client('cloudformation')
outputs = stacks.describe_stacks(StackName='upwire')['Stacks'][0]['Outputs']
name = next(one['OutputValue'] for one in outputs if one['OutputKey'] == 'Function')
live = functions.get_function_configuration(FunctionName=name, Qualifier='live')
variables = live['Environment']['Variables']
print(json.dumps({
    'version': functions.get_alias(FunctionName=name, Name='live')['FunctionVersion'],
    'secret': variables['UPWIRE_SECRET'][:1],
    'default_ttl': variables['UPWIRE_DEFAULT_TTL'],
    'max_ttl': variables['UPWIRE_MAX_TTL'],
    'registrations': variables['UPWIRE_REGISTRATIONS_TABLE'],
    'mailbox': variables['UPWIRE_MAILBOX_TABLE'],
    'reservation': functions.get_function_concurrency(FunctionName=name).get('ReservedConcurrentExecutions'),
}))";

/// Python that prints an output of the stack.
const OUTPUT: &str = "
import boto3, sys
outputs = boto3.client('cloudformation').describe_stacks(StackName='upwire')['Stacks'][0]['Outputs']
print(next(one['OutputValue'] for one in outputs if one['OutputKey'] == sys.argv[1]))";

pub(super) struct Stack {
    pub(super) emulator: Emulator,
    pub(super) public_url: String,
}

impl Stack {
    /// Deploys template.yaml with these parameters, for the first time or again.
    async fn deploy(emulator: Emulator, parameters: &[String]) -> Self {
        let binary = profile_folder().join("upwire-ingress").display().to_string();
        let mut arguments = ["infra/local/stack.py", "--endpoint", &emulator.endpoint, "--function", &binary]
            .map(str::to_owned)
            .to_vec();
        arguments
            .extend(parameters.iter().flat_map(|parameter| ["--parameter".to_owned(), parameter.clone()]));
        let deploying = tokio::task::spawn_blocking(move || {
            python(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let outputs = deploying.await.unwrap();
        Self { emulator, public_url: outputs["PublicUrl"].as_str().unwrap().to_owned() }
    }

    async fn python(&self, arguments: &[&str]) -> Result<String, String> {
        let endpoint = self.emulator.endpoint.clone();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let running = tokio::task::spawn_blocking(move || {
            python_at(&endpoint, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
        });
        running.await.unwrap()
    }

    /// Runs `infra/levers.py` on the stack.
    pub(super) async fn lever(&self, arguments: &[&str]) -> Result<String, String> {
        self.python(&[&["infra/levers.py"], arguments].concat()).await
    }

    /// Returns the present value of an output.
    pub(super) async fn output(&self, name: &str) -> String {
        self.python(&["-c", OUTPUT, name]).await.unwrap()
    }

    async fn live(&self) -> Value {
        serde_json::from_str(&self.python(&["-c", LIVE]).await.unwrap()).unwrap()
    }

    /// Waits until the function itself answers senders: it refuses a path that is no endpoint.
    async fn takes_pushes(&self) {
        let forged = format!("{}/push/forged", self.public_url);
        eventually(SOON, "404", async || http::post(&forged, "forged").await.status == 404).await;
    }
}

fn parameters(release: &str, secret: &str) -> Vec<String> {
    let secret = secret.repeat(40);
    vec![
        "Front=HttpApi".to_owned(),
        "DefaultTtl=77".to_owned(),
        format!("EndpointSecret={secret}"),
        format!("Release={}", release.repeat(16)),
    ]
}

#[tokio::test]
async fn a_second_deployment_reaches_senders_and_one_call_takes_it_back() {
    let stack = Stack::deploy(Emulator::start(EmulatorKind::Ministack).await, &parameters("a", "1")).await;
    let first = json!({"version": "1", "secret": "1", "default_ttl": "77", "max_ttl": "604800", "reservation": null, "registrations": "upwire-Registrations", "mailbox": "upwire-Mailbox"});
    assert_eq!(stack.live().await, first);
    stack.takes_pushes().await;
    let refused = stack.lever(&["rollback"]).await.unwrap_err();
    assert!(refused.contains("version 1 is the first"), "{refused}");

    let stack = Stack::deploy(stack.emulator, &parameters("b", "2")).await;
    let mut second = first.clone();
    (second["version"], second["secret"]) = ("2".into(), "2".into());
    assert_eq!(stack.live().await, second);
    stack.takes_pushes().await;

    stack.lever(&["rollback"]).await.unwrap();
    assert_eq!(stack.live().await, first);
    stack.takes_pushes().await;
    stack.lever(&["rollback", "2"]).await.unwrap();
    assert_eq!(stack.live().await, second);
}

#[tokio::test]
async fn one_parameter_changes_and_the_others_stay() {
    let stack = Stack::deploy(Emulator::start(EmulatorKind::Ministack).await, &parameters("a", "1")).await;
    stack.lever(&["parameters", "MaxTtl=3600"]).await.unwrap();
    let live = stack.live().await;
    assert_eq!(
        (&live["max_ttl"], &live["default_ttl"], &live["secret"]),
        (&"3600".into(), &"77".into(), &"1".into())
    );
    assert_ne!(live["version"], "1", "senders get it by a version of its own");
    stack.takes_pushes().await;

    for (wrong, said) in
        [("Nonsense=1", "no parameter Nonsense"), ("MaxTtl=9999999", "MaxTtl"), ("MaxTtl", "NAME=VALUE")]
    {
        let refused = stack.lever(&["parameters", wrong]).await.unwrap_err();
        assert!(refused.contains(said), "{wrong}: {refused}");
    }
    assert_eq!(stack.live().await, live);
}

#[tokio::test]
async fn the_ingress_is_closed_and_opened_as_it_was() {
    let stack = Stack::deploy(Emulator::start(EmulatorKind::Ministack).await, &parameters("a", "1")).await;
    let reservation = async || stack.live().await["reservation"].clone();
    stack.lever(&["close"]).await.unwrap();
    assert_eq!(reservation().await, 0);
    // `infra/smoke.sh` checks that AWS then answers 429 or 503. The emulator still calls the function.
    stack.lever(&["open"]).await.unwrap();
    assert_eq!(reservation().await, Value::Null);
    stack.takes_pushes().await;

    stack.lever(&["parameters", "ReservedConcurrency=7"]).await.unwrap();
    stack.lever(&["close"]).await.unwrap();
    stack.lever(&["open"]).await.unwrap();
    assert_eq!(reservation().await, 7);

    stack.lever(&["parameters", "ReservedConcurrency=0"]).await.unwrap();
    let refused = stack.lever(&["open"]).await.unwrap_err();
    assert!(refused.contains("ReservedConcurrency=-1"), "{refused}");
}

/// Python that creates a restored table, with as much as the function needs.
const RESTORED: &str = "
import boto3
boto3.client('dynamodb').create_table(
    TableName='restored', BillingMode='PAY_PER_REQUEST', KeySchema=[{'AttributeName': 'id', 'KeyType': 'HASH'}],
    AttributeDefinitions=[{'AttributeName': 'id', 'AttributeType': 'S'}])";

#[tokio::test]
async fn a_restored_table_takes_the_place_of_the_one_that_stays() {
    const TABLES: &str = "import boto3; print(*sorted(boto3.client('dynamodb').list_tables()['TableNames']))";
    let stack = Stack::deploy(Emulator::start(EmulatorKind::Ministack).await, &parameters("a", "1")).await;
    stack.python(&["-c", RESTORED]).await.unwrap();
    stack.lever(&["parameters", "RestoredRegistrations=restored"]).await.unwrap();
    assert_eq!(stack.live().await["registrations"], "restored");
    assert_eq!(stack.live().await["mailbox"], "upwire-Mailbox");
    let tables = stack.python(&["-c", TABLES]).await.unwrap();
    assert_eq!(tables, "restored upwire-Mailbox upwire-Registrations");
    stack.takes_pushes().await;
}
