use chrono::DateTime;
use proptest::prelude::*;
use push::{Body, testing};

use super::*;
use crate::stream::discovery;
use crate::stream::framing::{FrameReader, serialize};

const HASH: &str = "bK3sdmrbtj3bf6XA2S12b8jJUA5TT1dhPEyeoZfVSRM=";
const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

/// Generates values of an attribute: most often one of these, at times any other.
fn mostly(usual: &'static [&'static str]) -> impl Strategy<Value = String> {
    let usual = prop::sample::select(usual).prop_map(str::to_owned);
    prop_oneof![12 => usual, 1 => "[^'<&]{0,12}", 1 => any::<String>()]
}

/// Generates payloads of an IQ, most of which mean something, or nearly.
fn payload() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        format!("register xmlns='{UNIFIED_PUSH}' application='A' instance='B'"),
        format!("register xmlns='{UNIFIED_PUSH}' instance='A'"),
        format!("register xmlns='{UNIFIED_PUSH}' application='A' instance='B' vapid='C'"),
        format!("query xmlns='{}'", ns::DISCO_INFO),
        format!("query xmlns='{}' node='A'", ns::DISCO_INFO),
        format!("query xmlns='{}'", ns::DISCO_ITEMS),
        format!("ping xmlns='{}' more='A'", ns::PING),
        "error type='A'".to_owned(),
        format!("item-not-found xmlns='{}'", ns::XMPP_STANZAS),
        "no:prefix".to_owned(),
    ]);
    let values = [mostly(&[HASH]), mostly(&[HASH]), mostly(&[KEY])];
    let open = (known, values).prop_map(|(known, values)| {
        let filled = ["='A'", "='B'", "='C'"].iter().zip(values);
        filled.fold(known, |open, (place, value)| open.replace(place, &format!("='{value}'")))
    });
    let element = |open: String, content: String| {
        let name = open.split(' ').next().unwrap_or_default();
        format!("<{open}>{content}</{name}>")
    };
    let open = open.boxed();
    let inner = (open.clone(), mostly(&[""])).prop_map(move |(open, content)| element(open, content));
    let content = prop_oneof![3 => mostly(&["", "text"]).boxed(), 1 => inner.boxed()];
    (open, content).prop_map(move |(open, content)| element(open, content))
}

fn stanza() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["iq", "iq", "iq", "presence", "message"]);
    let kind = mostly(&["get", "set", "result", "error", "unavailable", "subscribe", "probe"]);
    let (id, to) = (mostly(&["AAAAAAAAAAAAAAAAAAAAAA"]), mostly(&["notify.example.com"]));
    let from = mostly(&["juliet@example.com/phone", "juliet@example.com"]);
    let several = prop::collection::vec(payload(), 0..3).prop_map(|payloads| payloads.concat());
    let payloads = prop_oneof![4 => payload().boxed(), 1 => several.boxed()];
    (name, kind, id, to, from, payloads).prop_map(|(name, kind, id, to, from, payloads)| {
        format!("<{name} type='{kind}' id='{id}' to='{to}' from='{from}'>{payloads}</{name}>")
    })
}

/// Reads a stream to its end, and answers it as the relay does.
async fn read_all(stream: &str) {
    let mut reader = FrameReader::new(stream.as_bytes());
    while let Ok(frame) = reader.next().await {
        if matches!(frame, Frame::Closed) {
            return;
        }
        match Incoming::read(frame, &BareJid::new("notify.example.com").unwrap()) {
            Ok(Some(Incoming::Request(request))) => {
                let info = match &request.query {
                    Query::DiscoInfo => Ok(Some(discovery::info(&[]))),
                    _ => Err(error(ErrorType::Modify, DefinedCondition::BadRequest, "no")),
                };
                assert!(serialize(&answer(&request, info)).starts_with("<iq"));
            }
            Ok(Some(Incoming::Answer(answer))) => {
                let _ = answer.message_id();
            }
            Ok(Some(Incoming::Subscribe(asked))) => {
                assert!(serialize(&unsubscribed(&asked)).starts_with("<presence"));
            }
            Ok(Some(Incoming::Available(_) | Incoming::Unavailable(_)) | None) => {}
            Err(Elsewhere(domain)) => assert_ne!(domain, "notify.example.com"),
        }
    }
}

