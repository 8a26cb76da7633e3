//! The configuration of an ejabberd, and its accounts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::http;
use crate::site::{COMPONENTS_MAX, Site, User};
use crate::wait::{SOON, settles};

const TEMPLATE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/ejabberd/ejabberd.yml"));

/// Returns the command of the Erlang machine itself. `ejabberdctl` would stay between us and the machine, and take the
/// signals.
pub(crate) fn command(site: &Site) -> Command {
    let configuration = site.folder.join("ejabberd.yml");
    fs::write(&configuration, fill(site)).expect("write ejabberd.yml");
    let mut command = Command::new("erl");
    command
        .args(["-noinput", "-mnesia", "dir"])
        .arg(format!("\"{}\"", site.folder.join("mnesia").display()))
        .args(["-s", "ejabberd"])
        .env("ERL_LIBS", libraries())
        .env("EJABBERD_CONFIG_PATH", &configuration)
        .env("EJABBERD_LOG_PATH", site.folder.join("ejabberd.log"))
        .env("ERL_CRASH_DUMP_BYTES", "0")
        .current_dir(&site.folder);
    command
}

fn fill(site: &Site) -> String {
    let names = (1..=COMPONENTS_MAX).map(|number| format!("up{number}.localhost"));
    // The last name is a mistake that operators make: the name of a host of ejabberd's own. With `global_routes`, a
    // component would get the stanzas for that host.
    let own_host = (!site.settings.global_routes).then(|| "localhost".to_owned());
    let names = names.chain(own_host);
    let components: Vec<String> =
        names.map(|name| format!("\"{name}\": {{password: \"{}\"}}", site.secret)).collect();
    let certificate = site.settings.component_tls.as_ref();
    let tls = certificate.map(|it| format!("tls: true\n    certfile: \"{}\"", it.file.display()));
    TEMPLATE
        .replace("@COMPONENT_TLS@", &tls.unwrap_or_default())
        .replace("@C2S_PORT@", &site.c2s_port.to_string())
        .replace("@COMPONENT_PORT@", &site.component_port.to_string())
        .replace("@HTTP_PORT@", &site.http_port.to_string())
        .replace("@HIBERNATION_SECONDS@", &site.settings.hibernation.as_secs().to_string())
        .replace("@GLOBAL_ROUTES@", &site.settings.global_routes.to_string())
        .replace("@COMPONENTS@", &components.join(", "))
}

/// Returns the folder of ejabberd's libraries. Debian keeps it in its multiarch folder:
/// /usr/lib/x86_64-linux-gnu/ejabberd-23.01.
pub fn libraries() -> PathBuf {
    let has_ejabberd = |folder: &PathBuf| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("ejabberd-"))
    };
    fs::read_dir("/usr/lib")
        .expect("/usr/lib")
        .flatten()
        .map(|entry| entry.path())
        .find(has_ejabberd)
        .expect("ejabberd below /usr/lib: `apt-get install --no-install-recommends ejabberd`")
}

/// Registers an account; an existing account stays. Asks until ejabberd answers: it opens its ports one after the
/// other, and its accounts may be there later still.
pub(crate) async fn add_user(site: &Site, user: &User) {
    const CONFLICT: u16 = 409;
    let url = format!("http://127.0.0.1:{}/api/register", site.http_port);
    let account = json!({"user": user.name(), "host": "localhost", "password": user.password}).to_string();
    let ask = async || {
        let answer = http::try_send(&http::client(), "POST", &url, &[], account.clone()).await;
        answer.map(|response| (response.status, response.text()))
    };
    let what = format!("ejabberd registers {}", user.jid);
    settles(SOON, &what, ask, |answer| matches!(answer, Ok((200 | CONFLICT, _)))).await.ok();
}
