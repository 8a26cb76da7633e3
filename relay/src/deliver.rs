//! Delivery: takes pushes from the queue to the stream, and their answers back to the queue.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use metrics::{counter, gauge, histogram};
use push::{
    PushMessage, RegistrationId,
    ports::{Delivery, Renewal},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::jid::BareJid;

use crate::{
    clock,
    component::{Event, Outgoing, Session},
    consume::Fate,
    measures::{ACKNOWLEDGED_SECONDS, DELIVERED, EXPIRED, IN_FLIGHT, REQUESTS_DROPPED, RETRIED, REVOKED},
    pending::{InFlight, Pending, Refused},
    stanza::{self, Answer, Condition, Incoming, Query, Request},
};

/// What becomes of a push by the answer to it (protocol.md §1, "Push").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Revoke,
    Retry,
}

impl Outcome {
    const fn of(error: Option<Condition>) -> Self {
        match error {
            None => Self::Delivered,
            Some(Condition::ItemNotFound | Condition::FeatureNotImplemented) => Self::Revoke,
            Some(Condition::Other) => Self::Retry,
        }
    }
}

/// The first delay before a push is tried again; each further one is twice as long.
const RETRY_DELAY_MIN: TimeDelta = TimeDelta::seconds(5);
const RETRY_DELAY_MAX: TimeDelta = TimeDelta::minutes(5);
/// How long before its expiry a push is tried for the last time.
const LAST_RETRY_MARGIN: TimeDelta = TimeDelta::seconds(1);
/// How often overdue answers are looked for.
const OVERDUE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stopping relay waits for answers; settling and closing the stream come after it.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Notes of revocations; beyond it, those that are decided are dropped.
const REVOKING_MAX: usize = 1024;
/// Most events and deliveries taken at once, before anything is sent.
const BATCH_MAX: usize = 128;

/// Ends of the channels that delivery works between.
pub(crate) struct Channels<Receipt> {
    pub(crate) deliveries: mpsc::Receiver<Delivery<Receipt>>,
    pub(crate) fates: mpsc::Sender<Fate<Receipt>>,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) pushes: mpsc::Sender<Outgoing>,
    pub(crate) requests: mpsc::Sender<(Request, Renewal)>,
}

/// The delivery loop's state.
pub(crate) struct Dispatcher<Receipt> {
    component: BareJid,
    ack_timeout: Duration,
    channels: Channels<Receipt>,
    pending: Pending<Receipt>,
    /// The stream that pushes can go out on now.
    session: Option<Session>,
    /// The registrations that are being revoked: each fate holds its end until it is decided.
    revoking: HashMap<RegistrationId, Weak<()>>,
}

impl<Receipt: Clone> Dispatcher<Receipt> {
    pub(crate) fn new(component: BareJid, ack_timeout: Duration, channels: Channels<Receipt>) -> Self {
        Self {
            component,
            ack_timeout,
            channels,
            pending: Pending::new(),
            session: None,
            revoking: HashMap::new(),
        }
    }

