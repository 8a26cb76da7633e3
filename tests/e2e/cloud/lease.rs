//! One active relay. A second relay of the same component waits without a connection. It takes over when the active one
//! crashed, stopped, stood still or cannot renew its lease. A relay that lost the lease sends nothing more.

use std::time::Duration;

use e2e::{
    Answer, FaultProxy, Kind, Load, Phone, SOON, Settings, Upwire, Ways, XmppServer, http, time_passes,
};
use push::ports::{Holder, Lease};
use tokio::time::Instant;

use super::{Cloud, UNDER_LOAD, phones, ways};

/// Longest wait for a takeover. A relay promises 20 s after a crash, and 2 s after a clean stop. If a server refuses
/// the second connection, the relay tries again after growing delays. Two cores that run servers, clients and other
/// tests at once take longer. So each takeover is timed and printed, and the store shows that a lease was given back.
const TAKEOVER: Duration = Duration::from_secs(120);

/// Two relays as one component, each with its own ways to AWS.
struct Pair {
    cloud: Cloud,
    active: Upwire,
    standby: Upwire,
    _standby_ways: Ways,
}

impl Pair {
    async fn on(server: &XmppServer) -> Self {
        Self::by(server, server.component_address()).await
    }

    /// Starts a pair whose active relay reaches the XMPP server at this address.
    async fn by(server: &XmppServer, address: String) -> Self {
        let cloud = Cloud::new().await;
        let active = cloud.relay_on(server).set("UPWIRE_XMPP_SERVER", address).start_ready().await;
        let standby_ways = ways(cloud.emulator).await;
        let mut standby = cloud.relay_by(&standby_ways, server, active.component.clone()).start();
        standby.log_line(&["another relay is active"]).await;
        standby.stands_by().await;
        for (relay, value) in [(&active, 1.0), (&standby, 0.0)] {
            relay.metric_is("upwire_relay_active", value).await;
            relay.metric_is("upwire_xmpp_stream_up", value).await;
        }
        Self { cloud, active, standby, _standby_ways: standby_ways }
    }

    async fn holder(&self) -> Option<Holder> {
        self.cloud.lease().look().await.unwrap().and_then(|tenure| tenure.holder)
    }

    /// Asserts that the second relay has had no stream and asked for none. On a stream, ejabberd would have sent it a
    /// part of the stanzas.
    fn standby_is_not_connected(&self) {
        self.standby.never_logged(&["XMPP server"]);
    }

    /// Stops the active relay, which gives its lease back before it ends.
    async fn stops(&mut self) {
        let holder = self.holder().await;
        assert!(holder.is_some());
        self.active.terminate();
        assert_eq!(self.active.wait_exit(SOON).await.code(), Some(0));
        assert_ne!(self.holder().await, holder, "it was given back before the process ended");
    }

    /// Waits until the second relay has taken over.
    async fn taken_over(&mut self, deadline: Duration, after: &str) {
        let since = Instant::now();
        self.standby.takes_over(deadline).await;
        println!("taken over within {:.1} s of {after}", since.elapsed().as_secs_f64());
        self.standby.metric_is("upwire_relay_active", 1.0).await;
    }
}

#[tokio::test]
async fn a_second_relay_takes_over_from_one_that_crashed() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let _turn = UNDER_LOAD.acquire().await;
    let mut pair = Pair::on(server).await;
    let (phones, endpoints) = phones(server, &pair.active).await;
    let phones: Vec<&Phone> = phones.iter().collect();
    let load = Load::start(&endpoints, 200);
    load.accepted(150).await;
    pair.standby_is_not_connected();
    pair.active.kill();
    pair.taken_over(TAKEOVER, "a crash").await;
    pair.active.start_again();
    let ledger = load.finish().await;
    let twice = ledger.arrives(&phones).await;
    pair.cloud.queue_empties().await;
    pair.active.stands_by().await;
    println!("{} pushes, 0 lost, {twice} came more than once", ledger.len());
}

#[tokio::test]
async fn a_second_relay_takes_over_from_one_that_stopped() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let _turn = UNDER_LOAD.acquire().await;
    let mut pair = Pair::on(server).await;
    let (phones, endpoints) = phones(server, &pair.active).await;
    let phones: Vec<&Phone> = phones.iter().collect();
    let load = Load::start(&endpoints, 200);
    load.accepted(150).await;
    pair.standby_is_not_connected();
    pair.stops().await;
    pair.taken_over(TAKEOVER, "a stop").await;
    let ledger = load.finish().await;
    let twice = ledger.arrives(&phones).await;
    pair.cloud.queue_empties().await;
    println!("{} pushes, 0 lost, {twice} came more than once", ledger.len());
}

