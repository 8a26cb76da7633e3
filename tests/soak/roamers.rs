//! Phones that come and go, and get what they missed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use e2e::bench::{Answering, Journal, LightPhone, Request};
use e2e::{Upwire, User, XmppServer};
use tokio::time::sleep;
use tokio_xmpp::jid::BareJid;

/// Pushes a second to all of them.
pub(crate) const RATE: f64 = 20.0;
const ROAMERS: usize = 6;
/// Time for which they are there, and away; each a little longer than the one before, so that they never fall into
/// step.
const THERE: Duration = Duration::from_millis(6100);
const AWAY: Duration = Duration::from_millis(3300);
const STEP: Duration = Duration::from_millis(700);

/// One of them, there.
pub(crate) struct Roamer {
    server: Rc<XmppServer>,
    component: BareJid,
    user: User,
    phone: Answering,
    journal: Rc<Journal>,
    number: u32,
}

/// All of them, and how pushes get to each.
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
    /// Comes and goes until nothing is left to send; then it is there.
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
