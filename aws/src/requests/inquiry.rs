//! Checks whether these credentials allow the relay's actions on a queue.

use super::{QUEUE_MEND, QueueSender, is_stale};
use crate::{
    error::{CannotStart, Failure},
    permission::{Inquiry, Pointless},
};

impl QueueSender {
    /// Makes an inquiry about this queue.
    pub(crate) fn inquiry(&self) -> Inquiry {
        Inquiry::of(self.arn())
    }

    /// Checks each action of the relay on this queue and on its dead-letter queue.
    pub(crate) async fn inquire_all(&self, inquiry: &mut Inquiry) -> Result<(), Pointless> {
        let (attributes, verdict) = apart(self.attributes().await);
        inquiry.note("sqs:GetQueueAttributes", verdict)?;
        self.inquire(inquiry).await?;
        let Some(attributes) = attributes else { return Ok(()) };
        let (name, account) = &attributes.dead_letters;
        inquiry.turn_to(self.arn_of(account, name));
        let (dead_letters, verdict) = apart(self.dead_letters(&attributes).await);
        inquiry.note("sqs:GetQueueUrl", verdict)?;
        match dead_letters {
            Some(dead_letters) => dead_letters.inquire_send(inquiry).await,
            None => Ok(()),
        }
    }

    /// Checks whether these credentials may receive, delete, hide and send. Changes nothing: received entries show
    /// again at once, and the other calls use a receipt of no entry.
    pub(crate) async fn inquire(&self, inquiry: &mut Inquiry) -> Result<(), Pointless> {
        const NO_RECEIPT: &str = "a receipt of nothing";
        let allowed = |call, outcome: Result<(), Failure>| match outcome {
            Err(failure) if !is_stale(&failure) => Err(CannotStart::by(call, &failure, QUEUE_MEND)),
            _ => Ok(()),
        };
        let mut note = |call, outcome| inquiry.note(call, allowed(call, outcome));
        let receive =
            self.client.receive_message().queue_url(&*self.url).wait_time_seconds(0).visibility_timeout(0);
        note("sqs:ReceiveMessage", receive.send().await.map(drop).map_err(Failure::from))?;
        let delete = self.client.delete_message().queue_url(&*self.url).receipt_handle(NO_RECEIPT);
        note("sqs:DeleteMessage", delete.send().await.map(drop).map_err(Failure::from))?;
        let hide = self.client.change_message_visibility().queue_url(&*self.url).receipt_handle(NO_RECEIPT);
        let hide = hide.visibility_timeout(0).send().await;
        note("sqs:ChangeMessageVisibility", hide.map(drop).map_err(Failure::from))?;
        self.inquire_send(inquiry).await
    }

    /// Checks whether these credentials may send. Sends nothing: SQS refuses an empty entry, but only after it has
    /// checked the credentials.
    pub(crate) async fn inquire_send(&self, inquiry: &mut Inquiry) -> Result<(), Pointless> {
        let send = self.client.send_message().queue_url(&*self.url).message_body("").send();
        let verdict = match send.await.map_err(Failure::from) {
            Err(failure) if failure.is_denied() => {
                Err(CannotStart::by("sqs:SendMessage", &failure, QUEUE_MEND))
            }
            _ => Ok(()),
        };
        inquiry.note("sqs:SendMessage", verdict)
    }

    /// Returns the queue's ARN. Its URL ends in account and name.
    fn arn(&self) -> String {
        let mut parts = self.url.trim_end_matches('/').rsplit('/');
        let (name, account) = (parts.next().unwrap_or("*"), parts.next().unwrap_or("*"));
        self.arn_of(account, name)
    }

    fn arn_of(&self, account: &str, name: &str) -> String {
        let region = self.client.config().region().map_or("*", AsRef::as_ref);
        format!("arn:aws:sqs:{region}:{account}:{name}")
    }
}

fn apart<T>(outcome: Result<T, CannotStart>) -> (Option<T>, Result<(), CannotStart>) {
    match outcome {
        Ok(value) => (Some(value), Ok(())),
        Err(error) => (None, Err(error)),
    }
}
