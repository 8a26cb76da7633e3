//! From frames to events: passes on what is addressed to the component, within a budget of bytes.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_xmpp::jid::BareJid;

use super::{
    framing::Frame,
    stanza::{Elsewhere, Incoming},
};

/// Most bytes of the stanzas that wait for the relay. At this bound, the stream is not read further.
const BYTES_MAX: usize = 4 << 20;
/// Most other domains that are warned of one by one.
const OTHER_DOMAINS_MAX: usize = 16;

/// The number of a stream, counted by this process. A push that was meant for one stream does not go out on the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamNumber(pub(super) u64);

#[cfg(test)]
impl StreamNumber {
    pub(crate) fn number(number: u64) -> Self {
        Self(number)
    }
}

/// An event of the stream, for the rest of the relay.
#[derive(Debug)]
pub(crate) enum Event {
    Online(StreamNumber),
    /// Stanzas that went out unanswered on the stream may be lost.
    Offline,
    /// A stanza that means something to the relay.
    Stanza(Box<Incoming>, Room),
}

/// The bytes of the budget that a stanza takes, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room(#[expect(dead_code, reason = "its end gives the bytes back")] OwnedSemaphorePermit);

#[cfg(test)]
impl Event {
    /// A stanza that takes no room of a budget.
    pub(crate) fn stanza(stanza: Incoming) -> Self {
        let budget = Arc::new(Semaphore::new(0));
        let room = budget.try_acquire_many_owned(0).expect("nothing is asked for");
        Self::Stanza(Box::new(stanza), Room(room))
    }
}

/// The error that nobody takes events any more.
#[derive(Debug)]
pub(super) struct Closed;

/// The way of stanzas to the relay.
pub(super) struct Inbox {
    component: BareJid,
    events: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
    /// Other domains for which stanzas came.
    others: BTreeSet<String>,
}

impl Inbox {
    pub(super) fn new(component: BareJid, events: mpsc::Sender<Event>) -> Self {
        Self { component, events, room: Arc::new(Semaphore::new(BYTES_MAX)), others: BTreeSet::new() }
    }

    /// Passes on an event of the stream itself.
    pub(super) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Passes on a stanza that means something, as soon as there is room for it.
    pub(super) async fn take(&mut self, frame: Frame) -> Result<(), Closed> {
        let stanza = match Incoming::read(frame, &self.component) {
            Ok(Some(stanza)) => Box::new(stanza),
            Ok(None) => return Ok(()),
            Err(Elsewhere(domain)) => {
                self.note_other(domain);
                return Ok(());
            }
        };
        let bytes = u32::try_from(stanza.bytes().min(BYTES_MAX)).map_err(|_| Closed)?;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| Closed)?;
        self.events.send(Event::Stanza(stanza, Room(room))).await.map_err(|_| Closed)
    }

    /// Warns of the first stanza for each other domain.
    fn note_other(&mut self, domain: String) {
        if self.others.len() < OTHER_DOMAINS_MAX && !self.others.contains(&domain) {
            tracing::warn!(
                component = %self.component,
                domain,
                mend = ROUTES_MEND,
                "the XMPP server sends this component stanzas for another domain: they are not answered"
            );
            self.others.insert(domain);
        }
    }
}

/// The remedy where ejabberd mixes up components.
const ROUTES_MEND: &str = "in ejabberd, give this component a listener (ejabberd_service) of its own, or set \
    `global_routes: false` in that listener: another component's connection gets stanzas meant for this one, too";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::framing::FrameReader;

    const STREAM: &str =
        "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:component:accept'>";

    fn inbox(capacity: usize) -> (Inbox, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(capacity);
        (Inbox::new(BareJid::new("notify.example.com").unwrap(), events), received)
    }

    /// Takes all of these stanzas.
    async fn take_all(inbox: &mut Inbox, stanzas: &str) {
        let stream = format!("{STREAM}{stanzas}");
        let mut reader = FrameReader::new(stream.as_bytes());
        loop {
            match reader.next().await.unwrap() {
                Frame::Closed => return,
                frame => inbox.take(frame).await.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn stanzas_for_other_domains_are_dropped_and_few_of_these_are_remembered() {
        let (mut inbox, mut events) = inbox(4);
        let others: String = (0..100)
            .map(|number| {
                format!("<iq type='get' id='1' to='up{number}.example.com' from='a@b/c'><ping xmlns='urn:xmpp:ping'/></iq>")
            })
            .collect();
        take_all(&mut inbox, &(others + "<presence from='a@b/c' to='notify.example.com'/>")).await;
        let Some(Event::Stanza(stanza, _)) = events.recv().await else { panic!("no stanza") };
        assert!(matches!(*stanza, Incoming::Available(_)));
        assert!(events.try_recv().is_err());
        assert_eq!(inbox.others.len(), OTHER_DOMAINS_MAX);
    }

    #[tokio::test]
    async fn stanzas_that_wait_are_bounded_by_their_bytes_too() {
        const LENGTH: usize = 60_000;
        let count = BYTES_MAX / LENGTH + 10;
        let (mut inbox, mut events) = inbox(count);
        let id = "x".repeat(LENGTH);
        let stanza = format!("<iq type='result' id='{id}' to='notify.example.com' from='a@b/c'/>");
        let stanzas = stanza.repeat(count);
        let mut taken = 0;
        let taking = async {
            take_all(&mut inbox, &stanzas).await;
            std::future::pending().await
        };
        let counting = async {
            while taken < count {
                // Stanzas that find room come in meanwhile.
                for _ in 0..count {
                    tokio::task::yield_now().await;
                }
                assert!((1..=BYTES_MAX / LENGTH).contains(&events.len()), "{}", events.len());
                while events.try_recv().is_ok() {
                    taken += 1;
                }
            }
        };
        tokio::select! {
            () = counting => {}
            () = taking => {}
        }
        assert_eq!(taken, count);
    }
}
