//! Half-open connections to the XMPP server. Only silence tells that they are dead.

use std::slice::from_ref;
use std::time::Duration;

use e2e::{Answer, FaultProxy, Kind, Load, Phone, SOON, Upwire, XmppServer};
use tokio::time::Instant;

/// An answer timeout in seconds that is shorter than the time to notice a stall. A push that was sent into it is given
/// up, and goes to the mailbox.
const ACK_SHORT: u32 = 5;
/// An answer timeout in seconds that is longer. A push is sent again when there is a stream.
const ACK_LONG: u32 = 60;

struct Stage {
    way: FaultProxy,
    upwire: Upwire,
    phone: Phone,
    endpoint: String,
}

impl Stage {
    async fn on(server: &XmppServer, ack_seconds: u32) -> Self {
        let way = FaultProxy::to(server.component_port).await;
        let upwire = Upwire::on(server)
            .set("UPWIRE_XMPP_SERVER", way.address())
            .set("UPWIRE_ACK_TIMEOUT", ack_seconds)
            .start_ready()
            .await;
        let phone = Phone::connect(server, &server.user().await, "phone").await;
        let endpoint = phone.endpoint(&upwire.component.jid, "app").await;
        Self { way, upwire, phone, endpoint }
    }

    /// Stalls the connection in both directions, and waits until the relay notices it.
    async fn stall(&mut self) {
        self.way.stall();
        let since = Instant::now();
        self.upwire.log_line(&["nothing came from the server", "no stream to the XMPP server"]).await;
        println!("noticed within {:.1} s", since.elapsed().as_secs_f64());
        self.upwire.unready().await;
        self.upwire.metric_is("upwire_xmpp_stream_up", 0.0).await;
        self.nothing_is_in_flight().await;
    }

    /// Waits until nothing is in flight, because nothing is sent into a dead connection.
    async fn nothing_is_in_flight(&self) {
        self.upwire.metric_is("upwire_pushes_in_flight", 0.0).await;
    }
}

async fn a_stalled_connection_loses_nothing(server: &XmppServer, ack_seconds: u32) {
    let mut stage = Stage::on(server, ack_seconds).await;
    stage.phone.set_answer(Answer::DelayedBy(Duration::from_millis(20)));
    let before = Load::start(from_ref(&stage.endpoint), 400);
    stage.phone.wait_for_pushes(50, SOON).await;
    stage.stall().await;
    let meanwhile = Load::start(from_ref(&stage.endpoint), 100).finish().await;
    stage.nothing_is_in_flight().await;
    meanwhile.has_not_begun_to_arrive(&[&stage.phone]);

    stage.way.mend();
    stage.upwire.ready().await;
    let (before, mut surplus) = (before.finish().await, 0);
    for ledger in [&before, &meanwhile] {
        surplus = ledger.arrives(&[&stage.phone]).await;
    }
    println!("0 lost, {} came more than once", surplus - before.len());
    stage.upwire.mailbox_holds(0).await;
    stage.upwire.queue_empties().await;
    stage.upwire.metric_reaches("upwire_xmpp_reconnects_total", 1.0).await;
}

async fn what_is_given_up_before_a_stall_is_noticed_is_not_lost(server: &XmppServer) {
    a_stalled_connection_loses_nothing(server, ACK_SHORT).await;
}

async fn what_is_in_flight_when_a_stall_is_noticed_is_not_lost(server: &XmppServer) {
    a_stalled_connection_loses_nothing(server, ACK_LONG).await;
}

/// The relay finds out without a push that an idle connection is dead.
async fn a_connection_that_stalls_while_idle_is_noticed(server: &XmppServer) {
    let mut stage = Stage::on(server, ACK_LONG).await;
    stage.stall().await;
    stage.way.mend();
    stage.upwire.ready().await;
    let after = Load::start(from_ref(&stage.endpoint), 20).finish().await;
    after.arrives(&[&stage.phone]).await;
    stage.upwire.queue_empties().await;
}

on_each_server!(
    what_is_given_up_before_a_stall_is_noticed_is_not_lost,
    what_is_in_flight_when_a_stall_is_noticed_is_not_lost,
    a_connection_that_stalls_while_idle_is_noticed,
);

/// A router has forgotten a connection: new ones work, and the server keeps the dead one. ejabberd sends a part of the
/// answers into it until it finds out. No push is lost by that.
#[tokio::test]
async fn nothing_is_lost_while_ejabberd_holds_a_dead_connection() {
    let server = XmppServer::shared(Kind::Ejabberd).await;
    let mut stage = Stage::on(server, ACK_SHORT).await;
    stage.stall().await;
    let meanwhile = Load::start(from_ref(&stage.endpoint), 20).finish().await;
    stage.way.abandon();
    stage.way.mend();
    stage.upwire.ready().await;
    let after = Load::start(from_ref(&stage.endpoint), 20).finish().await;
    for ledger in [meanwhile, after] {
        ledger.arrives(&[&stage.phone]).await;
    }
}
