//! Carries out what the core decides: the only loop between the stream, the jobs and the clock.

use std::{collections::VecDeque, sync::Arc};

use metrics::{counter, gauge, histogram};
use push::{
    AccessList,
    ports::{Mailbox, QueueReader, RelayRegistrations},
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::{jid::BareJid, minidom::Element};

use crate::{
    delivery::{
        Now,
        core::{Action, Core, Input, Job, Lapsing, Measure, TICK},
    },
    jobs::Jobs,
    lease::Fence,
    measures::{
        ACKNOWLEDGED_SECONDS, DELIVERED, EXPIRED, IN_FLIGHT, LAPSING, NOT_ADMITTED, REQUESTS_DROPPED,
        RETRIED, THROTTLED,
    },
    stream::{
        component::{Event, Outgoing},
        framing::serialize,
    },
};

pub(crate) mod forgetting;
pub(crate) mod trail;

use self::trail::Trail;

/// Most events of the stream, and most results of jobs, that are taken before the clock is looked at again.
const BATCH_MAX: usize = 128;
/// Most bytes of the answers that wait for a stream that takes none.
const REPLY_BYTES_MAX: usize = 16 << 20;
/// Most domains whose lapsing registrations are reported one by one.
const DOMAINS_TOLD_MAX: usize = 20;

/// The driver's ends of the stream's channels.
pub(crate) struct StreamEnds {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) pushes: mpsc::Sender<Outgoing>,
    pub(crate) replies: mpsc::Sender<String>,
}

/// A task of the relay ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("a task of the relay has died: {0}")]
pub struct TaskDied(pub(crate) String);

/// An event that the driver has waited for.
enum Ready {
    Lost,
    Stop,
    Access,
    Forget(BareJid),
    Done(Result<Input, JoinError>),
    Event(Option<Event>),
    Room,
    Time,
}

/// The loop, and all that it works with.
pub(crate) struct Driver<R, Q: QueueReader, M> {
    core: Core,
    jobs: Arc<Jobs<R, Q, M>>,
    running: JoinSet<Input>,
    receiving: Option<AbortHandle>,
    stream: StreamEnds,
    /// Answers for which the stream had no room.
    replies: VecDeque<String>,
    reply_bytes: usize,
    access: watch::Receiver<AccessList>,
    next_tick: Instant,
    actions: Vec<Action>,
    finished: bool,
    trail: Trail,
    forgotten: broadcast::Receiver<BareJid>,
}

impl<R: RelayRegistrations, Q: QueueReader, M: Mailbox> Driver<R, Q, M> {
    pub(crate) fn new(
        core: Core,
        jobs: Jobs<R, Q, M>,
        stream: StreamEnds,
        access: watch::Receiver<AccessList>,
        trail: Trail,
        forgotten: broadcast::Receiver<BareJid>,
    ) -> Self {
        Self {
            core,
            jobs: Arc::new(jobs),
            running: JoinSet::new(),
            receiving: None,
            stream,
            replies: VecDeque::new(),
            reply_bytes: 0,
            access,
            next_tick: Instant::now() + TICK,
            actions: Vec::new(),
            finished: false,
            trail,
            forgotten,
        }
    }

    /// Runs until a stop, or the loss of the lease, has been carried out.
    pub(crate) async fn run(mut self, stop: CancellationToken, fence: Fence) -> Result<(), TaskDied> {
        let (mut stopping, mut lost, mut streams) = (false, false, true);
        while !self.finished {
            let ready = tokio::select! {
                biased;
                () = fence.lost(), if !lost => Ready::Lost,
                () = stop.cancelled(), if !stopping => Ready::Stop,
                Ok(()) = self.access.changed() => Ready::Access,
                Ok(account) = self.forgotten.recv() => Ready::Forget(account),
                Some(done) = self.running.join_next(), if !self.running.is_empty() => Ready::Done(done),
                event = self.stream.events.recv(), if streams => Ready::Event(event),
                Ok(_) = self.stream.replies.reserve(), if !self.replies.is_empty() => Ready::Room,
                () = sleep_until(self.next_tick) => Ready::Time,
            };
            match ready {
                Ready::Lost => {
                    lost = true;
                    self.stop_receiving(Input::LeaseLost);
                }
                Ready::Stop => {
                    stopping = true;
                    self.stop_receiving(Input::Stop);
                }
                Ready::Access => {
                    let access = self.access.borrow_and_update().clone();
                    self.take(Input::Access(access));
                }
                Ready::Forget(account) => self.take(Input::Forget(account)),
                Ready::Done(done) => self.take_done(done)?,
                Ready::Event(Some(event)) => self.take_event(event),
                // The loss of the lease ends the stream.
                Ready::Event(None) if fence.is_lost() => {
                    streams = false;
                    self.take(Input::Offline);
                }
                Ready::Event(None) => return Err(TaskDied("the stream has ended".into())),
                Ready::Room => self.reply_on(),
                Ready::Time => {}
            }
            self.take_what_is_ready()?;
        }
        self.running.shutdown().await;
        // The queue is closed last of all. Until then, a poll that is still under way may take once more what is given
        // back.
        self.jobs.queue.close().await;
        Ok(())
    }

    /// Takes the events and results that are ready. Neither the stream nor the jobs keep each other, or the clock,
    /// waiting.
    fn take_what_is_ready(&mut self) -> Result<(), TaskDied> {
        for _ in 0..BATCH_MAX {
            let Ok(event) = self.stream.events.try_recv() else { break };
            self.take_event(event);
        }
        for _ in 0..BATCH_MAX {
            let Some(done) = self.running.try_join_next() else { break };
            self.take_done(done)?;
        }
        let now = Instant::now();
        if now >= self.next_tick {
            for (message, kept) in self.jobs.take_kept_late() {
                self.take(Input::KeptLate(message, kept));
            }
            self.take(Input::Tick);
            self.next_tick = now + self.core.tick_interval();
        }
        Ok(())
    }

