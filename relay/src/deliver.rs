//! Delivery: takes pushes from the queue and the mailboxes to the stream, and decides by their answers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use chrono::TimeDelta;
use metrics::{counter, gauge, histogram};
use push::{
    MessageId, PushMessage, RegistrationId,
    ports::{Delivery, Renewal},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::{BareJid, FullJid};

use crate::{
    clock,
    consume::{Fate, Stored},
    lease::Fence,
    mailbox::Page,
    measures::{ACKNOWLEDGED_SECONDS, DELIVERED, EXPIRED, IN_FLIGHT, REQUESTS_DROPPED, THROTTLED},
    pending::{Held, InFlight, Origin, Pending, Refused},
    rate::Meter,
    reach::{Lately, Reach, ReadRequest},
    register::AccessList,
    stream::{
        component::{Event, Outgoing, Session},
        stanza::{self, Answer, Condition, Incoming, Query, Request},
    },
};

mod drain;

/// What becomes of a push by the answer to it (protocol.md §1, "Push").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Revoke,
    /// It waits.
    Failed,
}

impl Outcome {
    const fn of(error: Option<Condition>) -> Self {
        match error {
            None => Self::Delivered,
            Some(Condition::ItemNotFound | Condition::FeatureNotImplemented) => Self::Revoke,
            Some(Condition::Other) => Self::Failed,
        }
    }
}

/// How long a push stays in the queue that could not be put into the mailbox.
pub(crate) const RETRY_DELAY_MIN: TimeDelta = TimeDelta::seconds(5);
/// The longest that a push waits for its turn in a line.
const TURN_MAX: TimeDelta = TimeDelta::minutes(5);
/// How often overdue answers are looked for.
const OVERDUE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stopping relay waits for answers; settling and closing the stream come after it.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Notes of revocations; beyond it, those that are decided are dropped.
const REVOKING_MAX: usize = 1024;
/// Most events and deliveries taken at once, before anything is sent.
const BATCH_MAX: usize = 128;
/// Pushes that were answered lately: what is read of them meanwhile is not sent again.
const SETTLED_MAX: usize = 16_384;
/// Most fates that are not durable yet while more is read from mailboxes; the other places are for the fates of
/// pushes that the relay holds.
pub(crate) const LATE_MAX: usize = 1024;

/// Ends of the channels that delivery works between.
pub(crate) struct Channels<Receipt> {
    pub(crate) deliveries: mpsc::Receiver<Delivery<Receipt>>,
    pub(crate) fates: mpsc::Sender<Fate<Receipt>>,
    pub(crate) stored: mpsc::Receiver<Stored>,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) pushes: mpsc::Sender<Outgoing>,
    pub(crate) requests: mpsc::Sender<(Request, Renewal)>,
    /// Who has registered.
    pub(crate) registered: mpsc::Receiver<FullJid>,
    pub(crate) reads: mpsc::Sender<ReadRequest>,
    pub(crate) pages: mpsc::Receiver<Page>,
    /// Who a sweep says has something waiting.
    pub(crate) guesses: mpsc::Receiver<FullJid>,
    /// Counts the streams that came up, for the sweeps.
    pub(crate) online: watch::Sender<u64>,
}

/// What delivery is told once.
pub(crate) struct Terms {
    pub(crate) component: BareJid,
    pub(crate) access: AccessList,
    pub(crate) ack_timeout: Duration,
    pub(crate) meter: Option<Meter>,
}

/// The delivery loop's state.
pub(crate) struct Dispatcher<Receipt> {
    terms: Terms,
    channels: Channels<Receipt>,
    pending: Pending<Receipt>,
    reach: Reach,
    /// Answered or expired, of which account; perhaps not durably yet.
    settled: Lately<(BareJid, MessageId)>,
    /// Those of them whose removal from the mailbox is under way.
    leaving: Lately<(BareJid, MessageId)>,
    /// Counted for the rate of their registration, whose queue entries may come again.
    metered: Lately<MessageId>,
    /// Whose next page is read when settling keeps up again.
    held_up: HashSet<FullJid>,
    /// The stream that pushes can go out on now.
    session: Option<Session>,
    /// The registrations that are being revoked: each fate holds its end until it is decided.
    revoking: HashMap<RegistrationId, Weak<()>>,
    /// Shared with the late answers by which some registration may be revoked.
    late_revocations: Arc<()>,
}

/// By which an answer names a push: nobody settles one of another account.
fn name(message: &PushMessage) -> (BareJid, MessageId) {
    (message.recipient.to_bare(), message.id)
}

impl<Receipt: Clone> Dispatcher<Receipt> {
    pub(crate) fn new(terms: Terms, channels: Channels<Receipt>) -> Self {
        Self {
            terms,
            channels,
            pending: Pending::new(),
            reach: Reach::new(),
            settled: Lately::new(SETTLED_MAX),
            leaving: Lately::new(SETTLED_MAX),
            metered: Lately::new(SETTLED_MAX),
            held_up: HashSet::new(),
            session: None,
            revoking: HashMap::new(),
            late_revocations: Arc::new(()),
        }
    }

