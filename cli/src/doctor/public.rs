//! The public URL, as a sender sees it: checks the name, the connection and the certificate, and whether this server
//! answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use push::{Epoch, RegistrationId, Secrets};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use super::finding::Finding;
use super::tls::{self, Tls};
use crate::fetch::{self, Answer};

const PATIENCE: Duration = Duration::from_secs(10);
/// Least remaining lifetime of a certificate, in days. Clients renew certificates when they have 30 days left, or a
/// third of their lifetime.
const DAYS_LEFT_MIN: i64 = 14;
/// Most deviation of the clock. Senders sign for 24 hours, and VAPID has a few minutes of leeway.
const CLOCK_OFF_MAX: TimeDelta = TimeDelta::minutes(2);
/// Bytes of a token, which has 55 characters in base64url.
const TOKEN_BYTES: usize = 41;
const MATRIX_PATH: &str = "/_matrix/push/v1/notify";
const PROXY_MEND: &str = "let the proxy pass paths on as they come: in nginx, `location / { proxy_pass http://127.0.0.1:8080; }` \
    without a path behind the port, and `merge_slashes off`";

/// The server that a sender reaches at the public URL.
struct Site {
    url: Url,
    host: String,
    address: SocketAddr,
    tls: Option<Tls>,
}

/// Runs all checks of the public URL. `secrets` prove that this server answers there.
pub(super) async fn check(url: &Url, secrets: Option<&Secrets>, now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let site = match Site::find(url).await {
        Ok(site) => site,
        Err(finding) => return vec![finding],
    };
    findings.push(Finding::ok("dns", format!("{} is at {}", site.host, site.address.ip())));
    match site.certificate(now).await {
        Ok(finding) => findings.extend(finding),
        Err(finding) => {
            findings.push(finding);
            return findings;
        }
    }
    let Some(secrets) = secrets else {
        let what = "no secret is known here, so nothing proves which server answers at the public URL";
        findings.push(Finding::skipped("public_url", what));
        return findings;
    };
    match Nonces::new(secrets, now) {
        Ok(nonces) => findings.extend(site.answers(&nonces, now).await),
        Err(error) => findings.push(Finding::skipped("public_url", error.to_string())),
    }
    findings
}

/// Fresh random tokens: one that only this server accepts, and one that it refuses.
struct Nonces {
    signed: String,
    unsigned: String,
}

impl Nonces {
    fn new(secrets: &Secrets, now: DateTime<Utc>) -> anyhow::Result<Self> {
        let (mut id, mut unsigned) = ([0; RegistrationId::BYTES], [0; TOKEN_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut unsigned)?;
        let epoch = Epoch::from_seconds(u64::try_from(now.timestamp())?);
        let signed = secrets.sign(RegistrationId::from_bytes(id), epoch).as_str().to_owned();
        Ok(Self { signed, unsigned: URL_SAFE_NO_PAD.encode(unsigned) })
    }
}

impl Site {
    async fn find(url: &Url) -> Result<Self, Finding> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let found = timeout(PATIENCE, lookup_host((host.as_str(), port))).await;
        let address = found.ok().and_then(Result::ok).and_then(|mut found| found.next());
        let address = address.ok_or_else(|| {
            Finding::error(
                "dns",
                format!("{host}, of UPWIRE_PUBLIC_URL, has no address"),
                "no sender finds the server",
                format!("make an A or AAAA record for it, and see it by: dig +short {host}"),
            )
        })?;
        let tls = (url.scheme() == "https").then(Tls::new).transpose();
        let tls = tls.map_err(|error| Finding::skipped("tls", error.to_string()))?;
        Ok(Self { url: url.clone(), host, address, tls })
    }

    async fn socket(&self) -> anyhow::Result<TcpStream> {
        Ok(timeout(PATIENCE, TcpStream::connect(self.address)).await.context("no answer")??)
    }

