//! Settings that change while a server runs: the access list and the secrets. SIGHUP makes it read their files again.

use std::path::{Path, PathBuf};

use functions::LegacyKeys;
use push::{Secrets, marker::Keys, token::SECRET_BYTES_MIN};
use relay::AccessList;
use secrecy::SecretString;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::configuration::{ConfigurationError, access_from, reveal, secret_from};

pub(crate) const ACL_FILE: &str = "UPWIRE_ACL_FILE";
pub(crate) const COMPONENT_SECRET_FILE: &str = "UPWIRE_COMPONENT_SECRET_FILE";
pub(crate) const SECRET: &str = "UPWIRE_SECRET";
pub(crate) const SECRET_FILE: &str = "UPWIRE_SECRET_FILE";
pub(crate) const LEGACY_SECRET: &str = "UPWIRE_LEGACY_SECRET";
pub(crate) const LEGACY_SECRET_FILE: &str = "UPWIRE_LEGACY_SECRET_FILE";
pub(crate) const LEGACY_PASETO_KEY: &str = "UPWIRE_LEGACY_PASETO_KEY";
pub(crate) const LEGACY_PASETO_KEY_FILE: &str = "UPWIRE_LEGACY_PASETO_KEY_FILE";

/// The files that SIGHUP reads again, if they are given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) acl: Option<PathBuf>,
    pub(crate) component_secret: Option<PathBuf>,
    pub(crate) secret: Option<PathBuf>,
    pub(crate) legacy_secret: Option<PathBuf>,
    pub(crate) legacy_paseto_key: Option<PathBuf>,
}

/// The values of the files and the variables.
#[derive(Clone)]
pub(crate) struct Values {
    pub(crate) access: AccessList,
    pub(crate) component_secret: SecretString,
    /// The secrets of endpoints. The first one signs, all verify.
    pub(crate) secrets: Vec<SecretString>,
    pub(crate) legacy_secrets: Vec<SecretString>,
    pub(crate) legacy_paseto_keys: Vec<SecretString>,
    /// True if predecessors' secrets that could be found by brute force are accepted.
    pub(crate) takes_weak_legacy_secrets: bool,
}

/// The values in force, as the parts of a server read them.
#[derive(Clone)]
pub(crate) struct InForce {
    pub(crate) access: watch::Receiver<AccessList>,
    pub(crate) component_secret: watch::Receiver<String>,
    pub(crate) secrets: watch::Receiver<Secrets>,
    pub(crate) legacy: watch::Receiver<LegacyKeys>,
    /// The fingerprints of these secrets.
    pub(crate) keys: watch::Receiver<Keys>,
}

/// The values in force, and the files that change them.
pub(crate) struct Live {
    files: Files,
    values: Values,
    /// Number of secrets that were in no file at the start. The database has them.
    beside_files: usize,
    access: watch::Sender<AccessList>,
    component_secret: watch::Sender<String>,
    secrets: watch::Sender<Secrets>,
    legacy: watch::Sender<LegacyKeys>,
    keys: watch::Sender<Keys>,
}

impl Live {
    /// Puts these values in force.
    pub(crate) fn new(files: Files, values: Values) -> Result<Self, ConfigurationError> {
        let (secrets, legacy) = (keyed(&values.secrets)?, legacy_keys(&files, &values)?);
        let beside_files = read(&files, &values).map_or(0, |(_, kept)| kept);
        Ok(Self {
            files,
            beside_files,
            keys: watch::Sender::new(fingerprints(&secrets, &legacy)),
            access: watch::Sender::new(values.access.clone()),
            component_secret: watch::Sender::new(reveal(&values.component_secret).to_owned()),
            secrets: watch::Sender::new(secrets),
            legacy: watch::Sender::new(legacy),
            values,
        })
    }

    pub(crate) fn in_force(&self) -> InForce {
        InForce {
            access: self.access.subscribe(),
            component_secret: self.component_secret.subscribe(),
            secrets: self.secrets.subscribe(),
            legacy: self.legacy.subscribe(),
            keys: self.keys.subscribe(),
        }
    }