    /// Delivers until `stop`, then waits for what is in flight and gives the rest back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut overdue = interval(OVERDUE_INTERVAL);
        overdue.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut events, mut deliveries) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = self.channels.events.recv_many(&mut events, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    events.drain(..).for_each(|event| self.take_event(event));
                }
                _ = self.channels.deliveries.recv_many(&mut deliveries, BATCH_MAX), if self.session.is_some() && !self.channels.deliveries.is_closed() => {
                    deliveries.drain(..).for_each(|delivery| self.admit(delivery));
                }
                _ = overdue.tick() => self.give_up_overdue(),
            }
            self.send_ready();
        }
        self.finish().await;
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Online(session) => self.session = Some(session),
            Event::Offline => {
                self.session = None;
                self.pending.stream_ended();
            }
            Event::Stanza(frame) => match Incoming::read(frame) {
                Some(Incoming::Answer(answer)) => self.take_answer(&answer),
                Some(Incoming::Unavailable(jid)) => {
                    let (in_flight, line) = self.pending.session_ended(&jid);
                    in_flight.into_iter().for_each(|push| self.retry(push.delivery));
                    line.into_iter().for_each(|delivery| self.retry(delivery));
                }
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
        let undecided = |fate: &Weak<()>| fate.strong_count() > 0;
        self.revoking.get(&registration).is_some_and(undecided) || self.pending.asks(registration)
    }

    fn revoking(&mut self, registration: RegistrationId) -> Arc<()> {
        if self.revoking.len() >= REVOKING_MAX {
            self.revoking.retain(|_, fate| fate.strong_count() > 0);
        }
        let undecided = Arc::new(());
        self.revoking.insert(registration, Arc::downgrade(&undecided));
        undecided
    }

    fn admit(&mut self, delivery: Delivery<Receipt>) {
        match self.pending.admit(delivery, Instant::now()) {
            Ok(()) => {}
            Err(Refused::Slow(delivery)) => self.put_off(delivery),
            Err(Refused::LineFull(delivery, turn)) => {
                let turn = TimeDelta::from_std(turn).unwrap_or(RETRY_DELAY_MAX);
                let at = (clock::now() + turn).min(delivery.message.expires_at - LAST_RETRY_MARGIN);
                self.settle(Fate::Postponed(delivery.receipt, at));
            }
        }
    }

    fn send_ready(&mut self) {
        let Some(session) = self.session else { return };
        while let Some(delivery) = self.pending.next() {
            let now = clock::now();
            if delivery.message.is_expired(now) {
                self.pending.dropped(&delivery.message);
                self.expire(delivery);
                continue;
            }
            let xml = stanza::push(&self.component, &delivery.message);
            // There is room for as many as may be in flight, and for those of a stream that ended.
            let sent = self.channels.pushes.try_send(Outgoing { session, xml });
            self.pending.sent(delivery, now, Instant::now());
            if sent.is_err() {
                break;
            }
        }
        gauge!(IN_FLIGHT).set(self.pending.in_flight() as f64);
    }

    fn take_answer(&mut self, answer: &Answer) {
        let Some(push) =
            answer.message_id().and_then(|id| self.pending.answered(id, &answer.from, Instant::now()))
        else {
            return;
        };
        let InFlight { delivery, asked_at, .. } = push;
        match Outcome::of(answer.error) {
            Outcome::Delivered => {
                counter!(DELIVERED).increment(1);
                let waited = clock::now() - delivery.message.accepted_at;
                histogram!(ACKNOWLEDGED_SECONDS).record(waited.as_seconds_f64().max(0.0));
                self.settle(Fate::Done(delivery.receipt));
            }
            Outcome::Revoke => {
                counter!(REVOKED).increment(1);
                let retry_at = clock::now() + RETRY_DELAY_MIN;
                let PushMessage { registration, epoch, .. } = delivery.message;
                let fate = Fate::Revoke {
                    receipt: delivery.receipt,
                    registration,
                    epoch,
                    asked_at,
                    retry_at,
                    undecided: self.revoking(registration),
                };
                self.settle(fate);
            }
            Outcome::Retry => self.retry(delivery),
        }
    }

    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        for delivery in self.pending.slow_lines(now) {
            self.put_off(delivery);
        }
        let Some(deadline) = now.checked_sub(self.ack_timeout) else { return };
        for push in self.pending.overdue(deadline, now) {
            self.retry(push.delivery);
        }
    }

    /// Back to the queue after a delivery that failed.
    fn retry(&mut self, delivery: Delivery<Receipt>) {
        counter!(RETRIED).increment(1);
        self.put_off(delivery);
    }

    /// Back to the queue, with a growing delay, for as long as the push may live.
    fn put_off(&mut self, delivery: Delivery<Receipt>) {
        match retry_at(&delivery, clock::now()) {
            None => self.expire(delivery),
            Some(at) => self.settle(Fate::Later(delivery.receipt, at)),
        }
    }

    fn expire(&mut self, delivery: Delivery<Receipt>) {
        counter!(EXPIRED).increment(1);
        self.settle(Fate::Done(delivery.receipt));
    }

    fn settle(&mut self, fate: Fate<Receipt>) {
        // There is room for all that the relay holds.
        if self.channels.fates.try_send(fate).is_err() {
            tracing::error!("a push could not be settled: its settling has ended");
        }
    }

    /// Takes answers until nothing is in flight or the time is up, and gives the rest back.
    async fn finish(mut self) {
        self.channels.deliveries.close();
        let mut waiting = self.pending.lines();
        while let Ok(delivery) = self.channels.deliveries.try_recv() {
            waiting.push(delivery);
        }
        self.give_back(waiting);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.pending.in_flight() > 0 && self.session.is_some() {
            tokio::select! {
                event = self.channels.events.recv() => match event {
                    Some(event) => self.take_event(event),
                    None => break,
                },
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
        let mut rest = self.pending.lines();
        rest.extend(unanswered);
        self.give_back(rest);
    }

    fn give_back(&mut self, deliveries: Vec<Delivery<Receipt>>) {
        let now = clock::now();
        deliveries.into_iter().for_each(|delivery| self.settle(Fate::Postponed(delivery.receipt, now)));
    }
}

/// When a push is tried again; `None`: never, since it will have expired. The last try comes
/// shortly before that.
fn retry_at<Receipt>(delivery: &Delivery<Receipt>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let message = &delivery.message;
    if message.is_immediate() {
        return None; // RFC 8030 §5.2: TTL 0 is delivered at once or not at all.
    }
    let delay = RETRY_DELAY_MIN.checked_mul(1 << delivery.attempts.min(16)).unwrap_or(RETRY_DELAY_MAX);
    let last = message.expires_at - LAST_RETRY_MARGIN;
    let at = (now + delay.min(RETRY_DELAY_MAX)).min(last);
    (at >= now + LAST_RETRY_MARGIN).then_some(at)
}

#[cfg(test)]
mod tests {
    use push::{Application, Body, Instance, MessageId, Registration, Target, Ttl, Urgency, message::Wishes};
    use tokio_xmpp::jid::FullJid;

    use super::*;

    fn delivery(ttl: u32, attempts: u32) -> Delivery<()> {
        let target = Target {
            recipient: FullJid::new("juliet@example.com/phone").unwrap(),
            application: Application::from_bytes([1; 32]),
            instance: Instance::from_bytes([2; 32]),
        };
        let registration = Registration::renew(None, target, start(), TimeDelta::days(7));
        let wishes = Wishes { ttl: Ttl::from_seconds(ttl), urgency: Urgency::Normal, topic: None };
        let id = MessageId::from_bytes([0; 16]);
        let message = PushMessage::new(id, &registration, wishes, Body::from_bytes(b"x"), start());
        Delivery { receipt: (), attempts, message }
    }

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn the_answer_decides() {
        assert_eq!(Outcome::of(None), Outcome::Delivered);
        assert_eq!(Outcome::of(Some(Condition::ItemNotFound)), Outcome::Revoke);
        assert_eq!(Outcome::of(Some(Condition::FeatureNotImplemented)), Outcome::Revoke);
        assert_eq!(Outcome::of(Some(Condition::Other)), Outcome::Retry);
    }

    #[test]
    fn the_delay_doubles_up_to_a_bound() {
        let delays = [0, 1, 2, 6, 7, 40].map(|attempts| {
            (retry_at(&delivery(86_400, attempts), start()).unwrap() - start()).num_seconds()
        });
        assert_eq!(delays, [5, 10, 20, 300, 300, 300]);
    }

    #[test]
    fn the_last_try_comes_before_the_expiry_and_an_immediate_push_has_none() {
        let in_seconds = |ttl, passed| {
            retry_at(&delivery(ttl, 3), start() + TimeDelta::seconds(passed))
                .map(|at| (at - start()).num_seconds())
        };
        assert_eq!(in_seconds(60, 0), Some(40));
        assert_eq!(in_seconds(60, 35), Some(59));
        assert_eq!(in_seconds(60, 59), None);
        assert_eq!(in_seconds(0, 0), None);
    }
}
