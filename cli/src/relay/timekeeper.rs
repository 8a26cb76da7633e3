//! The clock of `relay`: the machine's, unless AWS has another time.

use std::time::Duration;

use aws::ServiceTime;
use push::{Clock, Reading};
use relay::Uptime;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::clock;

/// Time between two checks of the clock for the log and the metric. Other users of the clock read it each time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which the log repeats that the clock is in doubt.
const SAY_INTERVAL: Duration = Duration::from_secs(600);

/// Makes the clock from the machine's, which AWS will correct.
pub(super) fn begin() -> ServiceTime {
    let uptime = Uptime::system();
    ServiceTime::new(Clock::system(), move || uptime.now())
}

/// Logs whether the clock is in doubt, and sets the metric, until `stop`.
pub(super) async fn tell(clock: Clock, stop: CancellationToken) -> anyhow::Result<()> {
    let mut looks = interval(LOOK_INTERVAL);
    let mut said: Option<Instant> = None;
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let reading = clock.read();
        clock::show(reading.is_in_doubt());
        if !reading.is_in_doubt() {
            if said.take().is_some() {
                tracing::info!(now = %reading.now, "the machine's clock is trusted again");
            }
        } else if said.is_none_or(|said| said.elapsed() >= SAY_INTERVAL) {
            said = Some(Instant::now());
            say(reading);
        }
    }
    Ok(())
}

fn say(Reading { now, wall }: Reading) {
    tracing::error!(
        clock = %wall,
        expected = %now,
        "this machine's clock is more than {} minutes from the time that AWS tells: until it is right, the relay goes by \
         that time, no endpoint ends, no push expires, and registrations are asked to wait; set it right (timedatectl)",
        aws::AGREEMENT.num_minutes()
    );
}