    fn take_event(&mut self, event: Event) {
        self.take(match event {
            Event::Online(stream) => Input::Online(stream),
            Event::Offline => Input::Offline,
            Event::Stanza(stanza, _room) => Input::Stanza(*stanza),
        });
    }

    /// Ends receiving. The queue gives back the pushes that were taken and not returned.
    fn stop_receiving(&mut self, input: Input) {
        if let Some(receiving) = self.receiving.take() {
            receiving.abort();
        }
        self.take(input);
    }

    fn take_done(&mut self, done: Result<Input, JoinError>) -> Result<(), TaskDied> {
        match done {
            Ok(input) => self.take(input),
            // The job that receives is the only one that is aborted.
            Err(error) if error.is_cancelled() => self.take(Input::Received(Vec::new())),
            Err(error) => return Err(TaskDied(error.to_string())),
        }
        Ok(())
    }

    fn take(&mut self, input: Input) {
        let clock = self.jobs.clock.read();
        let (monotonic, leased) = (Instant::now(), self.jobs.fence.holds());
        let now = Now { wall: clock.now, least: clock.least(), monotonic, leased };
        let mut actions = std::mem::take(&mut self.actions);
        let told = self.trail.note_input(&input, now.wall);
        self.core.handle(input, now, &mut actions);
        self.trail.note_actions(&told, &actions, now.wall);
        actions.drain(..).for_each(|action| self.carry_out(action));
        self.actions = actions;
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send(stream, xml) => {
                // The channel has room for as many as may be in flight, and for those of a stream that ended. A push
                // that finds no room is overdue after a while.
                let _ = self.stream.pushes.try_send(Outgoing { stream, xml });
            }
            Action::Reply(reply) => self.reply(&reply),
            Action::Start(job) => self.start(job),
            Action::Count(Measure::Living(tenant, living)) => {
                self.jobs.usage.note_registrations(&tenant, living as u64, self.jobs.clock.now());
            }
            Action::Count(measure) => count(measure),
            Action::Finish => self.finished = true,
        }
    }

    fn reply(&mut self, reply: &Element) {
        let xml = serialize(reply);
        if self.reply_bytes + xml.len() <= REPLY_BYTES_MAX {
            self.reply_bytes += xml.len();
            self.replies.push_back(xml);
            self.reply_on();
        } else {
            counter!(REQUESTS_DROPPED).increment(1);
        }
    }

    /// Gives the stream the answers for which it has room.
    fn reply_on(&mut self) {
        while let Some(xml) = self.replies.pop_front() {
            let bytes = xml.len();
            if let Err(mpsc::error::TrySendError::Full(xml)) = self.stream.replies.try_send(xml) {
                return self.replies.push_front(xml);
            }
            self.reply_bytes -= bytes;
        }
    }

    fn start(&mut self, job: Job) {
        let receives = matches!(job, Job::Receive(_));
        let jobs = Arc::clone(&self.jobs);
        let handle = self.running.spawn(async move { jobs.run(job).await });
        if receives {
            self.receiving = Some(handle);
        }
    }
}

fn count(measure: Measure) {
    match measure {
        Measure::Delivered(waited) => {
            counter!(DELIVERED).increment(1);
            histogram!(ACKNOWLEDGED_SECONDS).record(waited.as_seconds_f64().max(0.0));
        }
        Measure::Expired => counter!(EXPIRED).increment(1),
        Measure::Retried => counter!(RETRIED).increment(1),
        Measure::Throttled => counter!(THROTTLED).increment(1),
        Measure::RequestRefused => counter!(REQUESTS_DROPPED).increment(1),
        Measure::NotAdmitted => {
            counter!(NOT_ADMITTED).increment(1);
            tracing::warn!(
                "a registration was refused: UPWIRE_ACL does not have the user's domain or address, or its tenant is suspended"
            );
        }
        Measure::InFlight(count) => gauge!(IN_FLIGHT).set(count as f64),
        Measure::Unanswered(unanswered) => {
            tracing::warn!(unanswered, "pushes were not answered in time; they are delivered again");
        }
        Measure::Lapsing(domains) => tell_of_lapsing(&domains),
        // `carry_out` gives this to the meter.
        Measure::Living(..) => {}
    }
}

fn tell_of_lapsing(domains: &[Lapsing]) {
    let count = |domains: &[Lapsing]| domains.iter().map(|lapsing| lapsing.registrations).sum::<usize>();
    gauge!(LAPSING).set(count(domains) as f64);
    tracing::debug!(lapsing = count(domains), "the registrations are counted");
    let (told, others) = domains.split_at(domains.len().min(DOMAINS_TOLD_MAX));
    for Lapsing { domain, registrations, first } in told {
        tracing::warn!(
            domain,
            registrations,
            %first,
            "registrations lapse, the first at that moment: the access list does not name their accounts, or their \
             tenant is suspended, so renewals are refused and pushes wait; if that is a slip, add the domain to the \
             list, or resume the tenant"
        );
    }
    if !others.is_empty() {
        let (domains, registrations) = (others.len(), count(others));
        tracing::warn!(domains, registrations, "registrations of further domains lapse, too");
    }
}

#[cfg(test)]
mod tests;
