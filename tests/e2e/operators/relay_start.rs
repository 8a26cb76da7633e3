//! Starting `upwire relay`: a wrong setting is named with its remedy, and the credentials for AWS are found.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use e2e::{Kind, SOON, Upwire, UpwireBuilder, XmppServer, folder, free_port};
use serde_json::json;
use tokio::net::TcpListener;

const ACCESS_KEY: &str = "AKIAOFTHETEST";
const SECRET_KEY: &str = "a-secret-key-that-nobody-may-see";
const SESSION_TOKEN: &str = "a-session-token-that-nobody-may-see";

/// Prepares a relay that lacks only an AWS that answers.
async fn relay(endpoint: &str) -> UpwireBuilder {
    let server = XmppServer::shared(Kind::Prosody).await;
    Upwire::relay_on(server)
        .set("UPWIRE_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/upwire")
        .set("UPWIRE_REGISTRATIONS_TABLE", "registrations")
        .set("UPWIRE_MAILBOX_TABLE", "mailbox")
        .set("AWS_ENDPOINT_URL", endpoint)
        .set("AWS_REGION", "us-east-1")
        .set("HOME", folder("home").display())
}

fn with_keys(relay: UpwireBuilder) -> UpwireBuilder {
    relay.set("AWS_ACCESS_KEY_ID", ACCESS_KEY).set("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
}

/// Starts a relay that ends. Returns its last line and its exit code. The lines before say that it tries again.
async fn refusal(relay: UpwireBuilder) -> (String, Option<i32>) {
    let mut relay = relay.start();
    let code = relay.wait_exit(SOON).await.code();
    let log = relay.log();
    let mut lines: Vec<&str> = log.lines().collect();
    let said = lines.pop().unwrap_or_default().to_owned();
    assert!(lines.iter().all(|line| line.contains("trying again")), "{log}");
    (said, code)
}

#[tokio::test]
async fn a_missing_or_wrong_value_is_one_line_and_64() {
    let base = async || with_keys(relay("http://127.0.0.1:1").await);
    let required = [
        ("UPWIRE_PUBLIC_URL", "https://push.example.com"),
        ("UPWIRE_COMPONENT", "notify.example.com"),
        ("UPWIRE_COMPONENT_SECRET", "UPWIRE_COMPONENT_SECRET_FILE"),
        ("UPWIRE_SECRET", "the same secrets as the function's"),
        ("UPWIRE_QUEUE_URL", "QueueUrl"),
        ("UPWIRE_REGISTRATIONS_TABLE", "RegistrationsTable"),
        ("UPWIRE_MAILBOX_TABLE", "MailboxTable"),
        ("AWS_REGION", "eu-central-1"),
    ];
    for (variable, mend) in required {
        for relay in [base().await.unset(variable), base().await.set(variable, "")] {
            let (said, code) = refusal(relay).await;
            assert_eq!(code, Some(64), "{said}");
            assert!(said.contains(&format!("{variable}: is missing")) && said.contains(mend), "{said}");
        }
    }
    let wrong = [
        ("UPWIRE_QUEUE_URL", "upwire-queue", "https://sqs."),
        ("UPWIRE_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/", "no URL of a queue"),
        ("UPWIRE_REGISTRATIONS_TABLE", "the table", "3 to 255 letters"),
        ("UPWIRE_MAILBOX_TABLE", "mailbox/upwire", "3 to 255 letters"),
        ("UPWIRE_SECRET", "short", "at least 32"),
        ("UPWIRE_XMPP_SERVER", "tcp://localhost:5347", "host:port"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "cannot be read"),
        ("AWS_REGION", "Frankfurt am Main", "no region"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:4566", "no http or https URL"),
        ("AWS_ENDPOINT_URL_SQS", "localhost", "no http or https URL"),
    ];
    for (variable, value, mend) in wrong {
        let (said, code) = refusal(base().await.set(variable, value)).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(variable) && said.contains(mend), "{said}");
    }
}

#[tokio::test]
async fn an_aws_out_of_reach_is_waited_for_and_then_given_up() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut relay = with_keys(relay(&nobody).await).start();
    let mut stopped = with_keys(self::relay(&nobody).await).start();
    for relay in [&mut relay, &mut stopped] {
        relay
            .log_line(&["AWS is out of reach; trying again", "Connection refused", "AWS_ENDPOINT_URL"])
            .await;
    }
    stopped.terminate();
    assert!(stopped.wait_exit(SOON).await.success(), "a stop does not wait for AWS");
    assert_eq!(relay.wait_exit(SOON).await.code(), Some(1));
    let log = relay.log();
    assert!(log.lines().last().unwrap().starts_with("upwire: AWS was out of reach for 30 s: "), "{log}");
}

