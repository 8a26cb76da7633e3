//! A real Matrix homeserver: Synapse on loopback, with its own SQLite file and users.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::tether::Tether;
use crate::{
    http,
    run::{folder, target_folder},
    tcp_ports::free_port,
    wait::eventually,
};

/// Longest wait for Synapse. It has taken 15 s on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// Variables that direct Python to a proxy.
const PROXIES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// A running homeserver.
pub struct Synapse {
    /// The base URL, `http://127.0.0.1:…`.
    url: String,
    process: Tether,
    users: AtomicUsize,
}

/// An account with an access token.
pub struct MatrixUser {
    /// The user id, `@user1:localhost`.
    pub id: String,
    homeserver: String,
    token: String,
}

impl Synapse {
    /// Returns the homeserver that all tests of this binary share. The first caller starts it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Synapse> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let python = target_folder().join("synapse/bin/python");
        assert!(python.exists(), "no {}: `make test-needs` first", python.display());
        let (folder, port) = (folder("synapse"), free_port());
        let file = |name: &str| folder.join(name).display().to_string();
        let fast = json!({"per_second": 1000, "burst_count": 1000});
        // JSON is valid YAML.
        let configuration = json!({
            "server_name": "localhost",
            "listeners": [{"port": port, "type": "http", "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": ["client"]}]}],
            "database": {"name": "sqlite3", "args": {"database": file("homeserver.db")}},
            "media_store_path": file("media"),
            "pid_file": file("pid"),
            "signing_key": format!("ed25519 a_test {}", "A".repeat(43)),
            "macaroon_secret_key": "of the tests",
            "form_secret": "of the tests",
            "report_stats": false,
            "suppress_key_server_warning": true,
            "trusted_key_servers": [],
            "presence": {"enabled": false},
            "enable_registration": true,
            "enable_registration_without_verification": true,
            "bcrypt_rounds": 4,
            "rc_registration": fast,
            "rc_message": fast,
            // Push gateways are on loopback.
            "ip_range_whitelist": ["127.0.0.1"],
        });
        fs::write(folder.join("homeserver.yaml"), configuration.to_string()).expect("write homeserver.yaml");
        let mut command = Command::new(python);
        command
            .args(["-m", "synapse.app.homeserver", "--config-path", "homeserver.yaml"])
            .current_dir(&folder);
        for name in PROXIES {
            command.env_remove(name);
        }
        let mut process = Tether::start(&command, &folder.join("log"));
        let url = format!("http://127.0.0.1:{port}");
        let (what, client) = (format!("{process:?} answers"), http::client());
        let versions = format!("{url}/_matrix/client/versions");
        eventually(START_DEADLINE, &what, async || {
            process.assert_running();
            http::try_send(&client, "GET", &versions, &[], "").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Self { url, process, users: AtomicUsize::new(0) }
    }

    /// Registers a fresh account.
    pub async fn user(&self) -> MatrixUser {
        let name = format!("user{}", self.users.fetch_add(1, Ordering::Relaxed) + 1);
        let account = json!({"username": name, "password": "a password", "auth": {"type": "m.login.dummy"}});
        let registered =
            http::post(&format!("{}/_matrix/client/v3/register", self.url), account.to_string()).await;
        assert_eq!(registered.status, 200, "{name}: {} ({:?})", registered.text(), self.process);
        let registered = registered.json();
        let text = |name| registered[name].as_str().expect("a text").to_owned();
        MatrixUser { id: text("user_id"), homeserver: self.url.clone(), token: text("access_token") }
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl MatrixUser {
    /// Creates a room for two, and has the other user join. Returns the room's id.
    pub async fn room_with(&self, other: &Self) -> String {
        let room = json!({"preset": "trusted_private_chat", "is_direct": true, "invite": [other.id]});
        let room = text(&self.call("POST", "createRoom", room).await, "room_id");
        other.call("POST", &format!("join/{room}"), json!({})).await;
        room
    }

    /// Sends a message to a room. Returns the id of its event.
    pub async fn say(&self, room: &str, words: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let transaction = NEXT.fetch_add(1, Ordering::Relaxed);
        let message = json!({"msgtype": "m.text", "body": words});
        let path = format!("rooms/{room}/send/m.room.message/{transaction}");
        text(&self.call("PUT", &path, message).await, "event_id")
    }

    /// Marks a room as read up to this event.
    pub async fn has_read(&self, room: &str, event: &str) {
        self.call("POST", &format!("rooms/{room}/receipt/m.read/{event}"), json!({})).await;
    }

    /// Sets a pusher, which sends an application's notifications to a push gateway. Without a `format`, they have
    /// everything in them; with `event_id_only`, the event's id alone.
    pub async fn set_pusher(&self, gateway: &str, pushkey: &str, format: Option<&str>) {
        let mut data = json!({"url": gateway});
        if let Some(format) = format {
            data["format"] = format.into();
        }
        let pusher = json!({
            "kind": "http",
            "app_id": "im.vector.app.android",
            "app_display_name": "Element",
            "device_display_name": "a phone",
            "pushkey": pushkey,
            "lang": "en",
            "data": data,
        });
        self.call("POST", "pushers/set", pusher).await;
    }

    /// Returns the pushkeys of the user's pushers.
    pub async fn pushkeys(&self) -> Vec<String> {
        let pushers = self.call("GET", "pushers", Value::Null).await;
        let pushers = pushers["pushers"].as_array().expect("an array");
        pushers.iter().map(|pusher| text(pusher, "pushkey")).collect()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/_matrix/client/v3/{path}", self.homeserver);
        let authorization = format!("Bearer {}", self.token);
        let answer = http::send(method, &url, &[("authorization", &authorization)], body.to_string()).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}
