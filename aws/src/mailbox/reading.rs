//! Reads the waiting pushes of a whole account, by merging its parts, or of some registrations, by the index.

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

/// Most items in one read. Even the largest pushes then fit into one answer of DynamoDB.
const BATCH_MAX: usize = 50;

/// The progress of reading one part of an account's mailbox.
struct Part {
    part: u8,
    /// Pushes that were read and not returned yet, in order.
    read: VecDeque<Waiting>,
    /// The id behind which the reading goes on.
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
        // Registrations fall into parts at random, so each part is first read for an equal share, and then further if
        // needed.
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

    /// Reads on in one part until a requested push is found, or the part ends.
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

    /// Finds the ids in the index, which has no bodies, and reads only the pushes that it returns.
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

    /// Reads the index entries of some registrations. Makes one query for each part: for one registration, or for the
    /// whole part.
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