    async fn certificate(&self, now: DateTime<Utc>) -> Result<Option<Finding>, Finding> {
        let why = "no sender reaches the server";
        let socket = self.socket().await.map_err(|error| {
            let what = format!("nothing answers at {}: {error:#}", self.address);
            Finding::error(
                "public_url",
                what,
                why,
                "start the proxy or upwire there, and open the port in the firewall",
            )
        })?;
        let Some(tls) = &self.tls else {
            if self.address.ip().is_loopback() {
                return Ok(None);
            }
            let why = "endpoints and pushes go over the network in the clear, and many senders refuse such endpoints";
            let mend =
                "put TLS in front, or set UPWIRE_TLS_CERTIFICATE, and write https:// in UPWIRE_PUBLIC_URL";
            return Ok(Some(Finding::warning("tls", "UPWIRE_PUBLIC_URL begins with http://", why, mend)));
        };
        let connecting =
            async { timeout(PATIENCE, tls.connect(socket, &self.host)).await.context("no answer")? };
        let stream = connecting.await.map_err(|error: anyhow::Error| {
            let (what, mend) = tls::problem(&error);
            let shown = format!(
                "see what the server shows: openssl s_client -connect {0}:{1} -servername {0}; give it a certificate \
                 for that name with its whole chain (fullchain.pem)",
                self.host,
                self.address.port()
            );
            Finding::error("tls", what, why, mend.map_or(shown, str::to_owned))
        })?;
        let Some(ends_at) = tls.ends_at(&stream, &self.host, now) else {
            return Ok(Some(Finding::ok("tls", "the certificate is trusted")));
        };
        let days = (ends_at - now).num_days();
        let what = format!("the certificate ends in {days} days, at {}", ends_at.format("%F"));
        Ok(Some(if days < DAYS_LEFT_MIN {
            let mend = "have it renewed: certbot renew, and see why its timer did not (systemctl status certbot.timer)";
            Finding::warning("tls", what, "senders refuse the server from then on", mend)
        } else {
            Finding::ok("tls", what)
        }))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let host = match self.url.port() {
            Some(port) => format!("{}:{port}", self.url.host_str().unwrap_or_default()),
            None => self.url.host_str().unwrap_or_default().to_owned(),
        };
        let request = Request::get(path).header("host", host).header("connection", "close");
        let request = request.body(Body::empty())?;
        let asking = async {
            let socket = self.socket().await?;
            match &self.tls {
                Some(tls) => fetch::ask(tls.connect(socket, &self.host).await?, request).await,
                None => fetch::ask(socket, request).await,
            }
        };
        timeout(PATIENCE, asking).await.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?
    }

    /// Returns whether the server speaks TLS, though the URL begins with `http://`.
    async fn speaks_tls_unsaid(&self) -> bool {
        if self.tls.is_some() {
            return false;
        }
        let asking = async { anyhow::Ok(Tls::new()?.is_spoken(self.socket().await?, &self.host).await) };
        matches!(timeout(PATIENCE, asking).await, Ok(Ok(true)))
    }

    /// Returns the answer to a GET of this path, if it is a push resource. The error says what is there instead.
    async fn shows_endpoint(&self, path: &str) -> Result<Answer, String> {
        match self.get(path).await {
            Ok(answer) if answer.status == 200 && answer.text().contains("unifiedpush") => Ok(answer),
            Ok(answer) => Err(format!("{} is answered {}", shortened(path), answer.status)),
            Err(error) => Err(format!("{} is not answered: {error:#}", shortened(path))),
        }
    }

