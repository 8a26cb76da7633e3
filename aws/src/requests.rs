//! The calls to SQS. A queue entry is the JSON of one push.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use aws_sdk_sqs::{
    Client,
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
        Message, MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use aws_types::SdkConfig;
use futures::{StreamExt, stream};
use push::{
    PushMessage,
    ports::{NotQueued, QueueWriter, Unavailable},
};
use serde_json::Value;

use crate::error::{CannotStart, Failure, unavailable};

mod inquiry;

/// Most entries in one call, a limit of SQS.
pub(crate) const BATCH_MAX: usize = 10;
/// Most concurrent calls for pushes that are queued together, since each may have to connect first.
const SENDS_MAX: usize = 4;
/// Most attempts to send a batch that SQS accepted in part.
const BATCH_ATTEMPTS: u32 = 2;
/// Longest visibility timeout of an entry, a limit of SQS.
const HIDDEN_MAX: Duration = Duration::from_secs(12 * 3600);
/// Longest delay of a new entry, a limit of SQS.
const DELAY_MAX: Duration = Duration::from_secs(900);
/// Longest retention of an entry, a limit of SQS.
const KEPT_MAX: Duration = Duration::from_secs(14 * 86_400);
/// Shortest visibility timeout of the queue. A shorter one could not be extended in time.
const VISIBILITY_MIN: Duration = Duration::from_secs(2);
/// SQS's codes for a stale receipt: another consumer has the entry, or it is deleted.
const STALE: [&str; 4] = [
    "ReceiptHandleIsInvalid",
    "MessageNotInflight",
    "InvalidParameterValue",
    "InvalidParameterValueException",
];

const QUEUE_MEND: &str =
    "set UPWIRE_QUEUE_URL to the stack's output QueueUrl, and AWS_REGION to the region in it";
const DEAD_LETTERS_MEND: &str = "give the queue a RedrivePolicy whose deadLetterTargetArn is a queue of the same account and \
     region, as template.yaml does";

/// The writing end of a queue.
#[derive(Clone)]
pub struct QueueSender {
    client: Client,
    url: Arc<str>,
}

impl fmt::Debug for QueueSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueSender({})", self.url)
    }
}

impl QueueWriter for QueueSender {
    async fn send(&self, message: PushMessage) -> Result<(), NotQueued> {
        Ok(self.send_entry(message.to_entry(), Duration::ZERO).await?)
    }

    async fn send_all(&self, messages: Vec<PushMessage>) -> Result<(), NotQueued> {
        let entries: Vec<_> = messages.iter().map(PushMessage::to_entry).collect();
        let batches: Vec<_> = entries.chunks(BATCH_MAX).map(<[_]>::to_vec).collect();
        let sends = stream::iter(batches).map(|batch| self.send_batch(batch)).buffer_unordered(SENDS_MAX);
        Ok(sends.fold(Ok(()), async |all, one| one.and(all)).await?)
    }
}

/// The queue's own attributes.
pub(crate) struct Attributes {
    /// Time for which a received entry is hidden from others.
    pub(crate) visibility: Duration,
    /// Number of receives after which SQS moves an entry to the dead-letter queue.
    pub(crate) receives_max: u32,
    /// The name of the dead-letter queue, and its AWS account.
    dead_letters: (String, String),
}

impl QueueSender {
    /// Makes a client of the queue at this URL. Makes no call.
    #[must_use]
    pub fn new(config: &SdkConfig, url: &str) -> Self {
        Self { client: Client::new(config), url: url.into() }
    }

    /// Queues an entry as it is. SQS shows it after `delay`, or after 15 minutes if that is sooner.
    pub(crate) async fn send_entry(&self, entry: String, delay: Duration) -> Result<(), Unavailable> {
        let send = self.client.send_message().queue_url(&*self.url).message_body(entry);
        let seconds = (!delay.is_zero()).then(|| whole_seconds(delay.min(DELAY_MAX)));
        send.set_delay_seconds(seconds).send().await.map_err(unavailable("sqs:SendMessage"))?;
        Ok(())
    }

    /// Queues up to [`BATCH_MAX`] entries of pushes. A test shows that a batch is not larger than SQS allows. Entries
    /// that SQS did not accept are sent once more: a caller could only repeat the whole batch, which would queue the
    /// other entries twice.
    async fn send_batch(&self, mut batch: Vec<String>) -> Result<(), Unavailable> {
        let mut failure = None;
        for _ in 0..BATCH_ATTEMPTS {
            let failed = self.try_send_batch(&batch).await?;
            failure = failed.first().map(|entry| Failure::new(&entry.code, entry.message.as_deref()));
            let position = |entry: &BatchResultErrorEntry| entry.id.parse::<usize>().ok();
            batch = failed.iter().filter_map(|entry| batch.get(position(entry)?).cloned()).collect();
            if failure.is_none() {
                break;
            }
        }
        let unavailable = |failure| Unavailable::new(format!("sqs:SendMessageBatch: {failure}"));
        failure.map(unavailable).map_or(Ok(()), Err)
    }