    /// Reads the files again at each SIGHUP, until `stop`.
    pub(crate) async fn reread_on(
        mut self,
        mut hangups: Signal,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => {}
            }
            match self.reread() {
                Ok(changed) if changed.is_empty() => {
                    tracing::info!("the files of the access list and the secrets say what is in force");
                }
                Ok(changed) => {
                    tracing::info!(changed = changed.join(", "), "what the files say is in force");
                }
                Err(error) => {
                    tracing::error!(%error, "the files were read again, and one is wrong: nothing changes");
                }
            }
        }
    }

    /// Reads the files, and takes all changes or none. Returns the variables of the changed files.
    fn reread(&mut self) -> Result<Vec<&'static str>, ConfigurationError> {
        let (next, kept) = read(&self.files, &self.values)?;
        let (secrets, legacy) = (keyed(&next.secrets)?, legacy_keys(&self.files, &next)?);
        let keys = fingerprints(&secrets, &legacy);
        let now = &self.values;
        let mut changed = Vec::new();
        if next.access != now.access {
            changed.push(ACL_FILE);
            self.access.send_replace(next.access.clone());
        }
        if reveal(&next.component_secret) != reveal(&now.component_secret) {
            changed.push(COMPONENT_SECRET_FILE);
            self.component_secret.send_replace(reveal(&next.component_secret).to_owned());
        }
        if differ(&next.secrets, &now.secrets) {
            changed.push(SECRET_FILE);
            self.secrets.send_replace(secrets);
        }
        let of_jwt = differ(&next.legacy_secrets, &now.legacy_secrets);
        let of_paseto = differ(&next.legacy_paseto_keys, &now.legacy_paseto_keys);
        changed.extend(of_jwt.then_some(LEGACY_SECRET_FILE));
        changed.extend(of_paseto.then_some(LEGACY_PASETO_KEY_FILE));
        if of_jwt || of_paseto {
            self.legacy.send_replace(legacy);
        }
        self.keys.send_if_modified(|known| {
            let differ = *known != keys;
            *known = keys;
            differ
        });
        let kept = kept.saturating_sub(self.beside_files);
        if kept > 0 {
            tracing::warn!(
                kept,
                "secrets that are no longer in their files verify until a restart, which ends the endpoints that they \
                 signed: leave them in, behind the new one, for as long as registrations live"
            );
        }
        self.values = next;
        Ok(changed)
    }
}

/// Returns the stream of SIGHUPs. From now on, the signal does not end the process.
pub(crate) fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Returns the secrets of a comma-separated list.
pub(crate) fn split(list: &SecretString) -> Vec<SecretString> {
    reveal(list)
        .split(',')
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .map(SecretString::from)
        .collect()
}

/// Reads the files. Secrets of `now` that are in no file follow those in files; also returns their number.
fn read(files: &Files, now: &Values) -> Result<(Values, usize), ConfigurationError> {
    let mut next = now.clone();
    let mut kept = 0;
    if let Some(file) = &files.acl {
        next.access = access_from(ACL_FILE, file)?;
    }
    if let Some(file) = &files.component_secret {
        next.component_secret = secret_from(COMPONENT_SECRET_FILE, file)?;
    }
    let mut merge = |variable, file: &Option<PathBuf>, known: &mut Vec<SecretString>, is_list| {
        let Some(file) = file.as_deref() else { return Ok(()) };
        let text = secret_from(variable, file)?;
        let said = if is_list { listed(variable, &text, file)? } else { vec![text] };
        kept += behind(said, known);
        Ok(())
    };
    merge(SECRET_FILE, &files.secret, &mut next.secrets, true)?;
    merge(LEGACY_SECRET_FILE, &files.legacy_secret, &mut next.legacy_secrets, false)?;
    merge(LEGACY_PASETO_KEY_FILE, &files.legacy_paseto_key, &mut next.legacy_paseto_keys, false)?;
    Ok((next, kept))
}

fn listed(variable: &str, text: &SecretString, file: &Path) -> Result<Vec<SecretString>, ConfigurationError> {
    Secrets::parse(reveal(text)).map_err(|error| {
        let problem = format!("{}: {error}", file.display());
        ConfigurationError::new(variable, problem, "make one with `upwire keygen`")
    })?;
    Ok(split(text))
}

/// Puts the secrets of a file in front of the known ones. Returns the number of known secrets that are not in the file.
fn behind(said: Vec<SecretString>, known: &mut Vec<SecretString>) -> usize {
    known.retain(|known| said.iter().all(|said| reveal(said) != reveal(known)));
    let kept = known.len();
    known.splice(0..0, said);
    kept
}

fn differ(one: &[SecretString], other: &[SecretString]) -> bool {
    !one.iter().map(reveal).eq(other.iter().map(reveal))
}

fn keyed(secrets: &[SecretString]) -> Result<Secrets, ConfigurationError> {
    let list: Vec<&str> = secrets.iter().map(reveal).collect();
    Secrets::parse(&list.join(","))
        .map_err(|error| ConfigurationError::new(SECRET, error.to_string(), "make one with `upwire keygen`"))
}

fn fingerprints(secrets: &Secrets, legacy: &LegacyKeys) -> Keys {
    Keys { secrets: secrets.fingerprints(), legacy: legacy.fingerprints().collect() }
}