    /// Delivers until `stop`, then waits for what is in flight and gives the rest back; until the lease is lost,
    /// then sends nothing more and gives everything back.
    pub(crate) async fn run(mut self, stop: CancellationToken, fence: Fence) {
        let mut overdue = interval(OVERDUE_INTERVAL);
        overdue.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut events, mut deliveries) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = fence.lost() => break,
                count = self.channels.events.recv_many(&mut events, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    events.drain(..).for_each(|event| self.take_event(event));
                }
                _ = self.channels.deliveries.recv_many(&mut deliveries, BATCH_MAX), if self.session.is_some() && !self.channels.deliveries.is_closed() => {
                    deliveries.drain(..).for_each(|delivery| self.take_delivery(delivery));
                }
                Some(page) = self.channels.pages.recv() => self.take_page(page),
                Some(stored) = self.channels.stored.recv() => self.take_stored(stored),
                Some(jid) = self.channels.registered.recv() => self.is_there(&jid),
                Some(jid) = self.channels.guesses.recv() => self.guess(&jid),
                // Without the lease, another relay may have delivered them: they are not for the mailbox.
                _ = overdue.tick() => if fence.holds() {
                    self.give_up_overdue();
                },
            }
            self.begin_reading();
            if fence.holds() {
                self.send_ready();
            }
        }
        self.finish(&fence).await;
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Online(session) => {
                self.session = Some(session);
                self.channels.online.send_modify(|streams| *streams += 1);
            }
            Event::Offline => {
                self.session = None;
                self.pending.stream_ended();
                self.read_again();
            }
            Event::Stanza(frame) => match Incoming::read(frame) {
                Some(Incoming::Answer(answer)) => self.take_answer(&answer),
                Some(Incoming::Available(jid)) => self.session_began(&jid),
                Some(Incoming::Unavailable(jid)) => self.session_ended(&jid),
                Some(Incoming::Request(request)) => self.pass_on(request),
                None => {}
            },
        }
    }

    fn pass_on(&self, request: Request) {
        let renewal = match &request.query {
            Query::Register(Ok(target)) if self.may_be_revoked(target.registration_id()) => Renewal::Always,
            _ => Renewal::WhereNeeded,
        };
        // Waiting for room here would hold up the answers to pushes; who asked asks again.
        if self.channels.requests.try_send((request, renewal)).is_err() {
            counter!(REQUESTS_DROPPED).increment(1);
        }
    }

    /// Whether the answer to something sent before may still revoke a registration: only a renewal
    /// that is written outlives it.
    fn may_be_revoked(&self, registration: RegistrationId) -> bool {
        self.is_being_revoked(registration)
            || self.pending.asks(registration)
            || Arc::strong_count(&self.late_revocations) > 1
    }

    /// Whether an answer has said that its application is gone, and that is not durable yet.
    fn is_being_revoked(&self, registration: RegistrationId) -> bool {
        self.revoking.get(&registration).is_some_and(|fate| fate.strong_count() > 0)
    }

    fn revoking(&mut self, registration: RegistrationId) -> Arc<()> {
        if self.revoking.len() >= REVOKING_MAX {
            self.revoking.retain(|_, fate| fate.strong_count() > 0);
        }
        let undecided = Arc::new(());
        self.revoking.insert(registration, Arc::downgrade(&undecided));
        undecided
    }

    fn take_delivery(&mut self, delivery: Delivery<Receipt>) {
        let Delivery { receipt, attempts, message } = delivery;
        if let Some(meter) = &mut self.terms.meter
            && self.metered.note(message.id)
            && let Some(until) = meter.count(message.registration, message.accepted_at)
        {
            counter!(THROTTLED).increment(1);
            self.settle_if_room(Fate::Throttle(message.registration, message.epoch, until));
        }
        self.admit(Held { origin: Origin::Queue { receipt, attempts }, message });
    }

    /// Puts a push in line.
    fn line_up(&mut self, push: Held<Receipt>) {
        match self.pending.admit(push, Instant::now()) {
            Ok(()) => {}
            Err(Refused::Slow(push)) => self.keep(push, None, true),
            Err(Refused::LineFull(push, turn)) => {
                let turn = TimeDelta::from_std(turn).unwrap_or(TURN_MAX);
                if let Origin::Queue { receipt, .. } = push.origin {
                    self.settle(Fate::Postponed(receipt, clock::now() + turn));
                }
            }
        }
    }

    fn send_ready(&mut self) {
        while let Some(session) = self.session
            && let Some(push) = self.pending.next()
        {
            let now = clock::now();
            if push.message.is_expired(now) {
                self.pending.dropped(&push.message);
                let recipient = push.message.recipient.clone();
                self.expire(push);
                self.read_on(&recipient);
                continue;
            }
            let xml = stanza::push(&self.terms.component, &push.message);
            // There is room for as many as may be in flight, and for those of a stream that ended.
            let sent = self.channels.pushes.try_send(Outgoing { session, xml });
            self.pending.sent(push, now, Instant::now());
            if sent.is_err() {
                break;
            }
        }
        gauge!(IN_FLIGHT).set(self.pending.in_flight() as f64);
    }

    fn take_answer(&mut self, answer: &Answer) {
        let Some(id) = answer.message_id() else { return self.take_probes_answer(answer) };
        let (outcome, now) = (Outcome::of(answer.error), Instant::now());
        let is_there = outcome != Outcome::Failed;
        let Some(answered) = self.pending.answered(id, &answer.from, is_there, now) else {
            return self.take_late_answer(id, answer, outcome);
        };
        let recipient = answered.push.message.recipient.clone();
        match outcome {
            Outcome::Failed => self.failed(answered, None),
            Outcome::Delivered => self.delivered(answered.push),
            Outcome::Revoke => {
                let undecided = self.revoking(answered.push.message.registration);
                let InFlight { push, asked_at, .. } = answered;
                self.settle(Fate::Revoke { push, asked_at, undecided });
            }
        }
        if is_there {
            self.has_answered(&recipient);
        }
        self.conclude(&recipient);
    }

    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        for jid in self.pending.slow(now) {
            self.reach.stop_reading(&jid);
            self.give_up_line(&jid);
        }
        for jid in self.reach.due(now) {
            self.guess(&jid);
        }
        let Some(deadline) = now.checked_sub(self.terms.ack_timeout) else { return };
        for overdue in self.pending.overdue(deadline, now) {
            let (recipient, asked_at) = (overdue.push.message.recipient.clone(), overdue.asked_at);
            self.failed(overdue, Some(asked_at));
            self.conclude(&recipient);
        }
    }

    fn delivered(&mut self, push: Held<Receipt>) {
        counter!(DELIVERED).increment(1);
        let waited = clock::now() - push.message.accepted_at;
        histogram!(ACKNOWLEDGED_SECONDS).record(waited.as_seconds_f64().max(0.0));
        self.done(push);
    }

    fn done(&mut self, push: Held<Receipt>) {
        self.settled.note(name(&push.message));
        if matches!(push.origin, Origin::Mailbox) {
            self.leaving.note(name(&push.message));
        }
        self.settle(Fate::Done(push));
    }

    fn expire(&mut self, push: Held<Receipt>) {
        counter!(EXPIRED).increment(1);
        self.done(push);
    }

    fn settle(&self, fate: Fate<Receipt>) {
        // There is room for all that the relay holds: mailboxes are read only while settling keeps up.
        if self.channels.fates.try_send(fate).is_err() {
            tracing::error!("a push could not be settled: its settling has ended");
        }
    }

    /// For what no push that the relay holds depends on: its answer or its occasion comes again.
    fn settle_if_room(&self, fate: Fate<Receipt>) {
        if self.settling_keeps_up() {
            self.settle(fate);
        }
    }

    /// Whether, beside the fates that are not durable yet, there is room for those of all that the relay may hold.
    fn settling_keeps_up(&self) -> bool {
        self.channels.fates.capacity() > self.channels.fates.max_capacity() - LATE_MAX
    }

    /// Takes answers until nothing is in flight or the time is up, and gives the rest back.
    async fn finish(mut self, fence: &Fence) {
        self.channels.deliveries.close();
        self.channels.pages.close();
        self.channels.guesses.close();
        let waiting = self.pending.lines();
        self.give_back(waiting);
        while let Ok(Delivery { receipt, .. }) = self.channels.deliveries.try_recv() {
            self.settle(Fate::Postponed(receipt, clock::now()));
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.pending.in_flight() > 0 && self.session.is_some() && !fence.is_lost() {
            tokio::select! {
                () = fence.lost() => break,
                event = self.channels.events.recv() => match event {
                    Some(event) => self.take_event(event),
                    None => break,
                },
                Some(_) = self.channels.stored.recv() => {}
                Some(_) = self.channels.registered.recv() => {}
                () = sleep_until(deadline) => break,
            }
        }
        let unanswered = self.pending.unanswered();
        if !unanswered.is_empty() {
            tracing::warn!(
                unanswered = unanswered.len(),
                "pushes were not answered in time; they are delivered again"
            );
        }
        let rest = self.pending.lines().into_iter().chain(unanswered).collect();
        self.give_back(rest);
    }

    fn give_back(&mut self, pushes: Vec<Held<Receipt>>) {
        let now = clock::now();
        for push in pushes {
            if let Origin::Queue { receipt, .. } = push.origin {
                self.settle(Fate::Postponed(receipt, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_decides() {
        assert_eq!(Outcome::of(None), Outcome::Delivered);
        assert_eq!(Outcome::of(Some(Condition::ItemNotFound)), Outcome::Revoke);
        assert_eq!(Outcome::of(Some(Condition::FeatureNotImplemented)), Outcome::Revoke);
        assert_eq!(Outcome::of(Some(Condition::Other)), Outcome::Failed);
    }
}
