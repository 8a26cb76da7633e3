//! The XMPP server has streams of the component and sessions of phones (docs/xmpp-servers.md).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use push::{MessageId, ports::Holder};
use tokio_xmpp::jid::FullJid;

use crate::{
    calls::Shared,
    pipe::{Hub, Life, Pipe},
    plan::Manner,
    sends::{Said, Sending},
    xml::{attribute, name, next_piece},
};

/// Domain of the component.
pub(crate) const COMPONENT: &str = "push.sim.example";
const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// One stream of the component.
#[derive(Debug)]
struct Link {
    number: u64,
    pipe: Pipe,
    buffer: Vec<u8>,
    ready: bool,
    /// True if the relay decided before a pause to write the bytes that are being read.
    caught: bool,
}

/// A stanza on its way to a phone.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    pub(crate) number: u64,
    pub(crate) xml: String,
    /// True if the phone has it.
    received: bool,
}

/// A stanza on its way from a phone.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    pub(crate) xml: String,
    pub(crate) meaning: Meaning,
}

/// The meaning of a stanza of a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Greeting,
    Result(MessageId),
    Register(usize),
    Other,
}

/// A session of a phone.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) phone: usize,
    pub(crate) number: u64,
    pub(crate) online: bool,
    pub(crate) resumes: bool,
    /// The number of the last break of its connection.
    pub(crate) lost: Option<u64>,
    pub(crate) greeted: bool,
    pub(crate) down: VecDeque<Down>,
    pub(crate) up: Vec<Up>,
    /// Moments at which the last stanzas on their way arrive: at the phone, and at the server.
    pub(crate) last_at: [Duration; 2],
}

/// A request of the server to the world.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A stanza goes to a session.
    Bring(FullJid, u64, u64),
    /// A stanza of the component to itself comes back.
    Echo(String),
    /// A stream of the component came up or went down.
    Link,
}

/// The state of the XMPP server.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    links: Vec<Link>,
    turn: usize,
    pub(crate) sessions: BTreeMap<FullJid, Session>,
    last: u64,
    pub(crate) effects: Vec<Effect>,
}

/// Returns the name by which a life of a process holds the lease.
pub(crate) fn holder(life: Life) -> Holder {
    let mut name = [0; 16];
    name[0] = life.process as u8;
    name[8..].copy_from_slice(&life.number.to_be_bytes());
    Holder(name)
}

/// Returns an IQ error to the component.
pub(crate) fn error(from: &str, id: &str, condition: &str) -> String {
    format!(
        "<iq type='error' id='{id}' from='{from}' to='{COMPONENT}'>\
         <error type='cancel'><{condition} xmlns='{STANZAS}'/></error></iq>"
    )
}