fn legacy_keys(files: &Files, values: &Values) -> Result<LegacyKeys, ConfigurationError> {
    let secrets = values.legacy_secrets.iter().map(reveal);
    if !values.takes_weak_legacy_secrets && secrets.clone().any(|secret| secret.len() < SECRET_BYTES_MIN) {
        let variable = if files.legacy_secret.is_some() { LEGACY_SECRET_FILE } else { LEGACY_SECRET };
        let problem = format!(
            "has fewer than {SECRET_BYTES_MIN} bytes: who has an old endpoint may find it by trying, and push to anyone"
        );
        let mend = "have the phones get new endpoints without it, or take it with --weak-legacy-secret";
        return Err(ConfigurationError::new(variable, problem, mend));
    }
    let keys = secrets.fold(LegacyKeys::default(), LegacyKeys::with_jwt);
    let mut paseto = values.legacy_paseto_keys.iter().map(reveal);
    paseto.try_fold(keys, LegacyKeys::with_paseto).map_err(|error| {
        let mend = "copy registration.sharedSecret from the config.json of up";
        let variable =
            if files.legacy_paseto_key.is_some() { LEGACY_PASETO_KEY_FILE } else { LEGACY_PASETO_KEY };
        ConfigurationError::new(variable, error.to_string(), mend)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one-secret-of-more-than-32-bytes-0123456789";
    const TWO: &str = "two-secret-of-more-than-32-bytes-0123456789";
    const LEGACY: &str = "old-secret-of-more-than-32-bytes-0123456789";
    const KEPT: &str = "kept-secret-of-more-than-32-bytes-0123456789";

    struct Scene {
        folder: tempfile::TempDir,
        live: Live,
    }

    impl Scene {
        fn set() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| Some(folder.path().join(name));
            let files = Files {
                acl: file("acl"),
                component_secret: file("component-secret"),
                secret: file("secret"),
                legacy_secret: file("legacy-secret"),
                legacy_paseto_key: None,
            };
            let values = Values {
                access: "example.com".parse().unwrap(),
                component_secret: "component".into(),
                secrets: vec![ONE.into(), KEPT.into()],
                legacy_secrets: vec![LEGACY.into()],
                legacy_paseto_keys: Vec::new(),
                takes_weak_legacy_secrets: false,
            };
            let texts = [
                ("acl", "example.com"),
                ("component-secret", "component"),
                ("secret", ONE),
                ("legacy-secret", LEGACY),
            ];
            for (name, text) in texts {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self { live: Live::new(files, values).unwrap(), folder }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        fn secrets(&self) -> Vec<&str> {
            self.live.values.secrets.iter().map(reveal).collect()
        }
    }

    #[test]
    fn what_the_files_say_is_in_force_and_no_secret_is_dropped() {
        let mut scene = Scene::set();
        let in_force = scene.live.in_force();
        assert_eq!(scene.live.beside_files, 1, "the one that the database has");
        assert!(scene.live.reread().unwrap().is_empty());
        let token = in_force
            .secrets
            .borrow()
            .sign(push::RegistrationId::from_bytes([1; 16]), push::Epoch::from_seconds(1));

        scene.write("acl", "# The family\nexample.com\njuliet@example.net, example.org # and a friend\n");
        scene.write("component-secret", "another\n");
        scene.write("secret", &format!("{TWO},{ONE}\n"));
        scene.write("legacy-secret", TWO);
        let all = [ACL_FILE, COMPONENT_SECRET_FILE, SECRET_FILE, LEGACY_SECRET_FILE];
        assert_eq!(scene.live.reread().unwrap(), all);
        assert_eq!(*in_force.access.borrow(), "example.com,juliet@example.net,example.org".parse().unwrap());
        assert_eq!(*in_force.component_secret.borrow(), "another");
        assert_eq!(scene.secrets(), [TWO, ONE, KEPT]);
        assert_eq!(format!("{:?}", *in_force.legacy.borrow()), "LegacyKeys(2 of them)");

        scene.write("secret", TWO);
        assert!(scene.live.reread().unwrap().is_empty());
        assert_eq!(scene.secrets(), [TWO, ONE, KEPT]);
        assert!(in_force.secrets.borrow().verify(token.as_str()).is_ok());
    }

    #[test]
    fn one_file_that_is_wrong_changes_nothing_at_all() {
        let wrong = [
            ("acl", "", "names nobody"),
            ("acl", "# nobody", "names nobody"),
            ("acl", "example.com\nexample.*", "line 2: entry 1 is no pattern"),
            ("acl", "a b", "line 1: entry 1 is neither"),
            ("component-secret", "", "is empty"),
            ("secret", "short", "at least 32"),
            ("legacy-secret", "", "is empty"),
            ("legacy-secret", "weak", "--weak-legacy-secret"),
        ];
        for (name, text, problem) in wrong {
            let mut scene = Scene::set();
            let mut in_force = scene.live.in_force();
            scene.write("acl", "example.net");
            scene.write("component-secret", "another");
            scene.write("secret", TWO);
            scene.write("legacy-secret", TWO);
            scene.write(name, text);
            let error = scene.live.reread().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(';'), "{error}");
            assert!(!in_force.access.has_changed().unwrap(), "{name}");
            assert!(!in_force.component_secret.has_changed().unwrap(), "{name}");
            assert!(!in_force.secrets.has_changed().unwrap() && !in_force.legacy.has_changed().unwrap());
            assert_eq!(*in_force.access.borrow_and_update(), "example.com".parse().unwrap());
        }
    }
}