proptest! {
    // A case costs little.
    #![proptest_config(ProptestConfig::with_cases(3 * ProptestConfig::default().cases))]

    #[test]
    fn any_stanza_means_something_or_nothing(stanzas in prop::collection::vec(stanza(), 1..4)) {
        let stream = format!("<s:stream xmlns:s='{}' xmlns='{}'>", ns::STREAM, ns::COMPONENT_ACCEPT);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_all(&(stream + &stanzas.concat())));
    }
}

/// Reads one stanza.
fn read(xml: &str) -> Result<Option<Incoming>, Elsewhere> {
    let xml = xml.replacen(' ', &format!(" xmlns='{}' ", ns::JABBER_CLIENT), 1);
    let component = BareJid::new("notify.example.com").unwrap();
    Incoming::read(Frame::Element(xml.parse().unwrap()), &component)
}

/// Returns one stanza of each kind.
fn kinds(to: &str) -> Vec<String> {
    let iq = |kind, payload| format!("<iq type='{kind}' id='1' to='{to}' from='a@b/c'>{payload}</iq>");
    vec![
        iq("get", "<ping xmlns='urn:xmpp:ping'/>"),
        iq("set", "<register xmlns='http://gultsch.de/xmpp/drafts/unified-push'/>"),
        iq("result", ""),
        iq("error", "<error type='cancel'/>"),
        format!("<presence to='{to}' from='a@b/c'/>"),
        format!("<presence type='unavailable' to='{to}' from='a@b/c'/>"),
    ]
}

#[test]
fn only_stanzas_to_the_component_itself_count() {
    for xml in kinds("Notify.Example.com") {
        assert!(read(&xml).unwrap().is_some(), "{xml}");
    }
    for to in ["irc.example.com", "example.com", "x.notify.example.com", "juliet@example.com/phone"] {
        let domain = to.split(['@', '/']).find(|part| part.contains('.')).unwrap();
        for xml in kinds(to) {
            assert_eq!(read(&xml).err(), Some(Elsewhere(domain.to_owned())), "{xml}");
        }
    }
    for to in ["x@notify.example.com", "notify.example.com/x", "x@notify.example.com/y"] {
        let mut read = kinds(to).into_iter().map(|xml| read(&xml).unwrap());
        for _ in 0..2 {
            let Some(Some(Incoming::Request(request))) = read.next() else { panic!("no request") };
            assert!(matches!(request.query, Query::Other));
            let refusal = error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "");
            assert_eq!(answer(&request, Err(refusal)).attr("from"), Some(to));
        }
        assert!(read.all(|meaning| meaning.is_none()), "{to}");
    }
    assert!(read("<iq type='get' id='1' from='a@b/c'/>").unwrap().is_none(), "it is for nobody");
}

/// Returns the request that this stanza is.
fn request(xml: &str) -> Request {
    let Some(Incoming::Request(request)) = read(xml).unwrap() else { panic!("no request: {xml}") };
    request
}

#[test]
fn addresses_go_back_as_they_came() {
    let register = format!("<register xmlns='{UNIFIED_PUSH}' application='{HASH}' instance='{HASH}'/>");
    for (from, kept) in [
        ("Juliet@Example.com/A", true),
        ("juliet@example.com/\u{1f98a}", false),
        ("\u{1f98a}@example.com/a", false),
        ("example.com/\u{1f98a}", false),
    ] {
        let request =
            request(&format!("<iq type='set' id='1' from='{from}' to='Notify.Example.com'>{register}</iq>"));
        assert_eq!(request.from.domain().as_str(), "example.com");
        match &request.query {
            Query::Register(Ok(_)) => assert!(kept, "{from}"),
            Query::Register(Err(bad)) => assert!(!kept && *bad == BadRegister::Jid, "{from}: {bad}"),
            other => panic!("{other:?}"),
        }
        let answer = answer(&request, Ok(None));
        assert_eq!((answer.attr("to"), answer.attr("from")), (Some(from), Some("Notify.Example.com")));
    }
}

