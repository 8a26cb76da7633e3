//! Application servers that use little CPU: they write HTTP/1.1 themselves, over persistent connections.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::journal::{BODY_BYTES, Journal, TAG_BYTES};

/// Delay of a sender after a refusal.
const REFUSED_DELAY: Duration = Duration::from_millis(10);
/// Longest wait for a push to arrive. The journal notes a later push as refused.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);
const CREATED: u16 = 201;

/// A request that lacks only the first bytes of its body.
#[derive(Clone)]
pub struct Request {
    authority: String,
    bytes: Vec<u8>,
}

impl Request {
    /// Returns a request to this endpoint.
    ///
    /// # Errors
    /// The endpoint is not an `http:` URL.
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        let rest = endpoint.strip_prefix("http://").with_context(|| format!("not http: {endpoint}"))?;
        let (authority, path) = rest.split_once('/').with_context(|| format!("no path: {endpoint}"))?;
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nTTL: 3600\r\nContent-Encoding: aes128gcm\r\n\
             Content-Length: {BODY_BYTES}\r\n\r\n"
        );
        // The body looks encrypted, so that compression gains nothing.
        let body = (0..BODY_BYTES).map(|place| (place * place * 31 + place * 7 + 13).to_le_bytes()[1]);
        Ok(Self {
            authority: authority.to_owned(),
            bytes: head.into_bytes().into_iter().chain(body).collect(),
        })
    }

    fn tag(&mut self) -> &mut [u8] {
        let body = self.bytes.len() - BODY_BYTES;
        &mut self.bytes[body..body + TAG_BYTES]
    }
}

/// Posts this number of pushes, to each endpoint in turn. Returns when all are accepted.
///
/// # Errors
/// A push was not accepted.
pub async fn post(
    requests: &[Request],
    count: usize,
    senders: usize,
    waits_for_arrival: bool,
    journal: &Rc<Journal>,
) -> anyhow::Result<()> {
    let left = Rc::new(Cell::new(count));
    let mut posting = JoinSet::new();
    for _ in 0..senders {
        let (requests, journal, left) = (requests.to_vec(), Rc::clone(journal), Rc::clone(&left));
        posting.spawn_local(Sender { requests, waits_for_arrival, journal, left }.run());
    }
    while let Some(ended) = posting.join_next().await {
        ended??;
    }
    let complaint = journal.complaint().unwrap_or_default();
    ensure!(complaint.is_empty(), "a push was not accepted: {complaint}");
    Ok(())
}

/// One sender of many.
pub struct Sender {
    /// The requests, which all senders take in turn. All go to one server.
    pub requests: Vec<Request>,
    /// True if the next push waits for the arrival of the last.
    pub waits_for_arrival: bool,
    /// The journal that each push is noted in.
    pub journal: Rc<Journal>,
    /// Pushes that all senders together may still post.
    pub left: Rc<Cell<usize>>,
}

impl Sender {
    /// Posts one push after the other until none is left.
    ///
    /// # Errors
    /// The push server does not take connections.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let authority = self.requests[0].authority.clone();
        let arrival = self.waits_for_arrival.then(|| Rc::new(Notify::new()));
        let mut connection = Connection::open(&authority).await?;
        while let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            let (number, tag) = self.journal.posted(arrival.clone());
            let place = number % self.requests.len();
            let request = &mut self.requests[place];
            request.tag().copy_from_slice(&tag);
            match connection.exchange(&request.bytes).await {
                Ok(CREATED) => {
                    self.journal.accepted(number);
                    if let Some(arrival) = &arrival
                        && timeout(ARRIVAL_DEADLINE, arrival.notified()).await.is_err()
                    {
                        self.journal.refused(number, "a push did not arrive");
                    }
                }
                Ok(status) => {
                    self.journal.refused(number, &format!("HTTP status {status}"));
                    sleep(REFUSED_DELAY).await;
                }
                Err(error) => {
                    self.journal.refused(number, &format!("{error:#}"));
                    sleep(REFUSED_DELAY).await;
                    connection = Connection::open(&authority).await?;
                }
            }
        }
        Ok(())
    }
}

/// A sender, one of many, that posts at planned moments, whatever happened to earlier pushes.
pub struct SteadySender {
    /// The requests, which all senders take in turn. All go to one server.
    pub requests: Vec<Request>,
    /// The journal that each push is noted in.
    pub journal: Rc<Journal>,
    /// Number of moments that all senders together have taken.
    pub taken: Rc<Cell<usize>>,
    /// The first moment.
    pub begin: Instant,
    /// Time from one moment to the next.
    pub interval: Duration,
    /// Zero once no more moments may be taken.
    pub left: Rc<Cell<usize>>,
}

impl SteadySender {
    /// Posts at each moment that it takes. If all senders are busy, it posts late, and the journal counts the delay.
    ///
    /// # Errors
    /// The push server does not take connections.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let authority = self.requests[0].authority.clone();
        let mut connection = Connection::open(&authority).await?;
        loop {
            let place = self.taken.replace(self.taken.get() + 1);
            let planned = self.begin + self.interval.mul_f64(place as f64);
            sleep_until(planned.into()).await;
            if self.left.get() == 0 {
                return Ok(());
            }
            let (number, tag) = self.journal.planned(planned, None);
            let place = number % self.requests.len();
            let request = &mut self.requests[place];
            request.tag().copy_from_slice(&tag);
            match connection.exchange(&request.bytes).await {
                Ok(CREATED) => self.journal.accepted(number),
                Ok(status) => self.journal.refused(number, &format!("HTTP status {status}")),
                Err(error) => {
                    self.journal.refused(number, &format!("{error:#}"));
                    connection = Connection::open(&authority).await?;
                }
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    async fn open(authority: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(authority).await.with_context(|| format!("connect to {authority}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends a request, reads the whole answer, and returns its status.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        loop {
            if let Some((status, length)) = response(&self.unread)? {
                self.unread.drain(..length);
                return Ok(status);
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                bail!("the connection was closed");
            }
        }
    }
}

/// Returns the status of the response in `bytes` and the response's length; `None` until it is complete.
fn response(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    const BLANK_LINE: &[u8] = b"\r\n\r\n";
    let Some(end) = bytes.windows(BLANK_LINE.len()).position(|window| window == BLANK_LINE) else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let body = lengths.next().context("an answer without Content-Length")??;
    let length = end + BLANK_LINE.len() + body;
    Ok((bytes.len() >= length).then_some((status, length)))
}
