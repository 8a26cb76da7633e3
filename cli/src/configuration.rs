//! Configuration errors, secrets read from a variable or a file, and the file of certificates to trust.

use std::ffi::OsStr;
use std::path::Path;

use relay::{AccessList, BadAccessList};
use secrecy::{ExposeSecret, SecretString};

const CERTIFICATES: &str = "SSL_CERT_FILE";
/// Some editors write it at the beginning of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A wrong option or environment variable, with the problem and the remedy. Exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}; {mend}", .variable.as_ref().map(|name| format!("{name}: ")).unwrap_or_default())]
pub(crate) struct ConfigurationError {
    /// The option or the environment variable; `None`: the problem's text names it.
    variable: Option<String>,
    problem: String,
    mend: String,
}

impl ConfigurationError {
    /// Makes an error: `variable` has this problem, and `mend` is the remedy.
    pub(crate) fn new(variable: &str, problem: impl AsRef<str>, mend: impl AsRef<str>) -> Self {
        Self::usage(Some(variable.to_owned()), problem, mend)
    }

    /// Makes an error as [`Self::new`] does. The problem's text may name the option itself.
    pub(crate) fn usage(variable: Option<String>, problem: impl AsRef<str>, mend: impl AsRef<str>) -> Self {
        Self { variable, problem: one_line(problem.as_ref()), mend: one_line(mend.as_ref()) }
    }
}

/// Refuses a path without a database, for commands that make none.
pub(crate) fn existing(database: &Path) -> Result<&Path, ConfigurationError> {
    if database.exists() {
        return Ok(database);
    }
    let problem = format!("{} does not exist", database.display());
    Err(ConfigurationError::new("UPWIRE_DATABASE", problem, "name the database of `upwire serve`"))
}

/// Replaces each run of white space and control characters by one space.
pub(crate) fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns an environment variable's value. An empty value counts as unset.
pub(crate) fn environment(variable: &str) -> Result<Option<String>, ConfigurationError> {
    match std::env::var(variable) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(ConfigurationError::new(variable, "is not UTF-8", "set it to plain text, or unset it"))
        }
    }
}

