//! `functions/openapi.yaml` against `upwire serve`: schemathesis makes valid and invalid requests of it, and compares
//! the answers with it.

use std::process::Command;
use std::time::Duration;

use e2e::{Kind, Phone, SOON, Tether, Upwire, XmppServer, folder, http, python};

/// Longest run of schemathesis. Its some hundred requests take a tenth of this.
const DEADLINE: Duration = Duration::from_secs(300);
const DESCRIPTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../functions/openapi.yaml");
const EXAMPLES_MAX: &str = "30";
/// Checks that are left out. Headers are read leniently, so some requests that the description calls wrong are
/// accepted.
const CHECKS_LEFT_OUT: &str = "negative_data_rejection";

/// Runs schemathesis with this configuration. Panics with its findings.
async fn conforms(upwire: &Upwire, phases: &str, configuration: &str) {
    let folder = folder("schemathesis");
    std::fs::write(folder.join("schemathesis.toml"), configuration).unwrap();
    let mut command = Command::new(python().with_file_name("schemathesis"));
    command.args(["run", DESCRIPTION, "--url", &upwire.public_url, "--no-color"]);
    command.args(["--generation-deterministic", "--phases", phases]);
    command.args(["--max-examples", EXAMPLES_MAX, "--exclude-checks", CHECKS_LEFT_OUT]);
    command.current_dir(&folder);
    let mut process = Tether::start(&command, &folder.join("log"));
    let status = process.wait(DEADLINE).await;
    assert!(status.success(), "{}", process.log());
}

#[tokio::test]
async fn the_ingress_answers_as_it_is_described() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let upwire = Upwire::on(server).start_ready().await;
    let user = server.user().await;
    let phone = Phone::connect(server, &user, "phone").await;
    let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
    // The push waits, and can be withdrawn.
    phone.disconnect().await;
    let accepted = http::post(&endpoint, "x").await;
    let last = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let (push, message) = (last(&endpoint), last(accepted.header("location").unwrap()));
    let configuration = format!(
        "[[operations]]\ninclude-path = '/push/{{token}}'\nparameters = {{ 'path.token' = '{push}' }}\n\
         [[operations]]\ninclude-path = '/message/{{token}}'\nparameters = {{ 'path.token' = '{message}' }}\n"
    );
    conforms(&upwire, "examples,coverage,fuzzing,stateful", &configuration).await;
    // Fewer pushes would prove little.
    upwire.metric_reaches("upwire_pushes_accepted_total", 50.0).await;
    // The second run uses any token.
    conforms(&upwire, "fuzzing", "").await;

    let panicked = [("reason", "panicked")];
    upwire.never_counted_where("upwire_pushes_refused_total", &panicked).await;
    let phone = Phone::connect(server, &user, "phone").await;
    phone.greet(&upwire.component.jid).await;
    phone.next_push(SOON).await;
}
