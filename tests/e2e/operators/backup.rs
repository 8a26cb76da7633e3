//! A backup of a running server, and the drill of its restoration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use e2e::{Kind, Load, Phone, SOON, Upwire, XmppServer, eventually_some, folder, http, profile_folder};

fn upwire(arguments: &[&str], files: [&Path; 2]) -> Output {
    let mut command = Command::new(profile_folder().join("upwire"));
    let [file, database] = files;
    command.args(arguments).arg(file).arg("--database").arg(database).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn the_drill_of_a_restoration() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut server_process = Upwire::on(server).start_ready().await;
    let component = server_process.component.jid.clone();
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let user = server.user().await;
    let away = Phone::connect(server, &user, "away").await;
    let endpoint = phone.endpoint(&component, "before").await;
    let away_endpoint = away.endpoint(&component, "before").await;
    away.disconnect().await;
    assert_eq!(http::post(&away_endpoint, "waits").await.status, 201);
    server_process.mailbox_holds(1).await;

    // Pushes come during the backup.
    let load = Load::start(std::slice::from_ref(&endpoint), 400);
    load.accepted(50).await;
    let (backup, database) = (folder("backup").join("copy.db"), server_process.database());
    let copied = said(&upwire(&["backup"], [&backup, &database]));
    assert!(copied.contains("2 registrations"), "{copied}");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let again = upwire(&["backup"], [&backup, &database]);
    assert!(again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains("exists"));
    load.finish().await.arrives(&[&phone]).await;

    let since = phone.endpoint(&component, "since").await;
    assert_eq!(http::post(&since, "x").await.status, 201);
    let running = upwire(&["restore"], [&backup, &database]);
    let told = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(running.status.code() == Some(1) && told.contains("stop the server first"), "{told}");

    server_process.kill();
    let restore = async |arguments: &[&str]| {
        // The killed process may hold its lock for a moment.
        eventually_some(SOON, "the database is free", async || {
            let output = upwire(arguments, [&backup, &database]);
            (output.status.code() == Some(0)).then(|| said(&output))
        })
        .await
    };
    let dry = restore(&["restore", "--dry-run"]).await;
    assert!(dry.contains("1 endpoints end") && dry.contains("nothing was changed"), "{dry}");
    let files = fs::read_dir(database.parent().unwrap()).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains(".before-")), "{names:?}");
    let restored = restore(&["restore"]).await;
    let ending = format!("ends: {} ", phone.jid().to_bare());
    assert!(restored.contains(&ending) && !restored.contains(user.jid.as_str()), "{restored}");
    let aside = restored.lines().find_map(|line| line.strip_prefix("the database of before is ")).unwrap();
    assert!(Path::new(aside.split(':').next().unwrap()).exists());

    server_process.start_again();
    server_process.ready().await;
    assert_eq!(http::post(&since, "x").await.status, 410);
    assert_eq!(http::post(&endpoint, "again").await.status, 201);
    let away = Phone::connect(server, &user, "away").await;
    away.greet(&component).await;
    away.wait_for_body("waits").await;
    let renewed = phone.endpoint(&component, "since").await;
    assert_ne!(renewed, since, "what was refused never comes back");
    assert_eq!(http::post(&renewed, "x").await.status, 201);
}