/// Returns the text of a secret, for its use.
pub(crate) fn reveal(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// Returns the secret in `variable`, or in the file that `{variable}_FILE` names. `None`: neither is given.
///
/// An empty value counts as unset. An empty file is an error, since a file is never named by accident.
pub(crate) fn secret(
    variable: &str,
    value: Option<SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, ConfigurationError> {
    let value = value.filter(|value| !value.expose_secret().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigurationError::new(
            variable,
            format!("is given, and {variable}_FILE too"),
            "give one of the two",
        )),
        (Some(value), None) => Ok(Some(value)),
        (None, Some(file)) => secret_from(&format!("{variable}_FILE"), file).map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads the secret in the file that `variable` names: one line. A byte order mark and line breaks, which editors add,
/// are trimmed. White space is trimmed, too, with a warning.
pub(crate) fn secret_from(variable: &str, file: &Path) -> Result<SecretString, ConfigurationError> {
    let name = file.display();
    let wrong =
        |problem: &str, mend: &str| Err(ConfigurationError::new(variable, format!("{name} {problem}"), mend));
    let content = text_of(variable, file)?;
    let line = content.trim_end_matches(['\r', '\n']);
    let secret = line.trim();
    if secret.is_empty() {
        return wrong("is empty", "put the secret into it");
    }
    if secret.contains(['\r', '\n']) {
        return wrong(
            "has several lines",
            "leave the line with the secret alone in it; write a list of secrets with commas",
        );
    }
    if secret.contains(char::is_control) {
        return wrong("has control characters", "write the secret into it with an editor of plain text");
    }
    if secret.len() < line.len() {
        tracing::warn!(
            "{variable}: {name} has white space around the secret, which is not taken for a part of it; remove it"
        );
    }
    Ok(secret.into())
}

/// Reads the access list in the file that `variable` names. Entries are on lines of their own or comma-separated.
/// Comments go from a `#` to the end of a line.
pub(crate) fn access_from(variable: &str, file: &Path) -> Result<AccessList, ConfigurationError> {
    let content = text_of(variable, file)?;
    let lines = content.lines().map(|line| line.split('#').next().unwrap_or_default());
    let lines: Vec<_> = lines.collect();
    let wrong = |problem: String| {
        let mend = "write the domains and JIDs that may register into it, or *";
        ConfigurationError::new(variable, format!("{}: {problem}", file.display()), mend)
    };
    for (number, line) in (1..).zip(&lines) {
        line.parse::<AccessList>().map_err(|error| wrong(format!("line {number}: {error}")))?;
    }
    match lines.join(",").parse().map_err(|error: BadAccessList| wrong(error.to_string()))? {
        AccessList::Only(entries) if entries.is_empty() => Err(wrong("it names nobody".into())),
        list => Ok(list),
    }
}

fn text_of(variable: &str, file: &Path) -> Result<String, ConfigurationError> {
    let content = std::fs::read_to_string(file).map_err(|error| {
        ConfigurationError::new(
            variable,
            format!("{} cannot be read: {error}", file.display()),
            "name a text file that this user may read",
        )
    })?;
    match content.strip_prefix(BYTE_ORDER_MARK) {
        Some(text) => Ok(text.to_owned()),
        None => Ok(content),
    }
}

/// Checks the file of trusted certificates in `SSL_CERT_FILE`. The TLS library takes an unreadable file for an empty
/// one, and then trusts nobody.
pub(crate) fn check_certificates() -> Result<(), ConfigurationError> {
    std::env::var_os(CERTIFICATES).map_or(Ok(()), |file| certificates_in(&file))
}

fn certificates_in(file: &OsStr) -> Result<(), ConfigurationError> {
    let mend = "name a file of certificates in PEM, or unset it to trust the system's";
    let wrong = |problem: String| Err(ConfigurationError::new(CERTIFICATES, problem, mend));
    match std::fs::read(file) {
        Err(error) => wrong(format!("{} cannot be read: {error}", file.display())),
        Ok(content) if !content.windows(PEM.len()).any(|window| window == PEM) => {
            wrong(format!("{} has no certificate", file.display()))
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_to_trust_are_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trusted.pem");
        let problem = |path: &OsStr| certificates_in(path).map_err(|error| error.to_string());
        assert!(problem(path.as_os_str()).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----").unwrap();
        assert!(problem(path.as_os_str()).unwrap_err().contains("has no certificate"));
        std::fs::write(&path, "CN=example\n-----BEGIN CERTIFICATE-----").unwrap();
        assert_eq!(problem(path.as_os_str()), Ok(()));
    }

    fn read(value: Option<&str>, file: Option<&[u8]>) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        if let Some(content) = file {
            std::fs::write(&path, content).unwrap();
        }
        secret("UPWIRE_SECRET", value.map(SecretString::from), file.map(|_| path.as_path()))
            .map(|secret| secret.map(|secret| secret.expose_secret().to_owned()))
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_secret_comes_from_its_variable_or_its_file() {
        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some(""), None), Ok(None));
        assert_eq!(read(Some("open sesame"), None), Ok(Some("open sesame".into())));
        assert_eq!(read(None, Some(b"open sesame\n")), Ok(Some("open sesame".into())));
        assert_eq!(read(None, Some(b"open sesame\r\n")), Ok(Some("open sesame".into())));
        for content in
            ["\u{feff}open sesame\r\n", " open sesame \t\n\n", "\nopen sesame", "open sesame\r\n\r\n"]
        {
            assert_eq!(read(None, Some(content.as_bytes())), Ok(Some("open sesame".into())), "{content:?}");
        }
    }

    #[test]
    fn a_wrong_secret_is_named_and_never_shown() {
        assert_eq!(
            read(Some("open"), Some(b"sesame")),
            Err("UPWIRE_SECRET: is given, and UPWIRE_SECRET_FILE too; give one of the two".into())
        );
        assert_eq!(
            read(None, Some(b"\n")),
            Err("UPWIRE_SECRET_FILE: FILE is empty; put the secret into it".into())
        );
        assert_eq!(
            read(None, Some(b"sesame\xff")),
            Err("UPWIRE_SECRET_FILE: FILE cannot be read: stream did not contain valid UTF-8; \
                 name a text file that this user may read"
                .into())
        );
        for (content, problem) in [
            ("one\ntwo\n", "FILE has several lines"),
            ("\u{feff}\r\n", "FILE is empty"),
            ("a\0b", "FILE has control characters"),
        ] {
            let error = read(None, Some(content.as_bytes())).unwrap_err();
            assert!(error.starts_with(&format!("UPWIRE_SECRET_FILE: {problem}")), "{error}");
        }
        // UTF-16 with a byte order mark, as Windows writes it.
        assert!(read(None, Some(b"\xff\xfea\0b\0")).unwrap_err().contains("UTF-8"));
        assert!(secret("UPWIRE_SECRET", None, Some(Path::new("/nowhere"))).is_err());
        assert!(!format!("{:?}", SecretString::from("sesame")).contains("sesame"));
    }

    #[test]
    fn a_wrong_entry_of_an_access_list_is_named_by_its_line_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        std::fs::write(&path, "# The family\n\nexample.com\nromeo@example.com, juliet@example.com/phone\n")
            .unwrap();
        let error = access_from("UPWIRE_ACL_FILE", &path).unwrap_err().to_string();
        assert!(error.contains("acl: line 4: entry 2 is neither a domain"), "{error}");
        assert!(!error.contains("juliet@example.com"), "{error}");
    }

    #[test]
    fn an_error_is_one_line() {
        let error = ConfigurationError::new("--jid", "'a\nb' is\tno JID", "write\x1b it right");
        assert_eq!(error.to_string(), "--jid: 'a b' is no JID; write it right");
    }
}
