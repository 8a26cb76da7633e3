//! The stream against a server in memory, by a clock that jumps.

use std::fmt;

use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    sync::Mutex,
    task::JoinHandle,
};

use super::*;

const PIPE_BYTES: usize = 64 * 1024;
const OPENING: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                       xmlns:stream='http://etherx.jabber.org/streams' id='s1' from='notify.example.com'>";
/// SHA-1 of `s1secret`.
const HANDSHAKE: &str = "3d1121b21f6287dc58010ebe9a95fa84ee2483d4";

/// Hands out the connections that the test has prepared, and then no more.
struct Ways(Mutex<mpsc::Receiver<DuplexStream>>);

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl Connect for Ways {
    type Connection = DuplexStream;

    async fn connect(&self) -> Result<DuplexStream, super::super::connect::ConnectError> {
        match self.0.lock().await.recv().await {
            Some(way) => Ok(way),
            None => pending().await,
        }
    }
}

/// The relay's side of the channels, and the server's ends of connections.
struct Bench {
    ways: mpsc::Sender<DuplexStream>,
    events: mpsc::Receiver<Event>,
    pushes: mpsc::Sender<Outgoing>,
    replies: mpsc::Sender<String>,
    connected: watch::Receiver<bool>,
    running: JoinHandle<()>,
}

impl Bench {
    fn start() -> Self {
        Self::start_behind(Fence::open())
    }

    fn start_behind(fence: Fence) -> Self {
        let (ways, taken) = mpsc::channel(4);
        let (told, events) = mpsc::channel(16);
        let (pushes, to_push) = mpsc::channel(16);
        let (replies, to_reply) = mpsc::channel(16);
        let (up, connected) = watch::channel(false);
        let account = ComponentAccount {
            component: "notify.example.com".parse().unwrap(),
            secret: watch::channel("secret".to_owned()).1,
            server: Ways(Mutex::new(taken)),
        };
        let component =
            Component { account, events: told, pushes: to_push, replies: to_reply, connected: up, fence };
        Self { ways, events, pushes, replies, connected, running: tokio::spawn(component.run()) }
    }

    /// Returns the server's end of the next connection.
    async fn server(&self) -> Server {
        let (ours, theirs) = duplex(PIPE_BYTES);
        self.ways.send(theirs).await.unwrap();
        Server(ours)
    }

    /// Returns the server's end of the next stream, after its handshake.
    async fn stream(&mut self) -> (Server, StreamNumber) {
        let mut server = self.server().await;
        server.hears("<stream:stream").await;
        server.says(OPENING).await;
        server.hears("</handshake>").await;
        server.says("<handshake/>").await;
        let Some(Event::Online(number)) = self.events.recv().await else { panic!("no stream") };
        (server, number)
    }
}

struct Server(DuplexStream);

