//! Phones that come and go, and get the pushes that they missed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use e2e::bench::{Answering, Journal, LightPhone, Request};
use e2e::{Upwire, User, XmppServer};
use tokio::time::sleep;
use tokio_xmpp::jid::BareJid;

/// Pushes per second to all roamers.
pub(crate) const RATE: f64 = 20.0;
const ROAMERS: usize = 6;
/// Times for which the first phone is online, and away. Each further phone takes a `STEP` longer for both, so that they
/// never fall into step.
const THERE: Duration = Duration::from_millis(6100);
const AWAY: Duration = Duration::from_millis(3300);
const STEP: Duration = Duration::from_millis(700);

/// A phone that comes and goes.
pub(crate) struct Roamer {
    server: Rc<XmppServer>,
    component: BareJid,
    user: User,
    phone: Answering,
    journal: Rc<Journal>,
    number: u32,
}

/// Connects all roamers. Returns them, and a request to each.
pub(crate) async fn all(
    server: &Rc<XmppServer>,
    upwire: &Upwire,
    journal: &Rc<Journal>,
) -> anyhow::Result<(Vec<Roamer>, Vec<Request>)> {
    journal.begin();
    let (mut roamers, mut requests) = (Vec::new(), Vec::new());
    for number in 0..ROAMERS as u32 {
        let user = server.user().await;
        let component = upwire.component.jid.clone();
        let mut phone = LightPhone::connect(server, &user).await;
        requests.push(Request::new(&phone.register(&component).await?)?);
        let (server, phone) = (Rc::clone(server), phone.answer_all(Rc::clone(journal)));
        roamers.push(Roamer { server, component, user, phone, journal: Rc::clone(journal), number });
    }
    Ok((roamers, requests))
}

impl Roamer {
    /// Comes and goes until nothing is left to send. At the end, the phone is online.
    pub(crate) async fn come_and_go(mut self, left: Rc<Cell<usize>>) -> anyhow::Result<()> {
        let step = STEP * self.number;
        while left.get() > 0 {
            sleep(THERE + step).await;
            self.phone.leave().await?;
            sleep(AWAY + step).await;
            let mut phone = LightPhone::connect(&self.server, &self.user).await;
            phone.greet(&self.component).await?;
            self.phone = phone.answer_all(Rc::clone(&self.journal));
        }
        Ok(())
    }
}
