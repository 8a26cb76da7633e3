//! Users list and end their endpoints, and send themselves a test push, with clients of their own (XEP-0050).

use e2e::{Phone, RawClient, SOON, Upwire, XmppServer, eventually, http};
use tokio_xmpp::jid::BareJid;

const COMMANDS: &str = "http://jabber.org/protocol/commands";

/// Asks the component, and returns the answer.
async fn ask(client: &mut RawClient, component: &BareJid, kind: &str, payload: &str) -> String {
    let iq = format!("<iq type='{kind}' id='asked' to='{component}'>{payload}</iq>");
    client.send(iq).await.unwrap();
    client.read_until("</iq>", SOON).await.unwrap()
}

async fn command(client: &mut RawClient, component: &BareJid, node: &str, chosen: &[&str]) -> String {
    let values: String = chosen.iter().map(|id| format!("<value>{id}</value>")).collect();
    let form = if chosen.is_empty() {
        String::new()
    } else {
        format!("<x xmlns='jabber:x:data' type='submit'><field var='registrations'>{values}</field></x>")
    };
    let payload = format!("<command xmlns='{COMMANDS}' node='{node}' action='execute'>{form}</command>");
    ask(client, component, "set", &payload).await
}

/// Returns the ids that a form offers.
fn offered(answer: &str) -> Vec<String> {
    let values = answer.split("<value>").skip(1).filter_map(|rest| rest.split('<').next());
    values.filter(|value| value.len() == 32).map(str::to_owned).collect()
}

async fn a_user_lists_tests_and_ends_what_is_theirs(server: &XmppServer) {
    let upwire = Upwire::on(server).start_ready().await;
    let component = &upwire.component.jid;
    let (user, other) = (server.user().await, server.user().await);
    let phone = Phone::connect(server, &user, "phone").await;
    let stranger = Phone::connect(server, &other, "phone").await;
    let first = phone.endpoint(component, "first").await;
    let second = phone.endpoint(component, "second").await;
    let untouched = stranger.endpoint(component, "first").await;
    // Another client of the same account.
    let mut desk = RawClient::connect(server, &user, "desk").await;

    let items = format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/>");
    let found = ask(&mut desk, component, "get", &items).await;
    for node in ["list", "end", "test"] {
        assert!(found.contains(&format!("'{node}'")) || found.contains(&format!("\"{node}\"")), "{found}");
    }
    let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='end'/>";
    assert!(ask(&mut desk, component, "get", info).await.contains("command-node"));
    let listed = command(&mut desk, component, "list", &[]).await;
    assert!(listed.contains("2 endpoints") && listed.contains("phone, since"), "{listed}");

    let form = command(&mut desk, component, "test", &[]).await;
    let ids = offered(&form);
    assert!(form.contains("executing") && ids.len() == 2, "{form}");
    let sent = command(&mut desk, component, "test", &[&ids[0]]).await;
    assert!(sent.contains("completed") && sent.contains("on their way: 1"), "{sent}");
    let push = phone.next_push(SOON).await;
    assert!(push.body.starts_with(b"A test push"), "{:?}", push.body);
    upwire.mailbox_holds(0).await;

    // Endpoints of other accounts are left alone.
    let mut thief = RawClient::connect(server, &other, "desk").await;
    let stolen = command(&mut thief, component, "end", &[&ids[0], &ids[1]]).await;
    assert!(stolen.contains("Endpoints that have ended: 0"), "{stolen}");
    let ended = command(&mut desk, component, "end", &[&ids[0]]).await;
    assert!(ended.contains("Endpoints that have ended: 1"), "{ended}");
    let statuses = async || [http::post(&first, "x").await.status, http::post(&second, "x").await.status];
    eventually(SOON, "one of the two has ended", async || {
        let mut statuses = statuses().await;
        statuses.sort_unstable();
        statuses == [201, 410]
    })
    .await;
    assert_eq!(http::post(&untouched, "x").await.status, 201);

    let wrong = command(&mut desk, component, "reboot", &[]).await;
    assert!(wrong.contains("item-not-found"), "{wrong}");
    let wrong = command(&mut desk, component, "end", &["all"]).await;
    assert!(wrong.contains("bad-request"), "{wrong}");
}

async fn who_may_not_register_may_not_command(server: &XmppServer) {
    let upwire = Upwire::on(server).set("UPWIRE_ACL", "elsewhere.example").start_ready().await;
    let mut client = RawClient::connect(server, &server.user().await, "desk").await;
    let refused = command(&mut client, &upwire.component.jid, "list", &[]).await;
    assert!(refused.contains("forbidden"), "{refused}");
}

on_each_server!(a_user_lists_tests_and_ends_what_is_theirs, who_may_not_register_may_not_command);
