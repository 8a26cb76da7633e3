//! Reading what waits: of a whole account by merging its parts, or of some registrations by the index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use jid::BareJid;
use push::{
    MessageId, RegistrationId,
    ports::{Unavailable, Waiting},
};

use super::{
    table::{CALLS_MAX, MailboxTable},
    waiting::{Entry, key, read_waiting},
};
use crate::{
    error::unavailable,
    item::{binary, read_bytes},
};

/// Most items in one read: of the largest pushes, they are less than DynamoDB returns at once.
const BATCH_MAX: usize = 50;

/// One part of an account's mailbox, as far as it is read.
struct Part {
    part: u8,
    /// In order.
    read: VecDeque<Waiting>,
    /// Where it goes on.
    after: Option<MessageId>,
    end: bool,
}

impl MailboxTable {
    pub(super) async fn all_waiting(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let begin = |part| Part { part, read: VecDeque::new(), after, end: false };
        let mut parts: Vec<Part> = (0..RegistrationId::PARTS).map(begin).collect();
        // Pushes fall into parts by chance: so much of each, and what is short is read on.
        let share = max / parts.len() + 1;
        let mut found = Vec::new();
        while found.len() < max {
            let short = parts.iter_mut().filter(|part| part.read.is_empty() && !part.end);
            try_join_all(short.map(|part| self.read_part(account, of, part, share))).await?;
            let heads = parts.iter_mut().filter(|part| !part.read.is_empty());
            let next = heads.min_by_key(|part| part.read.front().map(|waiting| waiting.message.id));
            match next.and_then(|part| part.read.pop_front()) {
                Some(waiting) => found.push(waiting),
                None => break,
            }
        }
        Ok(found)
    }

    /// Reads on in one part until something is found that was asked for, or nothing is left.
    async fn read_part(
        &self,
        account: &BareJid,
        of: Option<&BTreeSet<RegistrationId>>,
        part: &mut Part,
        share: usize,
    ) -> Result<(), Unavailable> {
        let asked_for = |waiting: &Waiting| of.is_none_or(|of| of.contains(&waiting.message.registration));
        while part.read.is_empty() && !part.end {
            let query = self.query(account, part.part).limit(i32::try_from(share).unwrap_or(i32::MAX));
            let query = match part.after {
                None => query.key_condition_expression("mailbox = :mailbox"),
                Some(after) => query
                    .key_condition_expression("mailbox = :mailbox AND id > :after")
                    .expression_attribute_values(":after", binary(*after.as_bytes())),
            };
            let answer = query.send().await.map_err(unavailable("dynamodb:Query"))?;
            part.read.extend(answer.items().iter().filter_map(read_waiting).filter(asked_for));
            let last = answer.last_evaluated_key.as_ref().and_then(|key| read_bytes(key, "id"));
            part.after = last.map(MessageId::from_bytes);
            part.end = part.after.is_none();
        }
        Ok(())
    }

    /// Finds the ids in the index, which holds no bodies, and reads those pushes alone that it returns.
    pub(super) async fn waiting_of(
        &self,
        account: &BareJid,
        of: &BTreeSet<RegistrationId>,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Waiting>, Unavailable> {
        let entries = self.entries_of_some(account, of).await?;
        let ids = entries.into_iter().map(|entry| entry.id);
        let mut ids: BTreeSet<_> = ids.filter(|id| after.is_none_or(|after| *id > after)).collect();
        let mut found = Vec::new();
        while found.len() < max && !ids.is_empty() {
            let count = (max - found.len()).min(BATCH_MAX);
            let next = (0..count).map_while(|_| ids.pop_first()).map(|id| key(account, id)).collect();
            found.extend(self.read(next).await?);
        }
        Ok(found)
    }

    /// The waiting pushes of some registrations: one query for each part, of one registration or of the whole part.
    async fn entries_of_some(
        &self,
        account: &BareJid,
        of: &BTreeSet<RegistrationId>,
    ) -> Result<Vec<Entry>, Unavailable> {
        let mut parts = BTreeMap::<u8, Vec<RegistrationId>>::new();
        for registration in of {
            parts.entry(registration.part()).or_default().push(*registration);
        }
        let queries = stream::iter(parts).map(async |(part, of_part)| match of_part[..] {
            [registration] => self.entries(account, registration).await,
            _ => self.entries_of_part(account, part).await,
        });
        let mut entries: Vec<Entry> =
            queries.buffer_unordered(CALLS_MAX).try_collect::<Vec<_>>().await?.concat();
        entries.retain(|entry| of.contains(&entry.registration));
        Ok(entries)
    }
}