#[test]
fn a_key_in_any_form_but_the_protocols_is_refused() {
    for (key, taken) in [
        (KEY.to_owned(), true),
        (format!("{KEY}="), false),
        (KEY.replace('-', "+").replace('_', "/"), false),
        (String::new(), false),
    ] {
        let register = format!(
            "<register xmlns='{UNIFIED_PUSH}' application='{HASH}' instance='{HASH}' vapid='{key}'/>"
        );
        let iq = format!("<iq type='set' id='1' from='a@b/c' to='notify.example.com'>{register}</iq>");
        match &request(&iq).query {
            Query::Register(Ok(target)) => assert!(taken && target.vapid.is_some(), "{key}"),
            Query::Register(Err(bad)) => {
                assert!(!taken && matches!(bad, BadRegister::Vapid(_)), "{key}: {bad}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_subscription_and_a_probe_are_declined() {
    for kind in ["subscribe", "probe"] {
        for to in ["Notify.example.com", "x@notify.example.com"] {
            let asked = read(&format!("<presence type='{kind}' from='Juliet@example.com' to='{to}'/>"));
            let Some(Incoming::Subscribe(asked)) = asked.unwrap() else { panic!("{kind}") };
            let answer = unsubscribed(&asked);
            let attributes = ["type", "from", "to"].map(|name| answer.attr(name).unwrap().to_owned());
            assert_eq!(attributes, ["unsubscribed", to, "Juliet@example.com"]);
        }
    }
    for kind in ["subscribed", "unsubscribe", "unsubscribed", "error"] {
        let answer = format!("<presence type='{kind}' from='a@b' to='notify.example.com'/>");
        assert!(read(&answer).unwrap().is_none(), "two that answer each other would never end: {kind}");
    }
}

#[test]
fn a_query_about_a_node_is_one_thing_for_info_and_items() {
    let query = |namespace: &str, node: &str| {
        let payload = format!("<query xmlns='{namespace}'{node}/>");
        request(&format!("<iq type='get' id='1' from='a@b/c' to='notify.example.com'>{payload}</iq>")).query
    };
    for namespace in [ns::DISCO_INFO, ns::DISCO_ITEMS] {
        assert!(matches!(query(namespace, " node='x'"), Query::DiscoNode), "{namespace}");
        assert!(matches!(query(namespace, ""), Query::DiscoInfo | Query::DiscoItems), "{namespace}");
    }
    assert!(matches!(query(ns::VERSION, ""), Query::Version));
}

#[test]
fn a_push_is_the_stanza_of_the_protocol() {
    let registration = testing::registration("juliet@example.com/a 'b' \"c\" <d> & e", DateTime::UNIX_EPOCH);
    let target = &registration.target;
    let mut message = testing::push(3, &registration, DateTime::UNIX_EPOCH);
    message.body = Body::from_bytes(b"hello");
    let xml = push(&BareJid::new("notify.example.com").unwrap(), &message, &message.recipient);

    let in_stream = xml.replacen("<iq", &format!("<iq xmlns='{}'", ns::JABBER_CLIENT), 1);
    let iq = Iq::try_from(in_stream.parse::<Element>().unwrap()).unwrap();
    let Iq::Set { from: Some(from), to: Some(to), id, payload } = iq else { panic!("{xml}") };
    assert_eq!((from.as_str(), to.as_str()), ("notify.example.com", target.recipient.as_str()));
    assert_eq!((MessageId::parse(&id), payload.text()), (Some(message.id), "aGVsbG8=".into()));
    assert!(payload.is("push", UNIFIED_PUSH));
    assert_eq!(payload.attr("application"), Some(&*target.application.to_string()));
    assert_eq!(payload.attr("instance"), Some(&*target.instance.to_string()));
}
