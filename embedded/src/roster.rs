//! The stored roster of tenants, and the domains whose rows it keeps from deletion.

use parking_lot::Mutex;
use push::{Roster, ports::Unavailable};
use rusqlite::Connection;

use crate::setting::find_setting;

/// The name of the setting that holds the roster.
pub(crate) const NAME: &str = "tenants";

pub(crate) fn parse(setting: Option<String>) -> Result<Roster, Unavailable> {
    setting.map_or(Ok(Roster::default()), |text| Roster::parse(&text).map_err(Unavailable::new))
}

/// Reads the roster; an empty one if it is absent or malformed.
pub(crate) fn stored(connection: &Connection) -> rusqlite::Result<Roster> {
    Ok(parse(find_setting(connection, NAME)?).unwrap_or_default())
}

/// The domains of suspended tenants, cached with the roster that they come from.
#[derive(Debug, Default)]
pub(crate) struct KeptDomains(Mutex<(Option<String>, String)>);

impl KeptDomains {
    /// Returns the domains of suspended tenants, as a JSON array. Lapsed rows of these domains stay. The roster is
    /// parsed again only when it has changed, perhaps by another process.
    pub(crate) fn read(&self, connection: &Connection) -> rusqlite::Result<String> {
        let stored = find_setting(connection, NAME)?;
        let mut known = self.0.lock();
        if known.1.is_empty() || known.0 != stored {
            let domains = kept_domains(&parse(stored.clone()).unwrap_or_default());
            *known = (stored, domains);
        }
        Ok(known.1.clone())
    }
}

/// Returns the domains, each in both forms of an internationalized name, since addresses have either.
fn kept_domains(roster: &Roster) -> String {
    let both = |name: &push::TenantName| {
        let unicode = push::tenant::in_unicode(name);
        [name.as_str().to_owned(), unicode]
    };
    let domains: Vec<String> = roster.suspended().flat_map(both).collect();
    serde_json::to_string(&domains).unwrap_or_else(|_| "[]".into())
}