    /// Sends a batch once. Returns the entries that SQS did not accept.
    async fn try_send_batch(&self, batch: &[String]) -> Result<Vec<BatchResultErrorEntry>, Unavailable> {
        let entries = batch.iter().enumerate().map(|(position, entry)| {
            SendMessageBatchRequestEntry::builder().id(position.to_string()).message_body(entry).build()
        });
        let entries = entries.collect::<Result<_, _>>().expect("each has an id and a body");
        let call = self.client.send_message_batch().queue_url(&*self.url).set_entries(Some(entries));
        Ok(call.send().await.map_err(unavailable("sqs:SendMessageBatch"))?.failed)
    }

    /// Receives at most [`BATCH_MAX`] entries. Waits up to `wait` (at most 20 s) for one.
    pub(crate) async fn receive(
        &self,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, Unavailable> {
        let received = self
            .client
            .receive_message()
            .queue_url(&*self.url)
            .max_number_of_messages(BATCH_MAX as i32)
            .wait_time_seconds(whole_seconds(wait))
            .visibility_timeout(whole_seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(unavailable("sqs:ReceiveMessage"))?;
        Ok(received.messages.unwrap_or_default())
    }

    /// Deletes up to [`BATCH_MAX`] entries by their receipts.
    pub(crate) async fn delete(&self, receipts: Vec<String>) -> Result<(), Undone> {
        each(receipts, |receipts| self.delete_batch(receipts)).await
    }

    async fn delete_batch(&self, receipts: Vec<String>) -> Result<Vec<BatchResultErrorEntry>, Failure> {
        let entries = receipts.into_iter().enumerate().map(|(position, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(position.to_string()).receipt_handle(receipt).build()
        });
        let entries = entries.collect::<Result<_, _>>().expect("each has an id and a receipt");
        let call = self.client.delete_message_batch().queue_url(&*self.url).set_entries(Some(entries));
        Ok(call.send().await?.failed)
    }

    /// Hides up to [`BATCH_MAX`] entries, each for its time from now on; 0 shows the entry.
    pub(crate) async fn hide(&self, receipts: Vec<(String, Duration)>) -> Result<(), Undone> {
        each(receipts, |receipts| self.hide_batch(receipts)).await
    }

    async fn hide_batch(
        &self,
        receipts: Vec<(String, Duration)>,
    ) -> Result<Vec<BatchResultErrorEntry>, Failure> {
        let entries = receipts.into_iter().enumerate().map(|(position, (receipt, hidden))| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(position.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(whole_seconds(hidden.min(HIDDEN_MAX)))
                .build()
        });
        let entries = entries.collect::<Result<_, _>>().expect("each has an id and a receipt");
        let call =
            self.client.change_message_visibility_batch().queue_url(&*self.url).set_entries(Some(entries));
        Ok(call.send().await?.failed)
    }

    /// Reads the queue's attributes, and checks that the relay can work with them.
    pub(crate) async fn attributes(&self) -> Result<Attributes, CannotStart> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&*self.url)
            .attribute_names(QueueAttributeName::VisibilityTimeout)
            .attribute_names(QueueAttributeName::RedrivePolicy)
            .attribute_names(QueueAttributeName::MessageRetentionPeriod)
            .send()
            .await
            .map_err(|error| CannotStart::by("sqs:GetQueueAttributes", &error.into(), QUEUE_MEND))?;
        let attribute = |name| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
        let seconds = |name| attribute(name).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let visibility = seconds(QueueAttributeName::VisibilityTimeout).unwrap_or_default();
        if visibility < VISIBILITY_MIN {
            let problem = format!("the queue shows again after {} s what was received", visibility.as_secs());
            return Err(CannotStart::new(problem, "set its VisibilityTimeout to 60, as template.yaml does"));
        }
        if let Some(kept) =
            seconds(QueueAttributeName::MessageRetentionPeriod).filter(|kept| *kept < KEPT_MAX)
        {
            let mend = "set its MessageRetentionPeriod to 1209600, as template.yaml does";
            tracing::warn!(
                seconds = kept.as_secs(),
                mend,
                "the queue drops pushes after this time, whatever their TTL"
            );
        }
        let policy = attribute(QueueAttributeName::RedrivePolicy).unwrap_or_default();
        let (dead_letters, receives_max) = redrive(policy)
            .ok_or_else(|| CannotStart::new("the queue has no dead-letter queue", DEAD_LETTERS_MEND))?;
        Ok(Attributes { visibility, receives_max, dead_letters })
    }

    /// Finds the dead-letter queue that the attributes name.
    pub(crate) async fn dead_letters(&self, attributes: &Attributes) -> Result<Self, CannotStart> {
        let (name, account) = &attributes.dead_letters;
        let call = self.client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account);
        let answer = call.send().await;
        let answer =
            answer.map_err(|error| CannotStart::by("sqs:GetQueueUrl", &error.into(), DEAD_LETTERS_MEND))?;
        Ok(Self { client: self.client.clone(), url: answer.queue_url.unwrap_or_default().into() })
    }
}

