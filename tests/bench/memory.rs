//! The memory of an idle `upwire serve`, and its size on disk.

use std::fs;
use std::path::Path;

use chrono::{TimeDelta, Utc};
use e2e::machine::Process;
use e2e::{Upwire, XmppServer, folder, profile_folder};
use embedded::Database;
use futures::{StreamExt, TryStreamExt, stream};
use push::ports::{Registrations, Renewal};
use push::{Target, testing};

/// The title in the plan.
pub(crate) const TITLE: &str = "memory";
/// Number of writes at once, more than share a commit.
const WRITES_AT_ONCE: usize = 1024;

/// Sizes in megabytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Size of the binary.
    pub(crate) binary: f64,
    /// Memory right after the start, with no registration.
    pub(crate) idle: f64,
    /// Memory right after the start, with this number of registrations.
    pub(crate) registered: (usize, f64),
}

/// Measures `upwire serve` with an empty database and with a full one.
pub(crate) async fn measure(server: &XmppServer, registrations: usize) -> anyhow::Result<Sizes> {
    let binary = fs::metadata(profile_folder().join("upwire"))?.len() as f64 / 1e6;
    let folder = folder("memory");
    let (empty, full) = (folder.join("empty.db"), folder.join("full.db"));
    fill(&full, registrations).await?;
    let idle = held(server, &empty).await?;
    let registered = (registrations, held(server, &full).await?);
    fs::remove_dir_all(folder)?;
    Ok(Sizes { binary, idle, registered })
}

async fn held(server: &XmppServer, database: &Path) -> anyhow::Result<f64> {
    let upwire = Upwire::on(server).set("UPWIRE_DATABASE", database.display()).set("UPWIRE_LOG", "info");
    let upwire = upwire.start_ready().await;
    let process = Process { title: "upwire serve".to_owned(), pid: upwire.pid() };
    Ok(process.memory_mib()? * 1.048_576)
}

/// Makes a database with this number of registrations.
#[expect(clippy::disallowed_methods, reason = "the push server compares with its own clock")]
async fn fill(file: &Path, registrations: usize) -> anyhow::Result<()> {
    let (database, now) = (Database::open(file)?, Utc::now());
    stream::iter(0..registrations)
        .map(|phone| database.register(target(phone), now, TimeDelta::days(7), Renewal::Always, 1))
        .buffer_unordered(WRITES_AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(())
}

/// Returns a target whose account nobody has.
fn target(phone: usize) -> Target {
    testing::target(&format!("away{phone}@localhost/Conversations.{phone:04x}"))
}
