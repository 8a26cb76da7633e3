//! kill -9 at any moment: the next process delivers every push that got a 201.

use std::time::Duration;

use e2e::{Answer, Load, Phone, Upwire, XmppServer};
use futures::future::join_all;

const PUSHES_PER_PHONE: usize = 300;

async fn phones(server: &XmppServer, upwire: &Upwire) -> (Vec<Phone>, Vec<String>) {
    let phones =
        join_all((0..3).map(async |_| Phone::connect(server, &server.user().await, "phone").await)).await;
    let endpoints = join_all(phones.iter().map(|phone| phone.endpoint(&upwire.component.jid, "app"))).await;
    (phones, endpoints)
}

async fn nothing_accepted_is_lost_by_kill_9(server: &XmppServer) {
    let mut upwire = Upwire::on(server).set("UPWIRE_ACK_TIMEOUT", 5).start_ready().await;
    let (phones, endpoints) = phones(server, &upwire).await;
    // Slow answers: at every kill, pushes and answers are on their way.
    phones[0].set_answer(Answer::DelayedBy(Duration::from_secs(1)));
    let load = Load::start(&endpoints, PUSHES_PER_PHONE);
    let phones: Vec<&Phone> = phones.iter().collect();
    let mut undelivered = 0;
    for quarter in 1..=3 {
        load.accepted(quarter * 3 * PUSHES_PER_PHONE / 4).await;
        load.is_in_mid_delivery(&phones).await;
        upwire.kill();
        undelivered += load.ledger().missing(&phones).len();
        upwire.start_again();
        upwire.ready().await;
    }
    phones[0].set_answer(Answer::Result);
    let ledger = load.finish().await;
    assert_eq!(ledger.len(), 3 * PUSHES_PER_PHONE);
    let twice = ledger.arrives(&phones).await;
    upwire.queue_empties().await;
    assert!(undelivered > 0, "no kill came in mid-delivery");
    println!(
        "{} pushes, three kills, {undelivered} undelivered at the moment of one: 0 lost, {twice} came more than once",
        ledger.len()
    );
}

async fn what_was_accepted_without_an_xmpp_server_survives_kill_9(server: &XmppServer) {
    let mut upwire = Upwire::on(server).start_ready().await;
    let (phones, endpoints) = phones(server, &upwire).await;
    let component = upwire.component.clone();
    let database = upwire.database();
    let address = upwire.public_url.strip_prefix("http://").unwrap().to_owned();
    upwire.kill();

    // The same server runs without a connection to the XMPP server.
    let mut cut_off = Upwire::as_component(server, component)
        .set("UPWIRE_DATABASE", database.display())
        .set("UPWIRE_LISTEN", &address)
        .set("UPWIRE_XMPP_SERVER", format!("127.0.0.1:{}", e2e::free_port()))
        .start();
    let ledger = Load::start(&endpoints, 50).finish().await;
    cut_off.kill();
    upwire.start_again();
    upwire.ready().await;
    let phones: Vec<&Phone> = phones.iter().collect();
    assert_eq!(ledger.arrives(&phones).await, 0, "nothing had gone out before");
    upwire.queue_empties().await;
}

on_each_server!(nothing_accepted_is_lost_by_kill_9, what_was_accepted_without_an_xmpp_server_survives_kill_9);
