//! The time by AWS. Each answer has a `Date`, while the machine's own clock may be wrong.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::date_time::Format;
use aws_types::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use push::{Clock, Reading};

use crate::config::relay_http_client;

/// Largest difference from the time of AWS at which the machine's clock is trusted. AWS accepts no signature that is
/// older than five minutes (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html>).
pub const AGREEMENT: TimeDelta = TimeDelta::minutes(5);
/// Longest duration of a call whose `Date` is used. During a longer one, the machine was suspended.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The machine's clock, and the time of AWS. Clones share both.
#[derive(Clone)]
pub struct ServiceTime(Arc<Shared>);

struct Shared {
    wall: Clock,
    /// The machine's uptime, which nobody can set.
    uptime: Box<dyn Fn() -> Duration + Send + Sync>,
    told: Mutex<Option<Told>>,
}

/// The time that the last answer gave, and the uptime at its arrival.
#[derive(Clone, Copy)]
struct Told {
    date: DateTime<Utc>,
    uptime: Duration,
}

impl ServiceTime {
    /// Makes a time that trusts the machine's clock until AWS has answered.
    pub fn new(wall: Clock, uptime: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { wall, uptime: Box::new(uptime), told: Mutex::new(None) }))
    }

    /// Returns a clock that goes by the machine's, or by the time of AWS if they differ by more than [`AGREEMENT`].
    #[must_use]
    pub fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::guarded(move || time.read())
    }

    /// Returns a configuration whose clients note the `Date` of each answer, and sign their calls with the time by AWS.
    #[must_use]
    pub fn heard_by(&self, config: SdkConfig) -> SdkConfig {
        let inner = config.http_client().unwrap_or_else(relay_http_client);
        let listening = SharedHttpClient::new(Listening { inner, time: self.clone() });
        config.into_builder().http_client(listening).time_source(self.clone()).build()
    }

    fn read(&self) -> Reading {
        let wall = self.0.wall.now();
        let Some(told) = *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Reading::certain(wall);
        };
        let passed = TimeDelta::from_std(self.uptime().saturating_sub(told.uptime));
        let now = passed.ok().and_then(|passed| told.date.checked_add_signed(passed));
        match now {
            Some(now) if (wall - now).abs() > AGREEMENT => Reading { now, wall },
            _ => Reading::certain(wall),
        }
    }

    fn hear(&self, date: &str, asked_at: Duration) {
        let uptime = self.uptime();
        let date = aws_smithy_types::DateTime::from_str(date, Format::HttpDate).ok();
        let date = date.and_then(|date| DateTime::from_timestamp(date.secs(), 0));
        if let Some(date) = date.filter(|_| uptime.saturating_sub(asked_at) <= ANSWER_MAX) {
            *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Told { date, uptime });
        }
    }

    fn uptime(&self) -> Duration {
        (self.0.uptime)()
    }
}

impl fmt::Debug for ServiceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceTime")
    }
}

impl TimeSource for ServiceTime {
    fn now(&self) -> SystemTime {
        self.read().now.into()
    }
}

/// An HTTP client that notes the `Date` of each answer.
#[derive(Debug)]
struct Listening {
    inner: SharedHttpClient,
    time: ServiceTime,
}

impl HttpClient for Listening {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(ListeningConnector { inner, time: self.time.clone() })
    }
}

#[derive(Debug)]
struct ListeningConnector {
    inner: SharedHttpConnector,
    time: ServiceTime,
}

