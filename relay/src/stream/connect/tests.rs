use rustix::net::sockopt::tcp_quickack;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

fn address(text: &str) -> Result<ServerAddress, String> {
    text.parse().map_err(|error: BadServerAddress| error.to_string())
}

#[test]
fn an_address_is_host_and_port_and_perhaps_tls() {
    let parts = |text| address(text).map(|address| (address.host, address.port, address.security));
    assert_eq!(parts("localhost:5347"), Ok(("localhost".into(), 5347, Security::Plain)));
    assert_eq!(parts("[::1]:5347"), Ok(("::1".into(), 5347, Security::Plain)));
    assert_eq!(parts("tls://xmpp.example.com:5348"), Ok(("xmpp.example.com".into(), 5348, Security::Tls)));
    assert_eq!(parts("tls://[2001:db8::1]:5348"), Ok(("2001:db8::1".into(), 5348, Security::Tls)));
    for text in ["localhost:5347", "[::1]:5347", "tls://[::1]:1", "tls://a.example:65535"] {
        assert_eq!(address(text).unwrap().to_string(), text);
    }
    for wrong in [
        "localhost",
        ":5347",
        "localhost:0",
        "localhost:65536",
        "xmpp://localhost:5347",
        "tcp://localhost:5347",
        "tls://localhost",
        "tls://:5347",
        "tls://localhost:5347/",
        "tls://a*b:5347",
        "tls:localhost:5347",
        "::1:5347",
        "[localhost]:5347",
    ] {
        let error = address(wrong).expect_err(wrong);
        assert!(error.ends_with("write it as host:port, for example localhost:5347, or as tls://host:port"));
    }
}

#[test]
fn loopback_is_on_this_machine() {
    let here = |text| address(text).unwrap().is_on_this_machine();
    for text in ["localhost:1", "xmpp.localhost:1", "127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(here(text), "{text}");
    }
    for text in ["xmpp.example.com:1", "localhost.example.com:1", "192.0.2.1:1", "[2001:db8::1]:1"] {
        assert!(!here(text), "{text}");
    }
}

#[test]
fn only_what_leaves_this_machine_is_warned_of() {
    let leaves = |local: &str, peer: &str| leaves_this_machine(local.parse().unwrap(), peer.parse().unwrap());
    assert!(leaves("192.0.2.1", "192.0.2.2"));
    assert!(leaves("2001:db8::1", "2001:db8::2"));
    assert!(!leaves("192.0.2.1", "192.0.2.1"));
    assert!(!leaves("127.0.0.1", "127.0.1.1"));
    assert!(!leaves("::1", "::1"));
}

#[test]
fn a_certificate_that_is_refused_is_named_with_its_mend() {
    let wrong_name = CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("xmpp.example.com").unwrap(),
        presented: vec!["DnsName(\"example.com\")".into()],
    };
    let cases = [
        (CertificateError::Expired, "expired", "new certificate"),
        (CertificateError::NotValidYet, "not valid yet", "clock"),
        (wrong_name, "not for xmpp.example.com but for DnsName", "UPWIRE_XMPP_SERVER"),
        (CertificateError::UnknownIssuer, "no authority that is trusted", "SSL_CERT_FILE"),
        (CertificateError::BadEncoding, "refused", "version 3"),
    ];
    for (error, problem, mend) in cases {
        let error = ConnectError::Certificate(error);
        assert!(error.to_string().contains(problem) && error.mend().contains(mend), "{error}");
    }
}

#[tokio::test]
async fn what_is_read_is_acknowledged_though_the_answer_went_out_just_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = address(&listener.local_addr().unwrap().to_string()).unwrap();
    let mut connection = server.connect().await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    // These exchanges make the system delay acknowledgements, to send them along with answers.
    for byte in 0..20 {
        peer.write_u8(byte).await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), byte);
        connection.write_u8(byte).await.unwrap();
    }
    peer.write_u8(20).await.unwrap();
    connection.read_u8().await.unwrap();
    let Either::Left(socket) = connection.get_ref() else { panic!("it is plain") };
    assert!(tcp_quickack(socket).unwrap());
}