    async fn answers(&self, nonces: &Nonces, now: DateTime<Utc>) -> Vec<Finding> {
        let base = self.url.path().trim_end_matches('/');
        let ours = match self.shows_endpoint(&format!("{base}/push/{}", nonces.signed)).await {
            Ok(answer) => answer,
            Err(_) if self.speaks_tls_unsaid().await => {
                let what = "UPWIRE_PUBLIC_URL begins with http://, and what answers there speaks TLS";
                let mend = "write https:// in UPWIRE_PUBLIC_URL, or the port that does not speak TLS";
                return vec![Finding::error("tls", what, "no sender reaches the server", mend)];
            }
            Err(what) => {
                let what =
                    format!("another server answers at {}, or one with other secrets: {what}", self.url);
                let mend = format!("let {} lead to UPWIRE_LISTEN of this server. {PROXY_MEND}", self.url);
                return vec![Finding::error("public_url", what, "senders do not reach this server", mend)];
            }
        };
        let mut findings =
            vec![match self.shows_endpoint(&format!("{base}/push/{}", nonces.unsigned)).await {
                Ok(_) => {
                    let what = format!("what answers at {} takes any token for an endpoint", self.url);
                    let mend = format!("let {} lead to UPWIRE_LISTEN of this server", self.url);
                    Finding::error("public_url", what, "it is not this server", mend)
                }
                Err(_) => Finding::ok("public_url", format!("{} reaches this server", self.url)),
            }];
        findings.push(match self.shows_endpoint(&format!("{base}//push/{}", nonces.signed)).await {
            Ok(_) => Finding::ok("slashes", "a path with two slashes reaches this server"),
            Err(what) => {
                Finding::warning("slashes", what, "senders that write two slashes lose pushes", PROXY_MEND)
            }
        });
        findings.push(match self.get(MATRIX_PATH).await {
            Ok(answer) if answer.status == 200 && answer.text().contains("matrix") => {
                Finding::ok("matrix", "the Matrix gateway is reached")
            }
            other => {
                let seen = other.map_or_else(|error| error.to_string(), |answer| answer.status.to_string());
                let what = format!("{MATRIX_PATH} does not reach this server: {seen}");
                let why =
                    "Matrix clients on the phone go through a public gateway instead, which may drop pushes";
                Finding::warning(
                    "matrix",
                    what,
                    why,
                    "pass /_matrix/push/ of that host on to UPWIRE_LISTEN, too",
                )
            }
        });
        findings.push(clock(&ours, now));
        findings
    }
}

/// Compares the clock with the `Date` of the answer.
fn clock(answer: &Answer, now: DateTime<Utc>) -> Finding {
    let date = answer.headers.get("date").and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) else {
        return Finding::skipped("clock", "the answer has no date");
    };
    let off = now - theirs.to_utc();
    if off.abs() <= CLOCK_OFF_MAX {
        return Finding::ok("clock", "this machine and what answers at the public URL agree");
    }
    let what = format!("this machine's clock is {} s off what answers at the public URL", off.num_seconds());
    let why = "registrations end too early or too late, and signatures of senders are refused";
    Finding::error("clock", what, why, "see which one is wrong: timedatectl; then: timedatectl set-ntp true")
}

/// Returns the path without the token.
fn shortened(path: &str) -> String {
    path.rsplit_once('/').map_or_else(|| path.to_owned(), |(start, _)| format!("{start}/…"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::finding::Level;
    use super::*;

    /// Opens a port that answers the first bytes of each connection with these bytes.
    async fn answering(bytes: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.read(&mut [0; 1024]).await;
                let _ = client.write_all(bytes).await;
            }
        });
        port
    }

    async fn found(scheme: &str, port: u16) -> Vec<(&'static str, Level, String)> {
        let url = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
        let secrets = Secrets::parse("a-secret-of-more-than-32-bytes-0123456789").unwrap();
        let findings = check(&url, Some(&secrets), DateTime::UNIX_EPOCH).await;
        findings.into_iter().skip(1).map(|found| (found.check, found.level, found.what)).collect()
    }

    #[tokio::test]
    async fn a_url_whose_scheme_is_not_what_is_spoken_there_is_told_so() {
        let plain =
            answering(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        // A fatal TLS alert, `handshake_failure`.
        let secured = answering(&[21, 3, 3, 0, 2, 2, 40]).await;
        let [(check, level, what)] = found("https", plain).await.try_into().unwrap();
        assert_eq!((check, level), ("tls", Level::Error));
        assert!(what.contains("begins with https://") && what.contains("does not speak TLS"), "{what}");
        let [(check, level, what)] = found("http", secured).await.try_into().unwrap();
        assert_eq!((check, level), ("tls", Level::Error));
        assert!(what.contains("begins with http://") && what.contains("speaks TLS"), "{what}");
        let [(check, level, what)] = found("http", plain).await.try_into().unwrap();
        assert_eq!((check, level), ("public_url", Level::Error));
        assert!(what.contains("is answered 400"), "{what}");
    }
}
