//! `upwire keygen`: makes a fresh secret for `UPWIRE_SECRET`.

use std::io::{ErrorKind, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SECRET_BYTES: usize = 32;

/// Print a fresh secret, for UPWIRE_SECRET.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Print a fresh secret, and nothing else: 32 random bytes in standard base64, as \
        `openssl rand -base64 32` prints them.\n\n\
        It authenticates the endpoints that `upwire serve` gives out (UPWIRE_SECRET). To rotate it, put the \
        new one in front of the old, with a comma: the first signs, all verify. Phones get new URLs as they renew, and \
        the former URLs work while the old secret is in the list: leave it there for the time in \
        UPWIRE_REGISTRATION_TTL (a week, unless you changed it) and a few days more.",
    after_long_help = "Examples:\n  \
        upwire keygen > secret.txt && UPWIRE_SECRET_FILE=secret.txt upwire serve …\n  \
        UPWIRE_SECRET=\"$(upwire keygen),$OLD_SECRET\" upwire serve …\n\n\
        Exit codes: 0 printed; 1 no random bytes, or stdout could not be written; 64 wrong usage."
)]
pub(crate) struct Options {}

/// Prints the secret.
pub(crate) fn run(Options {}: &Options) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", secret()?) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes a fresh secret.
pub(crate) fn secret() -> anyhow::Result<String> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)?;
    Ok(STANDARD.encode(secret))
}
