//! Presences of a phone that acknowledges nothing, while much waits for it, or little: a cue costs what it finds. The
//! pushes are for another full JID of the account, which is away, so that this phone is to get them in its place.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use e2e::bench::{Journal, LightPhone};
use e2e::{Kind, Upwire, User, XmppServer};
use push::{Application, MailboxBounds, Target, testing};
use tokio::time::sleep;

use crate::plan::{Case, Plan};
use crate::stage::{self, Watch};

/// The title in the plan.
pub(crate) const TITLE: &str = "presences";
/// Applications of the full JID that is away, and the number of pushes that wait for each.
const AWAY: Case = Case { phones: 60, pushes_each: 100 };
/// The same applications, and one push for each.
const LITTLE: Case = Case { pushes_each: 1, ..AWAY };
const BOUNDS: MailboxBounds = MailboxBounds { of_registration: AWAY.pushes_each, of_account: AWAY.pushes() };
/// Number of presences in one burst.
pub(crate) const BURST: usize = 60;
/// Time that each burst has.
const BURST_TIME: Duration = Duration::from_secs(1);

/// CPU seconds of Upwire for one burst, on average, without those that it takes when nothing happens.
pub(crate) struct Presences {
    pub(crate) kind: Kind,
    /// Numbers of pushes that wait, with the seconds.
    pub(crate) little: (usize, f64),
    pub(crate) much: (usize, f64),
}

pub(crate) async fn measure(kind: Kind, plan: &Plan, journal: &Rc<Journal>) -> anyhow::Result<Presences> {
    eprintln!("{kind:?}, presences …");
    let server = XmppServer::start(kind).await;
    let folder = e2e::folder("presences");
    let mut spent = Vec::new();
    for waiting in [LITTLE, AWAY] {
        let user = server.user().await;
        let file = folder.join(format!("{}.db", waiting.phones));
        stage::fill(&file, waiting, BOUNDS, |number| away(&user, number)).await?;
        let seconds = burst(&server, &user, &file, plan.bursts, journal).await?;
        spent.push((waiting.pushes(), seconds));
    }
    std::fs::remove_dir_all(folder)?;
    Ok(Presences { kind, little: spent[0], much: spent[1] })
}

/// Returns the target of an application of the phone that is away.
fn away(user: &User, number: usize) -> Target {
    let application = Application::from_bytes([number.to_le_bytes()[0]; 32]);
    Target { application, ..testing::target(&format!("{}/away", user.jid)) }
}

async fn burst(
    server: &XmppServer,
    user: &User,
    file: &Path,
    bursts: usize,
    journal: &Rc<Journal>,
) -> anyhow::Result<f64> {
    let upwire = Upwire::on(server)
        .set("UPWIRE_DATABASE", file.display())
        .set("UPWIRE_MAILBOX_MAX", BOUNDS.of_registration)
        .set("UPWIRE_ACCOUNT_MAILBOX_MAX", BOUNDS.of_account)
        .set("UPWIRE_LOG", "info");
    let upwire = upwire.start_ready().await;
    let component = &upwire.component.jid;
    let mut phone = LightPhone::connect(server, user).await;
    let processes = stage::processes(&upwire, server)?;
    let mut spent = Vec::new();
    for greets in [false, true] {
        let watch = Watch::start(&processes.0, &processes.1)?;
        for _ in 0..bursts {
            for _ in 0..if greets { BURST } else { 0 } {
                phone.greet(component).await?;
            }
            sleep(BURST_TIME).await;
        }
        spent.push(watch.stop(0)?.upwire);
    }
    // The phone gets everything once it answers.
    let phone = phone.answer_all(Rc::clone(journal));
    stage::reaches(&upwire, "upwire_mailbox_depth", 0.0).await?;
    phone.leave().await?;
    Ok((spent[1] - spent[0]).max(0.0) / bursts as f64)
}
