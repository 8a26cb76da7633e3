//! The harness of the end-to-end tests: real XMPP servers, the real `upwire`, real clients, and
//! ways to wait for what they do.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use e2e::{Kind, Phone, Upwire, XmppServer, hashed, http};
//! # async fn a_push_reaches_the_phone() {
//! let server = XmppServer::shared(Kind::Prosody).await;
//! let upwire = Upwire::on(server).start_ready().await;
//! let phone = Phone::connect(server, &server.user().await, "phone").await;
//! let registered = phone.register(&upwire.component.jid, &hashed("app"), &hashed("1")).await.unwrap();
//! assert_eq!(http::post(&registered.endpoint, "hello").await.status, 201);
//! assert_eq!(phone.next_push(Duration::from_secs(10)).await.body, b"hello");
//! # }
//! ```

mod account_trouble;
mod application_server;
pub mod bench;
mod browser;
mod certificate;
pub mod chaos;
mod ejabberd;
mod emulator;
mod fault_proxy;
mod function;
pub mod http;
mod line;
mod load;
pub mod machine;
mod metrics;
mod phone;
pub mod prices;
mod prosody;
mod proxy;
mod queues;
mod raw_client;
mod run;
mod site;
mod slixmpp;
mod stunnel;
mod synapse;
mod tcp_ports;
mod tether;
mod upwire;
mod wait;
mod web_push;
mod xmpp_server;

pub use account_trouble::{Trouble, TroubledWay};
pub use application_server::ApplicationServer;
pub use browser::browse;
pub use certificate::{Authority, Certificate};
pub use ejabberd::libraries as ejabberd_libraries;
pub use emulator::{Emulator, EmulatorKind, Queues};
pub use fault_proxy::FaultProxy;
pub use function::Function;
pub use load::{Ledger, Load};
pub use phone::{Answer, Phone, Push, Registered, UNIFIED_PUSH, hashed};
pub use proxy::{Proxy, Ways};
pub use raw_client::RawClient;
pub use run::{folder, profile_folder, target_folder};
pub use slixmpp::{Slixmpp, python};
pub use stunnel::Stunnel;
pub use synapse::{MatrixUser, Synapse};
pub use tcp_ports::free_port;
pub use tether::Tether;
pub use upwire::{ENDPOINT_SECRET, Upwire, UpwireBuilder};
pub use wait::{SOON, eventually, eventually_some, settles, time_passes, time_passes_until};
pub use web_push::{KeyPair, Library, Message, Subscription};
pub use xmpp_server::{Component, Kind, Settings, User, XmppServer};