/// A phone that does not answer delays the stop of a relay, but not the takeover after it.
async fn a_stop_that_waits_for_a_phone_gives_the_lease_back(server: &XmppServer) {
    let mut pair = Pair::on(server).await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&pair.active.component.jid, "app").await;
    phone.set_answer(Answer::Silent);
    assert_eq!(http::post_patiently(&endpoint, &[], "unanswered").await.status, 201);
    phone.next_push(SOON).await;
    pair.standby_is_not_connected();
    pair.stops().await;
    phone.set_answer(Answer::Result);
    pair.taken_over(TAKEOVER, "a stop that waited for a phone").await;
    assert_eq!(phone.next_push(SOON).await.body, b"unanswered");
    pair.cloud.queue_empties().await;
}

/// The active relay stands still for longer than the lease, with pushes in flight and in line. Its connections stay up.
/// Once it goes on, it sends nothing more, and another relay sends all of them.
async fn a_relay_that_stood_still_sends_nothing_more(server: &XmppServer) {
    const PUSHES: usize = 30;
    let _turn = UNDER_LOAD.acquire().await;
    let way = FaultProxy::to(server.component_port).await;
    let mut pair = Pair::by(server, way.address()).await;
    let (phones, endpoints) = phones(server, &pair.active).await;
    phones[0].set_answer(Answer::Silent);
    for number in 0..PUSHES {
        assert_eq!(http::post_patiently(&endpoints[0], &[], format!("in line {number}")).await.status, 201);
    }
    phones[0].next_push(SOON).await;
    pair.standby_is_not_connected();
    pair.active.pause();

    // The relay that stands still gets the answers, which make room for the pushes in line.
    phones[0].set_answer(Answer::Result);
    phones[0].answer_all().await;
    let load = Load::start(&endpoints[1..], 100);
    match server.kind {
        Kind::Ejabberd => pair.taken_over(TAKEOVER, "the relay's standing still").await,
        // Prosody refuses the second connection, whoever has the lease.
        Kind::Prosody => drop(pair.standby.log_line(&["conflict"]).await),
    }
    let sent = way.bytes_from_clients();
    pair.active.unpause();
    pair.active.log_line(&["the lease of the active relay is lost"]).await;
    pair.active.stands_by().await;
    pair.standby.takes_over(TAKEOVER).await;

    let ledger = load.finish().await;
    ledger.arrives(&[&phones[1], &phones[2]]).await;
    phones[0].wait_for_pushes(PUSHES, SOON).await;
    pair.cloud.queue_empties().await;
    pair.cloud.mailbox_empties().await;
    for number in 0..PUSHES {
        phones[0].wait_for_body(format!("in line {number}")).await;
    }
    assert_eq!(way.bytes_from_clients(), sent, "nothing more was sent by the one that had lost the lease");
    for (relay, value) in [(&pair.active, 0.0), (&pair.standby, 1.0)] {
        relay.metric_is("upwire_relay_active", value).await;
        relay.metric_is("upwire_xmpp_stream_up", value).await;
    }
}

/// The active relay loses its connection to DynamoDB alone.
#[tokio::test]
async fn a_relay_that_cannot_renew_its_lease_gives_way() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let _turn = UNDER_LOAD.acquire().await;
    let mut pair = Pair::on(server).await;
    let (phones, endpoints) = phones(server, &pair.active).await;
    let phones: Vec<&Phone> = phones.iter().collect();
    let load = Load::start(&endpoints, 200);
    load.accepted(150).await;
    pair.standby_is_not_connected();
    pair.cloud.relay_ways.table.cut();
    pair.taken_over(TAKEOVER, "the loss of DynamoDB").await;
    pair.active.log_line(&["the lease of the active relay is lost"]).await;
    pair.active.unready().await;
    pair.active.metric_reaches("upwire_relay_active", 0.0).await;
    pair.active.metric_is("upwire_xmpp_stream_up", 0.0).await;
    let ledger = load.finish().await;
    let twice = ledger.arrives(&phones).await;
    pair.cloud.queue_empties().await;
    println!("{} pushes, 0 lost, {twice} came more than once", ledger.len());

    pair.cloud.relay_ways.table.mend();
    pair.active.stands_by().await;
    pair.standby.terminate();
    assert_eq!(pair.standby.wait_exit(SOON).await.code(), Some(0));
    pair.active.takes_over(TAKEOVER).await;
    assert_eq!(http::post_patiently(&endpoints[0], &[], "by the first again").await.status, 201);
    phones[0].wait_for_body("by the first again").await;
}