/// A server that refuses every call in one way, and the calls to it.
struct Refusing {
    endpoint: String,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Refusing {
    /// Starts the server. `more` are the routes that are not refused.
    async fn start(code: &'static str, message: &'static str, more: Router) -> Self {
        let asked = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let heard = Arc::clone(&asked);
        let refuse = async move |request: Request| {
            heard.lock().unwrap().push(request.headers().clone());
            let body = json!({"__type": format!("com.amazon.coral.service#{code}"), "message": message});
            (StatusCode::BAD_REQUEST, [("content-type", "application/x-amz-json-1.0")], body.to_string())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, more.fallback(refuse)).await });
        Self { endpoint, asked }
    }

    fn was_asked_by(&self, access_key: &str) -> bool {
        let signed = |headers: &HeaderMap| {
            let signature = headers.get("authorization").and_then(|value| value.to_str().ok());
            signature.is_some_and(|text| text.contains(&format!("Credential={access_key}/")))
        };
        let asked = self.asked.lock().unwrap();
        !asked.is_empty() && asked.iter().all(signed)
    }
}

#[tokio::test]
async fn credentials_that_aws_does_not_accept_are_named_with_the_mend() {
    let answers = [
        ("UnrecognizedClientException", "The security token is invalid.", "does not accept the credentials"),
        ("ExpiredTokenException", "The security token is expired.", "AWS_SESSION_TOKEN"),
        ("InvalidSignatureException", "Signature expired: it is now earlier than then", "set its clock"),
        ("AccessDeniedException", "not authorized to perform: dynamodb:GetItem", "RelayPolicyArn"),
    ];
    for (code, message, mend) in answers {
        let aws = Refusing::start(code, message, Router::new()).await;
        let (said, exit) = refusal(with_keys(relay(&aws.endpoint).await)).await;
        assert_eq!(exit, Some(1), "{said}");
        assert!(said.contains(code) && said.contains(mend), "{said}");
        assert!(aws.was_asked_by(ACCESS_KEY));
    }
    let (said, exit) = refusal(relay("http://127.0.0.1:1").await).await;
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains("there are no AWS credentials") && said.contains("AWS_PROFILE"), "{said}");
}

fn credentials() -> String {
    json!({
        "Version": 1, "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": SESSION_TOKEN, "SessionToken": SESSION_TOKEN,
        "Expiration": "2999-01-01T00:00:00Z",
    })
    .to_string()
}

/// Returns the routes of the instance metadata service, which EC2 has at 169.254.169.254.
fn instance() -> Router {
    let token = || put(async || ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token"));
    let role = "/latest/meta-data/iam/security-credentials";
    Router::new()
        .route("/latest/api/token", token())
        .route("/latest/meta-data/placement/region", get(async || "us-west-2"))
        .route(&format!("{role}/"), get(async || "role"))
        .route(&format!("{role}/role"), get(async || credentials()))
        .route("/latest/meta-data/iam/security-credentials-extended/", get(async || "role"))
        .route("/latest/meta-data/iam/security-credentials-extended/role", get(async || credentials()))
        .route("/container", get(async || credentials()))
}

/// The relay finds credentials and region where other programs on AWS find them. No secret is ever in the log.
#[tokio::test]
async fn profiles_and_the_roles_of_containers_and_instances_are_found() {
    let aws = Refusing::start("AccessDeniedException", "by the test", instance()).await;
    let home = folder("aws");
    let config = home.join("config");
    let process = home.join("credentials.json");
    std::fs::write(&process, credentials()).unwrap();
    let profiles = format!(
        "[profile keys]\nregion = eu-north-1\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n\
         [profile program]\nregion = eu-north-1\ncredential_process = cat {}\n",
        process.display()
    );
    std::fs::write(&config, profiles).unwrap();
    let base = async || relay(&aws.endpoint).await.unset("AWS_REGION").set("UPWIRE_LOG", "debug");
    let profile = async |name| base().await.set("AWS_CONFIG_FILE", config.display()).set("AWS_PROFILE", name);
    let container = format!("{}/container", aws.endpoint);
    let ways = [
        ("eu-north-1", profile("keys").await),
        ("eu-north-1", profile("program").await),
        (
            "ca-central-1",
            base()
                .await
                .set("AWS_REGION", "ca-central-1")
                .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", container),
        ),
        (
            "us-west-2",
            base()
                .await
                .set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.endpoint)
                .unset("AWS_EC2_METADATA_DISABLED"),
        ),
    ];
    for (region, relay) in ways {
        aws.asked.lock().unwrap().clear();
        let (said, exit) = refusal(relay).await;
        assert_eq!(exit, Some(1), "{region}: {said}");
        assert!(said.contains("do not allow dynamodb:GetItem"), "{region}: {said}");
        assert!(aws.was_asked_by(ACCESS_KEY), "{region}");
        let asked = aws.asked.lock().unwrap();
        assert!(asked[0]["authorization"].to_str().unwrap().contains(&format!("/{region}/dynamodb/")));
        for secret in [SECRET_KEY, SESSION_TOKEN] {
            assert!(!said.contains(secret), "a credential in the log");
        }
    }
}
