//! The log names each problem as it is, with the remedy that helps.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use e2e::{Component, Kind, Phone, SOON, Upwire, XmppServer, folder, http, profile_folder};
use rustix::process::{Pid, Signal, kill_process};
use tokio_xmpp::jid::BareJid;

use super::Scene;
use crate::stream::refused::goes_on_trying;

/// moghtech/komodo#737, linuxserver/docker-bookstack#122: the file ends with a line break, and the password is wrong.
#[tokio::test]
async fn a_secret_is_taken_out_of_whatever_editors_make_of_its_file() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let file = folder("secret").join("text");
    let with_file = |component: &Component| {
        Upwire::as_component(server, component.clone())
            .unset("UPWIRE_COMPONENT_SECRET")
            .set("UPWIRE_COMPONENT_SECRET_FILE", file.display())
    };
    const WARNING: &str = "has white space around the secret";
    for (before, after, is_said) in [("", "\n", false), ("\u{feff}", "\r\n", false), (" ", " \n\n", true)] {
        let component = server.component();
        std::fs::write(&file, format!("{before}{}{after}", component.secret)).unwrap();
        let mut upwire = with_file(&component).start_ready().await;
        if is_said {
            let line = upwire.log_line(&[WARNING, "UPWIRE_COMPONENT_SECRET_FILE"]).await;
            assert!(!line.contains(&component.secret), "{line}");
        } else {
            upwire.never_logged(&[WARNING]);
        }
    }
    std::fs::write(&file, "the old one\nthe new one\n").unwrap();
    let mut upwire = with_file(&server.component()).start();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(64));
    let log = upwire.log();
    assert!(log.contains("UPWIRE_COMPONENT_SECRET_FILE: ") && log.contains("has several lines"), "{log}");
    assert!(!log.contains("the new one"), "{log}");
}

#[tokio::test]
async fn a_refusal_names_the_variable_that_was_set() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let file = folder("secret").join("secret");
    std::fs::write(&file, "short").unwrap();
    for variable in ["UPWIRE_SECRET_FILE", "UPWIRE_LEGACY_PASETO_KEY_FILE"] {
        let mut upwire = Upwire::on(server).set(variable, file.display()).start();
        upwire.wait_exit(SOON).await;
        let log = upwire.log();
        assert!(log.contains(&format!("{variable}: ")), "{log}");
    }
}

/// sqlpad/sqlpad#808, cbcoutinho/nextcloud-mcp-server#1216: a misspelt variable has no effect, and nothing says so.
#[tokio::test]
async fn a_misspelt_variable_is_warned_of() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server)
        .set("UPWIRE_PUBLIC_URI", "https://push.example.com")
        .set("UPWIRE_SERVICE_HOST", "10.0.0.1")
        .start_ready()
        .await;
    upwire.log_line(&["UPWIRE_PUBLIC_URI", "did you mean UPWIRE_PUBLIC_URL?"]).await;
    upwire.never_logged(&["UPWIRE_SERVICE_HOST", "https://push.example.com"]);
    let clean = Upwire::on(server).start_ready().await;
    clean.never_logged(&["is no variable of Upwire's"]);
}

/// The log has ejabberd's own words for a component that is named like one of its hosts.
#[tokio::test]
async fn a_component_with_the_name_of_a_host_of_ejabberds_is_told_so() {
    let server = XmppServer::shared(Kind::Ejabberd).await;
    let component = Component { jid: BareJid::new("localhost").unwrap(), ..server.component() };
    let mut upwire = Upwire::as_component(server, component).set("UPWIRE_ACL", "localhost").start();
    goes_on_trying(&mut upwire, "existing local domain", "the name of one of ejabberd's own hosts").await;
}

/// Locks the database for writing, as a person does with `sqlite3`.
fn lock(database: &std::path::Path) -> Child {
    const SCRIPT: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "locked");
    child
}

/// "database is locked" does not mean a full disk: another program has opened the file.
#[tokio::test]
async fn a_database_that_another_program_has_locked_is_not_called_a_full_disk() {
    let mut scene = Scene::set().await;
    let mut other = lock(&scene.upwire.database());
    let refused = http::post(&scene.endpoint, "not now").await;
    assert_eq!(refused.status, 503);
    let line = scene.upwire.log_line(&["did not take a commit"]).await;
    assert!(line.contains("another program has the database open") && !line.contains("disk"), "{line}");
    drop(other.stdin.take());
    other.wait().unwrap();
    e2e::eventually(SOON, "the database is free again", async || {
        http::post(&scene.endpoint, "now").await.status == 201
    })
    .await;
}