impl HttpConnector for ListeningConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (time, asked_at) = (self.time.clone(), self.time.uptime());
        let answer = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?;
            // A 5xx may come from a proxy, whose clock may be wrong.
            let date = answer.headers().get("date").filter(|_| !answer.status().is_server_error());
            if let Some(date) = date {
                time.hear(date, asked_at);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::config::tests::ingress;

    const DAY: i64 = 86_400;

    /// The machine's uptime in seconds, and the error of its clock in seconds.
    #[derive(Default)]
    struct Machine {
        up: AtomicI64,
        off: AtomicI64,
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn machine() -> (Arc<Machine>, ServiceTime) {
        let machine = Arc::<Machine>::default();
        let (wall, uptime) = (machine.clone(), machine.clone());
        let wall = Clock::new(move || at(wall.up.load(Relaxed) + wall.off.load(Relaxed)));
        let time =
            ServiceTime::new(wall, move || Duration::from_secs(uptime.up.load(Relaxed).unsigned_abs()));
        (machine, time)
    }

    fn date(seconds: i64) -> String {
        at(seconds).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    #[test]
    fn the_machines_clock_is_believed_within_five_minutes_of_awss() {
        let (machine, time) = machine();
        machine.off.store(30 * DAY, Relaxed);
        assert_eq!(time.clock().read(), Reading::certain(at(30 * DAY)), "nothing else is known");
        time.hear(&date(0), Duration::ZERO);
        for (off, is_in_doubt) in
            [(0, false), (300, false), (-300, false), (301, true), (-301, true), (30 * DAY, true)]
        {
            machine.off.store(off, Relaxed);
            let reading = time.clock().read();
            assert_eq!((reading.wall, reading.is_in_doubt()), (at(off), is_in_doubt), "{off}");
            assert_eq!(reading.now, if is_in_doubt { at(0) } else { at(off) }, "{off}");
        }
    }

    #[test]
    fn a_jump_is_in_doubt_before_the_next_answer_and_time_goes_on() {
        let (machine, time) = machine();
        time.hear(&date(0), Duration::ZERO);
        machine.up.store(DAY, Relaxed);
        assert_eq!(time.clock().read(), Reading::certain(at(DAY)));
        machine.off.store(-30 * DAY, Relaxed);
        assert_eq!(time.clock().read(), Reading { now: at(DAY), wall: at(-29 * DAY) });
        machine.off.store(0, Relaxed);
        assert!(!time.clock().read().is_in_doubt());
    }

    #[test]
    fn an_answer_that_is_no_date_or_took_too_long_tells_nothing() {
        let (machine, time) = machine();
        for wrong in ["", "soon", "Thu, 32 Dec 1970 00:00:00 GMT", "18446744073709551615", "Fri, 15 Jan 2027"]
        {
            time.hear(wrong, Duration::ZERO);
            assert!(time.0.told.lock().unwrap().is_none(), "{wrong}");
        }
        machine.up.store(61, Relaxed);
        time.hear(&date(30 * DAY), Duration::ZERO);
        assert!(!time.clock().read().is_in_doubt());
        time.hear(&date(30 * DAY), Duration::from_secs(1));
        assert_eq!(time.clock().read().now, at(30 * DAY));
    }

    /// Answers each call with one of these heads. Returns the times at which the calls were signed.
    async fn served(listener: TcpListener, heads: Vec<String>) -> Vec<String> {
        let mut signed = Vec::new();
        for head in heads {
            let (mut connection, _) = listener.accept().await.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                let read = connection.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            let request = String::from_utf8(request).unwrap();
            let line = request.lines().find_map(|line| line.strip_prefix("x-amz-date: "));
            signed.push(line.expect("it is signed").to_owned());
            let common = "connection: close\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: 2";
            connection
                .write_all(format!("HTTP/1.1 {head}\r\n{common}\r\n\r\n{{}}").as_bytes())
                .await
                .unwrap();
        }
        signed
    }

    #[tokio::test]
    async fn a_call_that_is_refused_for_its_time_tells_the_time_and_the_next_is_signed_by_that() {
        let (machine, time) = machine();
        machine.off.store(30 * DAY, Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        // An answer that is not from the service may have any time.
        let heads = [("502 Bad Gateway", -DAY), ("403 Forbidden", 0), ("200 OK", 5)];
        let heads = heads.map(|(status, seconds)| format!("{status}\r\nDate: {}", date(seconds))).into();
        let serving = tokio::spawn(served(listener, heads));
        let config = time.heard_by(ingress().into_builder().endpoint_url(&endpoint).build());
        let client = aws_sdk_dynamodb::Client::new(&config);
        client.describe_limits().send().await.unwrap_err();
        assert_eq!(time.clock().read(), Reading { now: at(0), wall: at(30 * DAY) });
        client.describe_limits().send().await.unwrap();
        assert_eq!(time.clock().read().now, at(5));
        let by_clock = |seconds| at(seconds).format("%Y%m%dT%H%M%SZ").to_string();
        assert_eq!(serving.await.unwrap(), [by_clock(30 * DAY), by_clock(30 * DAY), by_clock(0)]);
    }
}