/// Returns the sender of a stanza, and what it says.
fn said(xml: &str) -> Option<(FullJid, Said)> {
    let from = attribute(xml, 0, "from")?.parse().ok()?;
    let id = attribute(xml, 0, "id").and_then(|id| MessageId::parse(&id));
    let said = match (name(xml, 0), attribute(xml, 0, "type").as_deref(), id) {
        ("presence", Some("unavailable"), _) => Said::Gone,
        ("iq", Some("result"), Some(id)) => Said::Result(id),
        ("iq", Some("error"), Some(id)) if name(xml, 2) == "item-not-found" => Said::Refusal(id),
        ("iq", Some("error"), Some(id)) => Said::Failure(id),
        // A probe bounced.
        ("iq", Some("error"), None) => return None,
        _ => Said::There,
    };
    Some((from, said))
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>, hub: Arc<Hub>) -> Self {
        Self {
            shared,
            hub,
            links: Vec::new(),
            turn: 0,
            sessions: BTreeMap::new(),
            last: 0,
            effects: Vec::new(),
        }
    }

    /// Returns a number that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Accepts new connections, and reads all of them.
    pub(crate) fn read(&mut self) {
        for pipe in self.hub.accept() {
            let number = self.number();
            self.links.push(Link { number, pipe, buffer: Vec::new(), ready: false, caught: false });
        }
        let mut at = 0;
        while at < self.links.len() {
            let link = &mut self.links[at];
            let (bytes, caught) = link.pipe.take();
            link.buffer.extend(bytes);
            link.caught = caught;
            let mut open = !link.pipe.is_hung_up();
            while let Some(piece) = next_piece(&mut self.links[at].buffer) {
                open &= self.take_piece(at, &piece);
            }
            if open {
                at += 1;
            } else {
                self.drop_link(at);
            }
        }
    }

    fn drop_link(&mut self, at: usize) {
        let link = self.links.remove(at);
        link.pipe.hang_up();
        if link.ready {
            self.shared.note(format_args!("stream of relay {} ends", link.pipe.life.process));
            self.effects.push(Effect::Link);
        }
    }

    /// Breaks all connections of the component.
    pub(crate) fn cut(&mut self) {
        while !self.links.is_empty() {
            self.drop_link(0);
        }
    }

    /// Removes the server's end of all connections, without telling the relays.
    pub(crate) fn vanish(&mut self) {
        for link in self.links.drain(..) {
            link.pipe.vanish();
        }
        self.effects.push(Effect::Link);
    }

    /// Stops the connections of a process, or lets them go on. Returns whether it has a stream.
    pub(crate) fn stall(&mut self, process: usize, stalled: bool) -> bool {
        let of_it = self.links.iter().filter(|link| link.pipe.life.process == process);
        of_it.fold(false, |has_one, link| {
            link.pipe.stall(stalled);
            has_one || link.ready
        })
    }

    /// Takes a stream header or a stanza of a relay. Returns whether its stream goes on.
    fn take_piece(&mut self, at: usize, piece: &str) -> bool {
        let life = self.links[at].pipe.life;
        self.shared.note(format_args!("relay {}.{} > {piece}", life.process, life.number));
        match name(piece, 0) {
            "?xml" | "stream:stream" => {
                let number = self.number();
                self.links[at].pipe.write(&format!(
                    "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                     xmlns:stream='http://etherx.jabber.org/streams' from='{COMPONENT}' id='s{number}'>"
                ));
                true
            }
            "handshake" => self.take_handshake(at),
            "iq" => {
                self.route(at, piece);
                true
            }
            _ => {
                self.links[at].pipe.write("</stream:stream>");
                false
            }
        }
    }

    fn take_handshake(&mut self, at: usize) -> bool {
        if self.shared.plan.manner == Manner::Prosody && self.links.iter().any(|link| link.ready) {
            self.links[at].pipe.write(
                "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
            );
            return false;
        }
        self.links[at].pipe.write("<handshake/>");
        self.links[at].ready = true;
        self.effects.push(Effect::Link);
        true
    }

    /// Routes a stanza of the component.
    fn route(&mut self, at: usize, xml: &str) {
        let (Some(to), Some(id)) = (attribute(xml, 0, "to"), attribute(xml, 0, "id")) else { return };
        if to == COMPONENT {
            self.effects.push(Effect::Echo(xml.to_owned()));
            return;
        }
        let Ok(jid) = to.parse::<FullJid>() else { return };
        let asks = matches!(attribute(xml, 0, "type").as_deref(), Some("get" | "set"));
        if name(xml, 1) == "registered" {
            self.shared.lock().ledger.answer_registration(&jid, self.shared.now());
        }
        if name(xml, 1) == "push" {
            self.check_push(&self.links[at], &id, &jid);
        }
        let number = self.number();
        let Some(session) = self.sessions.get_mut(&jid) else {
            if asks {
                self.tell(&error(&to, &id, "service-unavailable"));
            }
            return;
        };
        session.down.push_back(Down { number, xml: xml.to_owned(), received: false });
        if session.online {
            self.effects.push(Effect::Bring(jid, session.number, number));
        }
    }

    fn check_push(&self, link: &Link, id: &str, jid: &FullJid) {
        let Link { number, pipe: Pipe { life, .. }, caught, .. } = *link;
        let at = self.shared.now();
        let mut state = self.shared.lock();
        let tenure = state.rows.tenure;
        if self.shared.is_cloud() && !caught && tenure.and_then(|tenure| tenure.holder) != Some(holder(life))
        {
            let detail = format!("relay {}.{} sends {id} to {jid}", life.process, life.number);
            state.ledger.violate("nothing is sent without the lease", at, detail);
        }
        if let Some(id) = MessageId::parse(id) {
            let wall = self.shared.wall_of(life.process);
            let sending = Sending { id, to: jid.clone(), link: number, life, at, wall };
            state.ledger.send(sending, !caught);
        }
    }

    /// Brings a stanza to the component. Returns whether it went to the only stream, whose relay is not paused; `None`:
    /// there is no stream.
    pub(crate) fn tell(&mut self, xml: &str) -> Option<bool> {
        let ready: Vec<usize> = (0..self.links.len()).filter(|at| self.links[*at].ready).collect();
        self.turn += 1;
        let at = *ready.get(self.turn % ready.len().max(1))?;
        let link = &self.links[at];
        self.shared.note(format_args!("relay {}.{} < {xml}", link.pipe.life.process, link.pipe.life.number));
        link.pipe.write(xml);
        let paused = self.shared.lock().processes.get(link.pipe.life.process).is_some_and(|process| {
            process.paused_until.is_some_and(|until| until > tokio::time::Instant::now())
        });
        let alone = ready.len() == 1 && !paused;
        if let Some((from, said)) = said(xml) {
            let (now, patience) = (self.shared.now(), self.shared.plan.ack_timeout);
            self.shared.lock().ledger.hear(&from, said, (link.number, alone), now, patience);
        }
        Some(alone)
    }

    /// Returns whether the component has exactly one stream.
    pub(crate) fn is_linked(&self) -> bool {
        self.links.iter().filter(|link| link.ready).count() == 1
    }

    pub(crate) fn begin(&mut self, jid: &FullJid, phone: usize, resumes: bool) -> u64 {
        self.end(jid, true);
        let number = self.number();
        self.shared.note(format_args!("{jid} begins session {number}"));
        let session = Session {
            phone,
            number,
            online: true,
            resumes,
            lost: None,
            greeted: false,
            down: VecDeque::new(),
            up: Vec::new(),
            last_at: [Duration::ZERO; 2],
        };
        self.sessions.insert(jid.clone(), session);
        number
    }

    /// Resumes a session that hibernates. Returns the stanzas of the phone that the server has not got yet.
    pub(crate) fn resume(&mut self, jid: &FullJid) -> Option<Vec<Up>> {
        let session = self.sessions.get_mut(jid).filter(|session| !session.online && session.resumes)?;
        self.shared.note(format_args!("{jid} resumes"));
        session.online = true;
        session.down.retain(|down| !down.received);
        let again = session.down.iter().map(|down| Effect::Bring(jid.clone(), session.number, down.number));
        self.effects.extend(again);
        Some(std::mem::take(&mut session.up))
    }

    /// Breaks the connection of a session. Returns the number of the break if the session hibernates.
    pub(crate) fn lose(&mut self, jid: &FullJid) -> Option<u64> {
        let number = self.number();
        let session = self.sessions.get_mut(jid)?;
        self.shared.note(format_args!("{jid} loses its connection"));
        (session.online, session.lost) = (false, Some(number));
        if !session.resumes {
            self.end(jid, false);
            return None;
        }
        Some(number)
    }

    /// Ends a session. If it could be resumed and `bounces` says so, requests that it has not acknowledged bounce.
    pub(crate) fn end(&mut self, jid: &FullJid, bounces: bool) {
        let Some(session) = self.sessions.remove(jid) else { return };
        self.shared.note(format_args!("{jid} ends session {}", session.number));
        let condition = match self.shared.plan.manner {
            Manner::Prosody => "recipient-unavailable",
            Manner::Ejabberd => "service-unavailable",
        };
        if bounces && session.resumes {
            for down in &session.down {
                let asks = matches!(attribute(&down.xml, 0, "type").as_deref(), Some("get" | "set"));
                if let (true, Some(id)) = (asks, attribute(&down.xml, 0, "id")) {
                    self.tell(&error(jid.as_str(), &id, condition));
                }
            }
        }
        if session.greeted {
            self.tell(&format!("<presence type='unavailable' from='{jid}' to='{COMPONENT}'/>"));
        }
    }

    /// Brings a stanza to a phone, if its session has a connection. Returns the phone and the stanza.
    pub(crate) fn arrive(&mut self, jid: &FullJid, session: u64, number: u64) -> Option<(usize, String)> {
        let one = self.sessions.get_mut(jid).filter(|one| one.number == session && one.online)?;
        let down = one.down.iter_mut().find(|down| down.number == number && !down.received)?;
        down.received = true;
        let xml = down.xml.clone();
        self.shared.note(format_args!("{jid} < {number}"));
        Some((one.phone, xml))
    }

    /// Takes the acknowledgement of a stanza by a phone.
    pub(crate) fn acknowledge(&mut self, jid: &FullJid, session: u64, number: u64) {
        let one = self.sessions.get_mut(jid).filter(|one| one.number == session && one.online);
        if let Some(one) = one {
            one.down.retain(|down| down.number != number);
        }
    }
}