/// benbjohnson/litestream#152: the settings name the file of another program, and the error misleads. That file is left
/// as it is.
#[tokio::test]
async fn a_file_of_another_program_is_no_database_and_is_left_as_it_is() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let folder = folder("another");
    let (notes, prosodys) = (folder.join("notes.txt"), folder.join("prosody.sqlite"));
    std::fs::write(&notes, "to be remembered: ".repeat(100)).unwrap();
    const MAKE: &str = "import sqlite3, sys
sqlite3.connect(sys.argv[1]).execute('CREATE TABLE prosody (host TEXT, user TEXT)')";
    assert!(Command::new("python3").args(["-c", MAKE]).arg(&prosodys).status().unwrap().success());
    let cases = [
        (&notes, "not a database; it was left as it is: name a file of Upwire's own"),
        (&prosodys, "a database of another program; it was left as it is"),
        (&folder, "name a file in that folder"),
    ];
    for (file, text) in cases {
        let state = || (std::fs::read(file).ok(), std::fs::metadata(file).unwrap().permissions().mode());
        if file.is_file() {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let before = state();
        let mut upwire = Upwire::on(server).set("UPWIRE_DATABASE", file.display()).start();
        assert_eq!(upwire.wait_exit(SOON).await.code(), Some(1));
        let log = upwire.log();
        assert!(log.contains("UPWIRE_DATABASE") && log.contains(text), "{log}");
        assert!(!log.contains("others might read"), "{log}");
        assert_eq!(state(), before, "{}", file.display());
    }
    let mut left: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["notes.txt", "prosody.sqlite"], "no lock, and no log");
}

/// inspircd/inspircd#1794: "Cannot assign requested address" makes operators search for another program.
#[tokio::test]
async fn an_address_that_cannot_be_listened_on_has_the_mend_that_fits() {
    let server = XmppServer::shared(Kind::Prosody).await;
    // No machine has an address of TEST-NET-3.
    let mut upwire = Upwire::on(server).set("UPWIRE_LISTEN", "203.0.113.9:8080").start();
    assert_eq!(upwire.wait_exit(SOON).await.code(), Some(1));
    let log = upwire.log();
    assert!(log.contains("this machine has no such address, or set UPWIRE_LISTEN to"), "{log}");
}

/// A copy with the wrong umask lets others read a database, which holds a secret.
#[tokio::test]
async fn a_database_that_others_may_read_is_made_private_and_that_is_said() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).start_ready().await;
    let database = upwire.database();
    upwire.never_logged(&["others might read"]);
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    upwire.start_again();
    upwire.ready().await;
    upwire.log_line(&["others might read", "upwire.db"]).await;
    assert_eq!(std::fs::metadata(&database).unwrap().permissions().mode() & 0o777, 0o600);
}

/// logrotate's examples send these signals, upon which other servers reopen their logs.
#[tokio::test]
async fn a_signal_that_means_nothing_here_ends_nothing() {
    let mut scene = Scene::set().await;
    let pid = Pid::from_raw(scene.upwire.pid() as i32).unwrap();
    for signal in [Signal::USR1, Signal::USR2] {
        kill_process(pid, signal).unwrap();
        assert_eq!(http::post(&scene.endpoint, "x").await.status, 201);
    }
    scene.phone.wait_for_pushes(2, SOON).await;
    scene.upwire.assert_running();
}

/// The secret of the first start still verifies endpoints behind one that is set later. Each start says so, and an
/// operator can retire the first secret.
#[tokio::test]
async fn a_secret_that_is_still_accepted_is_said_and_can_be_retired() {
    const LINE: &str = "the secret that was made at the first start verifies endpoints still";
    let server = XmppServer::shared(Kind::Prosody).await;
    let component = server.component();
    let mut first = Upwire::as_component(server, component.clone()).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&component.jid, "app").await;
    first.never_logged(&[LINE]);
    let database = first.database();
    let retire = || {
        let mut command = Command::new(profile_folder().join("upwire"));
        command.args(["secret", "retire", "--database"]).arg(&database).output().unwrap()
    };
    assert_eq!(retire().status.code(), Some(1), "while it runs");
    first.kill();
    let listen = first.public_url.strip_prefix("http://").unwrap();
    let with_another = || {
        Upwire::as_component(server, component.clone())
            .set("UPWIRE_DATABASE", database.display())
            .set("UPWIRE_LISTEN", listen)
            .set("UPWIRE_PUBLIC_URL", &first.public_url)
            .set("UPWIRE_SECRET", "another-secret-of-more-than-32-bytes-0123")
    };
    let mut second = with_another().start_ready().await;
    second.log_line(&[LINE]).await;
    assert_eq!(http::post(&endpoint, "still").await.status, 201);
    second.kill();

    for said in ["is retired", "nothing was changed"] {
        let output = retire();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(said), "{output:?}");
    }
    let third = with_another().start_ready().await;
    third.never_logged(&[LINE]);
    assert_eq!(http::post(&endpoint, "no more").await.status, 404);
}