impl Server {
    async fn says(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until this text has come, and returns all that was read.
    async fn hears(&mut self, text: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(text) {
            let mut bytes = vec![0; PIPE_BYTES];
            let count = self.0.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the stream ended before {text}: {heard}");
            heard += std::str::from_utf8(&bytes[..count]).unwrap();
        }
        heard
    }
}

fn push(stream: StreamNumber, id: &str) -> Outgoing {
    Outgoing { stream, xml: format!("<iq id='{id}'/>") }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_announced_once_the_server_has_taken_the_handshake() {
    let mut bench = Bench::start();
    let mut server = bench.server().await;
    assert!(server.hears("<stream:stream").await.contains("to='notify.example.com'"));
    server.says(OPENING).await;
    assert!(server.hears("</handshake>").await.contains(HANDSHAKE));
    assert!(!*bench.connected.borrow());
    server.says("<handshake/>").await;
    assert!(matches!(bench.events.recv().await, Some(Event::Online(StreamNumber(1)))));
    assert!(bench.connected.wait_for(|up| *up).await.is_ok());
    server.says("</stream:stream>").await;
    assert!(matches!(bench.events.recv().await, Some(Event::Offline)));
    assert!(!*bench.connected.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_the_handshake_is_asked_again() {
    let mut bench = Bench::start();
    let mut server = bench.server().await;
    server.hears("<stream:stream").await;
    server.says(OPENING).await;
    server.hears("</handshake>").await;
    server
        .says("<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
        .await;
    let (_server, number) = bench.stream().await;
    assert_eq!(number, StreamNumber(1), "the first that was up");
}

#[tokio::test(start_paused = true)]
async fn a_push_that_was_meant_for_an_earlier_stream_does_not_go_out_on_the_next() {
    let mut bench = Bench::start();
    let (server, first) = bench.stream().await;
    drop(server);
    assert!(matches!(bench.events.recv().await, Some(Event::Offline)));
    let (mut server, second) = bench.stream().await;
    assert_ne!(first, second);
    bench.pushes.send(push(first, "old")).await.unwrap();
    bench.pushes.send(push(second, "new")).await.unwrap();
    let heard = server.hears("new").await;
    assert!(!heard.contains("old"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_pinged_and_then_given_up() {
    let mut bench = Bench::start();
    let begun = Instant::now();
    let (mut server, _) = bench.stream().await;
    assert!(server.hears("urn:xmpp:ping").await.contains("id='ping'"));
    assert_eq!(begun.elapsed(), PING_AFTER);
    assert!(matches!(bench.events.recv().await, Some(Event::Offline)));
    // The end of the stream is awaited, too.
    let silence = begun.elapsed();
    assert!((SILENCE_MAX..SILENCE_MAX + 2 * ABANDON_TIMEOUT).contains(&silence), "{silence:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_standstill_of_the_process_what_came_meanwhile_counts() {
    let mut bench = Bench::start();
    let (mut server, _) = bench.stream().await;
    for standstill in [0, 60, 60] {
        server.hears("urn:xmpp:ping").await;
        tokio::time::advance(Duration::from_secs(standstill)).await;
        server.says("<iq type='result' id='ping' from='notify.example.com' to='notify.example.com'/>").await;
    }
    server.hears("urn:xmpp:ping").await;
    assert!(*bench.connected.borrow());
    let given_up = async { while !matches!(bench.events.recv().await, Some(Event::Offline)) {} };
    timeout(2 * SILENCE_MAX, given_up).await.expect("a silent server is given up still");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_pings_keeps_its_stream() {
    let mut bench = Bench::start();
    let (mut server, _) = bench.stream().await;
    for _ in 0..10 {
        server.hears("urn:xmpp:ping").await;
        server.says("<iq type='result' id='ping' from='notify.example.com' to='notify.example.com'/>").await;
    }
    assert!(*bench.connected.borrow());
    while let Ok(event) = bench.events.try_recv() {
        assert!(matches!(event, Event::Stanza(..)), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_writes_what_was_handed_over_and_closes_the_stream() {
    let mut bench = Bench::start();
    let (mut server, number) = bench.stream().await;
    bench.pushes.send(push(number, "last")).await.unwrap();
    bench.replies.send("<iq id='reply'/>".into()).await.unwrap();
    drop((bench.pushes, bench.replies));
    let heard = server.hears(STREAM_FOOTER).await;
    assert!(heard.contains("id='last'") && heard.contains("id='reply'"), "{heard}");
    server.says(STREAM_FOOTER).await;
    bench.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_stream_waits_for_no_server() {
    let bench = Bench::start();
    drop((bench.pushes, bench.replies));
    bench.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_while_the_lease_has_lapsed_and_goes_on_when_it_is_renewed() {
    let (lease, until) = watch::channel(Some(Duration::from_secs(5)));
    let mut bench = Bench::start_behind(Fence::until(until));
    let (mut server, number) = bench.stream().await;
    sleep(Duration::from_secs(6)).await;
    bench.pushes.send(push(number, "waits")).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(3), server.hears("waits")).await;
    assert!(heard.is_err(), "{heard:?}");
    lease.send_replace(Some(Duration::from_secs(60)));
    server.hears("waits").await;
    bench.replies.send("<iq id='reply'/>".into()).await.unwrap();
    server.hears("reply").await;
}
