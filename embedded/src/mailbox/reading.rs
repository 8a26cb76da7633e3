//! Reads of mailboxes: pages of waiting pushes, and the registrations that have any.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use jid::BareJid;
use push::{
    MessageId, PushMessage, RegistrationId,
    message::BadEntry,
    ports::{Registrant, Waiting},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::row::moment;

pub(super) const WAITING: &str =
    "SELECT asked_at, entry FROM mailbox WHERE account = ?1 AND id > ?2 ORDER BY id";
pub(super) const FIND: &str = "SELECT asked_at, entry FROM mailbox WHERE account = ?1 AND id = ?2";
pub(super) const NEXT_OF: &str = "SELECT id FROM mailbox
    WHERE account = ?1 AND registration = ?2 AND id > ?3 ORDER BY id LIMIT 1";
pub(super) const COUNT_OF: &str = "SELECT count(*) FROM mailbox INDEXED BY mailbox_of_registration
    WHERE account = ?1 AND registration = ?2";
pub(super) const NEXT_RECIPIENT: &str = "SELECT account, registration FROM mailbox
    WHERE (account, registration) > (?1, ?2) ORDER BY account, registration LIMIT 1";

/// Reads the pushes that wait for an account.
pub(super) fn all_waiting(
    connection: &Connection,
    account: &BareJid,
    after: Option<MessageId>,
    max: usize,
) -> rusqlite::Result<Vec<Waiting>> {
    let mut statement = connection.prepare_cached(WAITING)?;
    let mut rows = statement.query(params![account.as_str(), place(after.as_ref())])?;
    let mut passed_over = PassedOver::default();
    let mut found = Vec::new();
    while found.len() < max
        && let Some(row) = rows.next()?
    {
        found.extend(passed_over.unless_readable(entry(row)?));
    }
    passed_over.log();
    Ok(found)
}

/// Reads the pushes that wait for some registrations of an account. Takes one index lookup for each registration, and
/// one for each push.
pub(super) fn waiting_of(
    connection: &Connection,
    account: &BareJid,
    of: &BTreeSet<RegistrationId>,
    after: Option<MessageId>,
    max: usize,
) -> rusqlite::Result<Vec<Waiting>> {
    let mut next_of = connection.prepare_cached(NEXT_OF)?;
    let mut next = |registration: RegistrationId, after: Option<MessageId>| {
        let key = params![account.as_str(), registration.as_bytes(), place(after.as_ref())];
        next_of.query_row(key, id).optional()
    };
    let mut firsts = BinaryHeap::with_capacity(of.len());
    for registration in of {
        firsts.extend(next(*registration, after)?.map(|id| Reverse((id, *registration))));
    }
    let mut passed_over = PassedOver::default();
    let mut found = Vec::new();
    while found.len() < max
        && let Some(Reverse((id, registration))) = firsts.pop()
    {
        // The push may have been removed meanwhile.
        found.extend(find(connection, account, id)?.and_then(|found| passed_over.unless_readable(found)));
        firsts.extend(next(registration, Some(id))?.map(|id| Reverse((id, registration))));
    }
    passed_over.log();
    Ok(found)
}

/// Reads one push that waits.
pub(super) fn find_one(
    connection: &Connection,
    account: &BareJid,
    message: MessageId,
) -> rusqlite::Result<Option<Waiting>> {
    let mut passed_over = PassedOver::default();
    let found = find(connection, account, message)?.and_then(|found| passed_over.unless_readable(found));
    passed_over.log();
    Ok(found)
}

fn find(
    connection: &Connection,
    account: &BareJid,
    message: MessageId,
) -> rusqlite::Result<Option<Result<Waiting, BadEntry>>> {
    let mut statement = connection.prepare_cached(FIND)?;
    statement.query_row(params![account.as_str(), message.as_bytes()], entry).optional()
}

/// Returns the key to go on behind. Empty bytes come before every id.
fn place(after: Option<&MessageId>) -> &[u8] {
    after.map_or(&[], |id| id.as_bytes())
}

pub(super) fn recipients(
    connection: &Connection,
    after: Option<Registrant>,
    max: usize,
) -> rusqlite::Result<Vec<(Registrant, usize)>> {
    let mut statement = connection.prepare_cached(NEXT_RECIPIENT)?;
    let mut count = connection.prepare_cached(COUNT_OF)?;
    let (mut account, mut registration) = match after {
        Some((account, registration)) => (account.as_str().to_owned(), *registration.as_bytes()),
        // The empty text comes before every account.
        None => (String::new(), [0; RegistrationId::BYTES]),
    };
    let mut found = Vec::new();
    while found.len() < max {
        // Two index lookups for each registration: to find it, and to count its pushes.
        let next = statement
            .query_row(params![account, registration], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some(next) = next else { break };
        (account, registration) = next;
        let id = RegistrationId::from_bytes(registration);
        match BareJid::new(&account) {
            Ok(bare) => {
                let pushes = count.query_row(params![account, registration], |row| row.get(0))?;
                found.push(((bare, id), pushes));
            }
            Err(_) => tracing::error!(registration = %id, "the account of a mailbox cannot be read"),
        }
    }
    Ok(found)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Result<Waiting, BadEntry>> {
    let asked_at: Option<i64> = row.get("asked_at")?;
    let asked_at = asked_at.map(moment).transpose()?;
    let entry = row.get_ref("entry")?.as_blob()?;
    Ok(PushMessage::from_entry(entry).map(|message| Waiting { message, asked_at }))
}

/// Entries that cannot be read. They stay in the file for the version that wrote them, and block no other entry.
#[derive(Default)]
struct PassedOver {
    count: usize,
    last: Option<BadEntry>,
}

impl PassedOver {
    fn unless_readable(&mut self, entry: Result<Waiting, BadEntry>) -> Option<Waiting> {
        entry
            .inspect_err(|error| {
                self.count += 1;
                self.last = Some(*error);
            })
            .ok()
    }

    /// Writes one line for all of them: they are found at each reading of the mailbox.
    fn log(self) {
        if let Some(error) = self.last {
            tracing::error!(entries = self.count, %error, "mailbox entries cannot be read, and are passed over");
        }
    }
}

pub(super) fn id(row: &Row<'_>) -> rusqlite::Result<MessageId> {
    row.get(0).map(MessageId::from_bytes)
}
