//! The options for the keys of a predecessor, whose endpoints go on working.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::configuration::{ConfigurationError, secret};
use crate::live::{
    Files, LEGACY_PASETO_KEY, LEGACY_PASETO_KEY_FILE, LEGACY_SECRET, LEGACY_SECRET_FILE, Values,
};

/// Flattened into the options of a subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct LegacyOptions {
    /// The unified_push_secret of the Prosody that this server follows: the endpoints that its mod_unified_push has
    /// issued as JWT go on working until they expire
    #[arg(long, value_name = "SECRET", env = LEGACY_SECRET, hide_env_values = true)]
    legacy_secret: Option<SecretString>,

    /// A file that holds that secret
    #[arg(long, value_name = "FILE", env = LEGACY_SECRET_FILE)]
    legacy_secret_file: Option<PathBuf>,

    /// The same for endpoints of up: its registration.sharedSecret, in base64
    #[arg(long, value_name = "KEY", env = LEGACY_PASETO_KEY, hide_env_values = true)]
    legacy_paseto_key: Option<SecretString>,

    /// A file that holds that key
    #[arg(long, value_name = "FILE", env = LEGACY_PASETO_KEY_FILE)]
    legacy_paseto_key_file: Option<PathBuf>,

    /// Take a unified_push_secret of fewer than 32 bytes: who has an old endpoint may find it by trying, and push to
    /// anyone
    #[arg(long, env = "UPWIRE_WEAK_LEGACY_SECRET")]
    weak_legacy_secret: bool,
}

/// The keys that were given.
#[derive(Clone)]
pub(crate) struct LegacySettings {
    secret: Option<SecretString>,
    paseto_key: Option<SecretString>,
    takes_weak: bool,
}

impl LegacyOptions {
    /// Reads the keys, and adds their files to those that SIGHUP reads again.
    pub(crate) fn settings(self, files: &mut Files) -> Result<LegacySettings, ConfigurationError> {
        let legacy_secret = secret(LEGACY_SECRET, self.legacy_secret, self.legacy_secret_file.as_deref())?;
        let paseto_key =
            secret(LEGACY_PASETO_KEY, self.legacy_paseto_key, self.legacy_paseto_key_file.as_deref())?;
        files.legacy_secret = self.legacy_secret_file;
        files.legacy_paseto_key = self.legacy_paseto_key_file;
        Ok(LegacySettings { secret: legacy_secret, paseto_key, takes_weak: self.weak_legacy_secret })
    }
}

impl LegacySettings {
    /// Adds the keys to the first values.
    pub(crate) fn add_to(self, values: &mut Values) {
        values.takes_weak_legacy_secrets = self.takes_weak;
        values.legacy_secrets.extend(self.secret);
        values.legacy_paseto_keys.extend(self.paseto_key);
    }
}