/// A machine vanishes with all its processes. Nobody ends its connection to the XMPP server.
async fn a_second_relay_takes_over_from_a_machine_that_vanished(server: &XmppServer) {
    let _turn = UNDER_LOAD.acquire().await;
    let way = FaultProxy::to(server.component_port).await;
    let mut pair = Pair::by(server, way.address()).await;
    let (phones, endpoints) = phones(server, &pair.active).await;
    let phones: Vec<&Phone> = phones.iter().collect();
    let load = Load::start(&endpoints, 20);
    load.accepted(10).await;
    pair.standby_is_not_connected();
    way.stall();
    pair.active.kill();
    pair.taken_over(TAKEOVER, "the loss of a machine").await;
    load.finish().await.arrives(&phones).await;
}

#[tokio::test]
async fn a_relay_of_ejabberd_takes_over_from_a_machine_that_vanished() {
    a_second_relay_takes_over_from_a_machine_that_vanished(XmppServer::shared(Kind::Ejabberd).await).await;
}

/// With its defaults, Prosody would refuse the second relay until it finds out that the first is gone.
#[tokio::test]
async fn a_relay_of_prosody_takes_over_from_a_machine_that_vanished_where_the_old_connection_goes() {
    let settings = Settings { kick_old: true, ..Settings::default() };
    let server = XmppServer::start_with(Kind::Prosody, settings).await;
    a_second_relay_takes_over_from_a_machine_that_vanished(&server).await;
}

// The two servers treat a second connection of a component differently.
on_each_server!(
    a_stop_that_waits_for_a_phone_gives_the_lease_back,
    a_relay_that_stood_still_sends_nothing_more,
);

/// No other relay takes over. The store still has the relay's own tenure, so the relay waits for no other.
#[tokio::test]
async fn a_relay_alone_that_cannot_renew_its_lease_stops_sending_and_goes_on_when_it_can() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    cloud.relay_ways.table.cut();
    relay.log_line(&["the lease of the active relay is lost"]).await;
    relay.unready().await;
    assert_eq!(http::post_patiently(&endpoint, &[], "meanwhile").await.status, 201);
    phone.has_got_nothing("who has no lease sends nothing");
    cloud.relay_ways.table.mend();
    let since = Instant::now();
    relay.takes_over(TAKEOVER).await;
    println!("it goes on within {:.1} s", since.elapsed().as_secs_f64());
    assert_eq!(phone.next_push(SOON).await.body, b"meanwhile");
    cloud.queue_empties().await;
    relay.never_logged(&["another relay is active"]);
}

/// Returns a relay that lost its lease in an outage and has it again, while the queue is still out of reach.
async fn without_a_queue(server: &XmppServer) -> (Cloud, Upwire, Phone, String) {
    let cloud = Cloud::new().await;
    let mut relay = cloud.relay_on(server).start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&relay.component.jid, "app").await;
    cloud.relay_ways.table.cut();
    cloud.relay_ways.queue.cut();
    relay.log_line(&["the lease of the active relay is lost"]).await;
    cloud.relay_ways.table.mend();
    relay.log_line(&["AWS is out of reach"]).await;
    (cloud, relay, phone, endpoint)
}

#[tokio::test]
async fn a_relay_that_has_its_lease_again_waits_for_the_queue_for_as_long_as_it_takes() {
    let (cloud, mut relay, phone, endpoint) = without_a_queue(XmppServer::shared(Kind::Prosody).await).await;
    assert_eq!(http::post_patiently(&endpoint, &[], "meanwhile").await.status, 201);
    // A start would give up the queue within this time.
    time_passes(Duration::from_secs(45)).await;
    relay.assert_running();
    cloud.relay_ways.queue.mend();
    relay.takes_over(TAKEOVER).await;
    assert_eq!(phone.next_push(SOON).await.body, b"meanwhile");
    cloud.queue_empties().await;
}

#[tokio::test]
async fn a_relay_that_stops_while_it_waits_for_the_queue_gives_its_lease_back() {
    let (cloud, mut relay, ..) = without_a_queue(XmppServer::shared(Kind::Prosody).await).await;
    relay.terminate();
    assert_eq!(relay.wait_exit(SOON).await.code(), Some(0));
    let tenure = cloud.lease().look().await.unwrap();
    assert_eq!(tenure.unwrap().holder, None);
}
