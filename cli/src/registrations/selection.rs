//! The selection of registrations: one by its endpoint or id, those of an account or a domain, or all.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use push::ports::{Accounts, Registrant};
use push::{Epoch, Registration, RegistrationId};
use tokio_xmpp::jid::BareJid;

/// Rows that are in memory at a time, approximately.
const PAGE: usize = 1000;
/// Lengths of an endpoint's token and of its parts, in bytes (push/token.rs).
const TOKEN_BYTES: usize = 41;
const EPOCH_BYTES: usize = 5;

/// One registration, or one life of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Which {
    pub(super) id: RegistrationId,
    pub(super) epoch: Option<Epoch>,
}

/// Parses an endpoint, its token, or an id. The token's MAC is not checked, since the secret may not be known here.
pub(super) fn one(text: &str) -> Result<Which, String> {
    if let Ok(id) = serde_json::from_value(text.into()) {
        return Ok(Which { id, epoch: None });
    }
    let token = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == TOKEN_BYTES);
    let bytes = bytes.ok_or("it is no endpoint of Upwire's, nor an id, which has 32 hexadecimal digits")?;
    let (id, rest) = bytes.split_at(RegistrationId::BYTES);
    let id = RegistrationId::from_bytes(id.try_into().map_err(|_| "it is too short")?);
    let epoch = rest[..EPOCH_BYTES].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Ok(Which { id, epoch: Some(Epoch::from_seconds(epoch)) })
}

/// Reads the living registrations of an account, of a domain or of all accounts, a page at a time.
pub(super) struct Selection<S> {
    store: S,
    account: Option<BareJid>,
    domain: Option<String>,
    now: DateTime<Utc>,
    after: Option<Registrant>,
    is_over: bool,
}

impl<S: Accounts> Selection<S> {
    pub(super) fn new(
        store: S,
        account: Option<BareJid>,
        domain: Option<String>,
        now: DateTime<Utc>,
    ) -> Self {
        Self { store, account, domain, now, after: None, is_over: false }
    }

    /// Returns the next page; `None`: none are left.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Vec<Registration>>> {
        if self.is_over {
            return Ok(None);
        }
        if let Some(account) = &self.account {
            self.is_over = true;
            return Ok(Some(self.store.account(account, self.now).await?.registrations));
        }
        let (mut rows, after) = self.store.living(self.after.take(), PAGE, self.now).await?;
        self.is_over = after.is_none();
        self.after = after;
        if let Some(domain) = &self.domain {
            rows.retain(|row| row.target.recipient.domain().as_str() == domain);
        }
        Ok(Some(rows))
    }
}

#[cfg(test)]
mod tests {
    use push::Secrets;

    use super::*;

    #[test]
    fn an_endpoint_names_one_life_and_an_id_whichever_there_is() {
        let secrets = Secrets::parse(&"x".repeat(32)).unwrap();
        let (id, epoch) = (RegistrationId::from_bytes([0xab; 16]), Epoch::from_seconds(1_700_000_000));
        let token = secrets.sign(id, epoch);
        let life = Ok(Which { id, epoch: Some(epoch) });
        for text in [token.as_str().to_owned(), format!("https://push.example.com/push/{}", token.as_str())] {
            assert_eq!(one(&text), life);
        }
        assert_eq!(one(&id.to_string()), Ok(Which { id, epoch: None }));
        for wrong in ["", "abcd", "https://push.example.com/", &token.as_str()[1..]] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }
}
