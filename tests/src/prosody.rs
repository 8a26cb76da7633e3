//! The configuration of a Prosody, and its accounts.

use std::fs;
use std::process::Command;

use crate::site::{COMPONENTS_MAX, Site, User};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/prosody/prosody.cfg.lua");

pub(crate) fn command(site: &Site) -> Command {
    let mut command = Command::new("prosody");
    command
        .args(["--config", CONFIGURATION, "-F"])
        .env("UPWIRE_PROSODY_DATA", &site.folder)
        .env("UPWIRE_PROSODY_C2S_PORT", site.c2s_port.to_string())
        .env("UPWIRE_PROSODY_COMPONENT_PORT", site.component_port.to_string())
        .env("UPWIRE_PROSODY_HTTP_PORT", site.http_port.to_string())
        .env("UPWIRE_PROSODY_COMPONENTS", COMPONENTS_MAX.to_string())
        .env("UPWIRE_COMPONENT_SECRET", &site.secret)
        .env("UPWIRE_PROSODY_HIBERNATION_SECONDS", site.settings.hibernation.as_secs().to_string());
    if site.settings.kick_old {
        command.env("UPWIRE_PROSODY_CONFLICT", "kick_old");
    }
    if let Some(backend) = site.settings.unified_push {
        command.env("UPWIRE_PROSODY_UNIFIED_PUSH", backend);
    }
    command
}

/// Writes an account: a file that Prosody reads at each login.
pub(crate) fn add_user(site: &Site, user: &User) {
    let accounts = site.folder.join("localhost/accounts");
    fs::create_dir_all(&accounts).expect("create Prosody's folder of accounts");
    let account = format!("return {{ [\"password\"] = \"{}\" }};\n", user.password);
    fs::write(accounts.join(format!("{}.dat", user.name())), account).expect("write an account");
}
