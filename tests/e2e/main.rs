//! The end-to-end tests: one binary, so that all share one Prosody and one ejabberd.
#![expect(clippy::unwrap_used, reason = "a panic that names its line is how a test fails")]

/// Makes two tests of each scenario, an `async fn(&XmppServer)`: on the shared Prosody and on the
/// shared ejabberd.
macro_rules! on_each_server {
    ($($scenario:ident),* $(,)?) => {
        mod prosody {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(e2e::XmppServer::shared(e2e::Kind::Prosody).await).await;
            })*
        }
        mod ejabberd {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(e2e::XmppServer::shared(e2e::Kind::Ejabberd).await).await;
            })*
        }
    };
}

mod cloud;
mod delivery;
mod field;
mod harness;
mod http;
mod mailbox;
mod operators;
mod ports;
mod senders;
mod stream;
