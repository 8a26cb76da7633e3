//! The distributor's output: one line for each event, for people or as JSON.

use std::fmt::Write as _;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use tokio::io::{AsyncWriteExt, Stdout, stdout};

/// Most characters of a text that are shown to people. JSON has all of it.
const TEXT_SHOWN_MAX_CHARS: usize = 1000;
/// Most bytes of a binary body that are shown to people. JSON has all of it.
const HEX_SHOWN_MAX_BYTES: usize = 64;

/// An event. Its JSON is `{"event":"push",…}`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event<'a> {
    /// The distributor has logged in. `resumed`: the old session goes on, and nothing is lost.
    Connected { jid: &'a str, resumed: bool },
    /// The connection was lost. The distributor reconnects.
    Disconnected,
    /// The registration has an endpoint that was not printed before.
    Endpoint {
        endpoint: &'a str,
        #[serde(serialize_with = "xep_0082")]
        expiration: DateTime<Utc>,
        application: &'a str,
        instance: &'a str,
    },
    /// The endpoint was renewed.
    Renewed {
        endpoint: &'a str,
        #[serde(serialize_with = "xep_0082")]
        expiration: DateTime<Utc>,
    },
    /// A push arrived.
    Push {
        id: &'a str,
        application: &'a str,
        instance: &'a str,
        length: usize,
        #[serde(serialize_with = "base64")]
        body: &'a [u8],
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        answer: &'a str,
    },
    /// Something failed. `retry` is the time to the next attempt, in seconds.
    Error {
        condition: &'a str,
        text: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        hint: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry: Option<u64>,
    },
}

fn xep_0082<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn base64<S: Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(body))
}

impl Event<'_> {
    fn json(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|error| format!("{{\"event\":\"error\",\"text\":\"{error}\"}}"))
    }

    fn human(&self) -> String {
        match self {
            Self::Connected { jid, resumed: false } => format!("connected as {jid}"),
            Self::Connected { jid, resumed: true } => format!("connected again as {jid}, nothing lost"),
            Self::Disconnected => "disconnected; connecting again".into(),
            Self::Endpoint { endpoint, expiration, .. } => {
                format!(
                    "endpoint {endpoint}\n  until {}",
                    expiration.to_rfc3339_opts(SecondsFormat::Secs, true)
                )
            }
            Self::Renewed { expiration, .. } => {
                format!("renewed until {}", expiration.to_rfc3339_opts(SecondsFormat::Secs, true))
            }
            Self::Push { body, answer, .. } => {
                let answered = match *answer {
                    "result" => String::new(),
                    "none" => ", not answered".into(),
                    other => format!(", answered {other}"),
                };
                let unit = if body.len() == 1 { "byte" } else { "bytes" };
                format!("push, {} {unit}{answered}: {}", body.len(), shown(body))
            }
            Self::Error { text, hint, retry, .. } => {
                let mut line = format!("error: {text}");
                if !hint.is_empty() {
                    let _ = write!(line, "; {hint}");
                }
                if let Some(seconds) = retry {
                    let _ = write!(line, " (next try in {seconds} s)");
                }
                line
            }
        }
    }
}

/// Returns a body for people: one line of text if it is text, else hexadecimal. A long body is cut.
fn shown(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).ok();
    // Control characters could steer a terminal, so a text with any is shown in hexadecimal.
    let Some(text) =
        text.filter(|text| text.chars().all(|c| matches!(c, '\n' | '\r' | '\t') || !c.is_control()))
    else {
        let mut hex = String::from("hex ");
        for byte in &body[..body.len().min(HEX_SHOWN_MAX_BYTES)] {
            let _ = write!(hex, "{byte:02x}");
        }
        return if body.len() > HEX_SHOWN_MAX_BYTES { hex + "…" } else { hex };
    };
    let mut line = String::new();
    for c in text.chars().take(TEXT_SHOWN_MAX_CHARS) {
        match c {
            '\n' | '\r' | '\t' => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    if text.chars().nth(TEXT_SHOWN_MAX_CHARS).is_some() { line + "…" } else { line }
}

/// The standard output, flushed after each event.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    stdout: Stdout,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, stdout: stdout() }
    }

    /// Prints an event. An error means that nobody reads the output any more.
    pub(super) async fn print(&mut self, event: &Event<'_>) -> io::Result<()> {
        let line = if self.json { event.json() } else { event.human() } + "\n";
        self.stdout.write_all(line.as_bytes()).await?;
        self.stdout.flush().await
    }

    /// Prints the final error for programs. People read it on stderr.
    pub(super) async fn print_last(&mut self, event: &Event<'_>) -> io::Result<()> {
        if self.json { self.print(event).await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(body: &[u8]) -> Event<'_> {
        Event::Push {
            id: "1",
            application: "app",
            instance: "",
            length: body.len(),
            body,
            text: std::str::from_utf8(body).ok(),
            answer: "result",
        }
    }

    #[test]
    fn json_has_the_body_whole_and_its_text_if_it_is_text() {
        assert_eq!(
            push(b"hi").json(),
            r#"{"event":"push","id":"1","application":"app","instance":"","length":2,"body":"aGk=","text":"hi","answer":"result"}"#
        );
        assert_eq!(
            push(&[0xff]).json(),
            r#"{"event":"push","id":"1","application":"app","instance":"","length":1,"body":"/w==","answer":"result"}"#
        );
        let endpoint = Event::Endpoint {
            endpoint: "https://push.example.com/push/x",
            expiration: "2026-12-05T12:54:54Z".parse().unwrap(),
            application: "app",
            instance: "",
        };
        assert_eq!(
            endpoint.json(),
            r#"{"event":"endpoint","endpoint":"https://push.example.com/push/x","expiration":"2026-12-05T12:54:54Z","application":"app","instance":""}"#
        );
        assert_eq!(Event::Disconnected.json(), r#"{"event":"disconnected"}"#);
    }

    #[test]
    fn a_person_sees_text_or_hex_never_control_characters_and_never_too_much() {
        assert_eq!(push(b"hi\nthere").human(), r"push, 8 bytes: hi\nthere");
        assert_eq!(push("grüß".as_bytes()).human(), "push, 6 bytes: grüß");
        assert_eq!(push(&[0xff]).human(), "push, 1 byte: hex ff");
        assert_eq!(push(b"\x1b[2J").human(), "push, 4 bytes: hex 1b5b324a");
        assert!(push(&[b'a'; 4096]).human().len() < TEXT_SHOWN_MAX_CHARS + 40);
        assert!(push(&[0; 4096]).human().len() < 2 * HEX_SHOWN_MAX_BYTES + 40);
    }
}
