//! Settings as tired operators write them.

use e2e::{Kind, Phone, SOON, Upwire, XmppServer, eventually, eventually_some, hashed, http};
use tokio_xmpp::parsers::stanza_error::DefinedCondition;

use super::Scene;

/// grafana/loki#1170, Permify/permify#486: people write `7d`, and get "unknown unit".
#[tokio::test]
async fn times_have_units_or_are_in_seconds() {
    let scene = Scene::set_with(|builder| {
        let times = [
            ("UPWIRE_DEFAULT_TTL", "90s"),
            ("UPWIRE_MAX_TTL", "2h"),
            ("UPWIRE_REGISTRATION_TTL", "7d"),
            ("UPWIRE_ACK_TIMEOUT", "30"),
        ];
        builder.set_all(times)
    })
    .await;
    for (asked, kept) in [("", "90"), ("86400", "7200")] {
        let accepted = http::post_with(&scene.endpoint, &[("TTL", asked)], "x").await;
        assert_eq!(accepted.header("ttl"), Some(kept));
    }
}

/// ohler55/agoo#123: `localhost:4242` "is not valid", and 127.0.0.1 works.
#[tokio::test]
async fn a_name_or_a_port_alone_is_enough_to_listen() {
    let server = XmppServer::shared(Kind::Prosody).await;
    for host in ["localhost", ""] {
        let port = e2e::free_port();
        let upwire = Upwire::on(server)
            .set("UPWIRE_LISTEN", format!("{host}:{port}"))
            .set("UPWIRE_PUBLIC_URL", format!("http://127.0.0.1:{port}"))
            .start_ready()
            .await;
        let page = http::get(&format!("http://127.0.0.1:{port}/")).await;
        assert_eq!(page.status, 200, "{host:?}");
        drop(upwire);
    }
}

/// krille-chan/fluffychat#853: with `base-url: "http://…"` nothing arrives, and no message says why.
#[tokio::test]
async fn a_public_url_without_tls_is_warned_of() {
    const WARNING: &str = "UPWIRE_PUBLIC_URL begins with http://";
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut plain =
        Upwire::on(server).set("UPWIRE_PUBLIC_URL", "http://push.example.com").start_ready().await;
    plain.log_line(&[WARNING]).await;
    for url in ["https://push.example.com", "http://localhost:8080"] {
        let upwire = Upwire::on(server).set("UPWIRE_PUBLIC_URL", url).start_ready().await;
        upwire.never_logged(&[WARNING]);
    }
}

/// Operators first try a star for subdomains. `localhost` has no subdomains here, so its own users are refused.
#[tokio::test]
async fn a_star_on_the_list_stands_for_subdomains() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    for (list, is_admitted) in
        [("*.localhost", false), ("*.localhost, localhost", true), ("*.example.org", false)]
    {
        let upwire = Upwire::on(server).set("UPWIRE_ACL", list).start_ready().await;
        let registered = phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await;
        assert_eq!(registered.is_ok(), is_admitted, "{list}");
    }
}

/// A user who is not on the list is told so, and the operator too.
#[tokio::test]
async fn registrations_that_the_list_refuses_are_counted_and_logged() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let mut upwire = Upwire::on(server).set("UPWIRE_ACL", "example.org").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    for instance in 0..50 {
        let refused = phone
            .register(&upwire.component.jid, &hashed("app"), &hashed(&instance.to_string()))
            .await
            .unwrap_err();
        assert_eq!(refused.defined_condition, DefinedCondition::Forbidden);
    }
    upwire.metric_is("upwire_registrations_refused_total", 50.0).await;
    upwire.log_line(&["UPWIRE_ACL does not have"]).await;
    upwire.terminate();
    upwire.wait_exit(SOON).await;
    let lines = upwire.log().matches("UPWIRE_ACL does not have").count();
    assert!((1..=30).contains(&lines), "{lines}");
}

/// The symptom: after the limit is raised, senders that exceeded the old one still have to wait.
#[tokio::test]
async fn another_rate_judges_anew_who_was_over_the_last_one() {
    let server = XmppServer::shared(Kind::Prosody).await;
    let component = server.component();
    // The rate allows three pushes at once, and then one in 1000 s.
    let rate = |rate: &str| Upwire::as_component(server, component.clone()).set("UPWIRE_RATE", rate);
    let mut strict = rate("3/0.001").start_ready().await;
    let phone = Phone::connect(server, &server.user().await, "phone").await;
    let endpoint = phone.endpoint(&component.jid, "app").await;
    let waits = async || {
        let answer = http::post(&endpoint, "hello").await;
        (answer.status == 429).then(|| answer.header("retry-after").unwrap().parse::<u64>().unwrap())
    };
    let marked = async || waits().await.filter(|wait| *wait > 60);
    eventually_some(SOON, "the mark is written", &marked).await;
    for another in ["1000/1000", "off"] {
        let database = strict.database();
        strict.kill();
        let listen = strict.public_url.strip_prefix("http://").unwrap();
        let lax = rate(another)
            .set("UPWIRE_DATABASE", database.display())
            .set("UPWIRE_LISTEN", listen)
            .set("UPWIRE_PUBLIC_URL", &strict.public_url)
            .start_ready()
            .await;
        eventually(SOON, "the mark is taken away", async || waits().await.is_none()).await;
        assert_eq!(http::post(&endpoint, "hello").await.status, 201, "{another}");
        drop(lax);
        strict.start_again();
        strict.ready().await;
        eventually_some(SOON, "the mark is written again", &marked).await;
    }
}