/// The entries of a batch that a call has left undone. Only these are tried again.
#[derive(Debug)]
pub(crate) struct Undone {
    positions: BTreeSet<usize>,
    failure: Failure,
}

impl Undone {
    /// Returns whether the item at this position of the batch was left undone.
    pub(crate) fn has(&self, position: usize) -> bool {
        self.positions.contains(&position)
    }
}

impl From<Undone> for Unavailable {
    fn from(undone: Undone) -> Self {
        Self::new(undone.failure)
    }
}

/// Makes a call for a batch. An entry with a stale receipt counts as done. Emulators refuse the whole batch for a stale
/// receipt; then each entry is tried alone.
async fn each<T, F>(batch: Vec<T>, call: impl Fn(Vec<T>) -> F) -> Result<(), Undone>
where
    T: Clone,
    F: Future<Output = Result<Vec<BatchResultErrorEntry>, Failure>>,
{
    let failures: Vec<(usize, Failure)> = match call(batch.clone()).await {
        Ok(failed) => failed.iter().map(|entry| position_and_failure(entry, batch.len())).collect(),
        Err(failure) if is_stale(&failure) && batch.len() > 1 => {
            let mut failures = Vec::new();
            for (position, entry) in batch.into_iter().enumerate() {
                let failed = match call(vec![entry]).await {
                    Ok(failed) => failed.first().map(|entry| position_and_failure(entry, 1).1),
                    Err(failure) => Some(failure),
                };
                failures.extend(failed.map(|failure| (position, failure)));
            }
            failures
        }
        Err(failure) if is_stale(&failure) => Vec::new(),
        Err(failure) => {
            let positions = (0..batch.len()).collect();
            return Err(Undone { positions, failure });
        }
    };
    let mut failures: Vec<_> = failures.into_iter().filter(|(_, failure)| !is_stale(failure)).collect();
    let positions = failures.iter().map(|(position, _)| *position).collect();
    failures.pop().map_or(Ok(()), |(_, failure)| Err(Undone { positions, failure }))
}

/// Returns the position of a failed entry in its batch, which is the entry's id, and the failure.
fn position_and_failure(entry: &BatchResultErrorEntry, count: usize) -> (usize, Failure) {
    let position = entry.id.parse().ok().filter(|position| *position < count);
    debug_assert!(position.is_some(), "SQS names what was asked of it");
    (position.unwrap_or_default(), Failure::new(&entry.code, entry.message.as_deref()))
}

fn is_stale(failure: &Failure) -> bool {
    STALE.iter().any(|code| failure.is(code))
}

/// Reads name and account of the dead-letter queue, and the number of receives that lead there.
fn redrive(policy: &str) -> Option<((String, String), u32)> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let mut arn = policy.get("deadLetterTargetArn")?.as_str()?.rsplit(':');
    let (name, account) = (arn.next()?.to_owned(), arn.next()?.to_owned());
    // The value is a number or, from older consoles, a text.
    let receives = match policy.get("maxReceiveCount")? {
        Value::String(text) => text.parse().ok()?,
        number => number.as_u64()?,
    };
    Some(((name, account), receives.try_into().ok()?))
}

/// Rounds up to whole seconds.
fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use push::{
        Body, Topic, Ttl, Urgency,
        message::{BODY_BYTES_MAX, Wishes},
    };

    use super::*;

    #[test]
    fn a_redrive_policy_names_the_dead_letter_queue() {
        let expected = Some((("dead".to_owned(), "123456789012".to_owned()), 1000));
        for count in ["1000", "\"1000\""] {
            let policy = format!(
                r#"{{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:123456789012:dead","maxReceiveCount":{count}}}"#
            );
            assert_eq!(redrive(&policy), expected);
        }
        for none in ["", "{}", "[]", r#"{"deadLetterTargetArn":"dead","maxReceiveCount":1}"#] {
            assert_eq!(redrive(none), None, "{none}");
        }
    }

    #[test]
    fn a_batch_of_the_largest_pushes_is_none_too_large() {
        /// SQS's limit for a batch before it became 1 MiB. Emulators and similar queues may still have it.
        const BATCH_BYTES_MAX: usize = 256 * 1024;
        let longest_part = "\"".repeat(1023);
        let recipient = format!("{0}@{1}.{1}.{1}.example/{longest_part}", "a".repeat(1023), "a".repeat(63));
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let registration = push::testing::registration(&recipient, now);
        let wishes = Wishes {
            ttl: Ttl::from_seconds(u32::MAX),
            urgency: Urgency::VeryLow,
            topic: Some(Topic::of("thing")),
        };
        let body = Body::from_bytes(&[0xff; BODY_BYTES_MAX]);
        let entry = PushMessage::new([0xff; 8], &registration, wishes, body, now).to_entry();
        assert!(entry.len() * BATCH_MAX < BATCH_BYTES_MAX, "{}", entry.len());
    }

    #[test]
    fn seconds_are_never_fewer_than_asked_for() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2000)), 2);
    }
}
