//! Owns a real XMPP server on loopback, its accounts and its component names.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_xmpp::jid::BareJid;

use crate::phone::device::Devices;
use crate::site::{COMPONENTS_MAX, Site};
pub use crate::site::{Settings, User};
use crate::tether::Tether;
use crate::{ejabberd, prosody, run::folder, tcp_ports::free_port, wait::eventually};

/// Longest wait for the server to listen. ejabberd has taken more than 2 min on a busy machine. A server that ends is
/// noticed at once.
const START_DEADLINE: Duration = Duration::from_secs(300);
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// The kind of XMPP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Prosody, as Debian packages it.
    Prosody,
    /// ejabberd, as Debian packages it.
    Ejabberd,
}

/// A component's name, and the secret with which it connects.
#[derive(Clone, Debug)]
pub struct Component {
    /// The JID: `up1.localhost` and so on, below the users' domain, as the default access list wants it.
    pub jid: BareJid,
    /// The secret of the XEP-0114 handshake.
    pub secret: String,
}

/// A running server.
pub struct XmppServer {
    /// The kind of server.
    pub kind: Kind,
    /// The port for clients, without TLS.
    pub c2s_port: u16,
    /// The port for components.
    pub component_port: u16,
    site: Site,
    process: Option<Tether>,
    components: AtomicUsize,
    users: Mutex<Vec<User>>,
}

impl XmppServer {
    /// Returns the server that all tests of this binary share. The first caller starts it. No test can stop it:
    /// `&'static` has no `kill`.
    pub async fn shared(kind: Kind) -> &'static Self {
        static PROSODY: OnceCell<XmppServer> = OnceCell::const_new();
        static EJABBERD: OnceCell<XmppServer> = OnceCell::const_new();
        let server = match kind {
            Kind::Prosody => &PROSODY,
            Kind::Ejabberd => &EJABBERD,
        };
        server.get_or_init(|| Self::start(kind)).await
    }

    /// Returns a shared server on which a session may hibernate for longer than any test takes.
    pub async fn patient(kind: Kind) -> &'static Self {
        static PROSODY: OnceCell<XmppServer> = OnceCell::const_new();
        static EJABBERD: OnceCell<XmppServer> = OnceCell::const_new();
        let server = match kind {
            Kind::Prosody => &PROSODY,
            Kind::Ejabberd => &EJABBERD,
        };
        let settings = Settings { hibernation: Duration::from_secs(600), ..Settings::default() };
        server.get_or_init(|| Self::start_with(kind, settings)).await
    }

    /// Starts a server of the test's own, for tests that stop it.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, Settings::default()).await
    }

    /// Starts a server of the test's own with other settings.
    pub async fn start_with(kind: Kind, settings: Settings) -> Self {
        let site = Site {
            folder: folder(kind.name()),
            c2s_port: free_port(),
            component_port: free_port(),
            http_port: free_port(),
            secret: "component-secret".to_owned(),
            settings,
        };
        let mut server = Self {
            kind,
            c2s_port: site.c2s_port,
            component_port: site.component_port,
            site,
            process: None,
            components: AtomicUsize::new(0),
            users: Mutex::default(),
        };
        server.start_again().await;
        server
    }

    /// Starts the server after `kill` or `stop`, on the same ports and the same data.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.kind.name());
        let command = self.kind.command(&self.site);
        let process = self.process.insert(Tether::start(&command, &self.site.folder.join("log")));
        let what = format!("{process:?} listens");
        let (c2s, component) = (self.site.c2s_port, self.site.component_port);
        eventually(START_DEADLINE, &what, async || {
            process.assert_running();
            listens(c2s).await && listens(component).await
        })
        .await;
        // ejabberd writes an account to disk minutes later, so it knows no account after `kill`.
        let users = self.users.get_mut().expect("no panic while held").clone();
        for user in users {
            self.add(&user).await;
        }
    }

    /// Kills the server by SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the server runs").kill();
    }

    /// Shuts the server down cleanly.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.terminate();
        process.wait(STOP_DEADLINE).await;
    }

    /// Makes the server hang: connections stay up, and nothing is read or written on them.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("the server runs").pause();
    }

    /// Lets the server continue after `pause`.
    pub fn unpause(&mut self) {
        self.process.as_mut().expect("the server runs").unpause();
    }

    /// Returns a component name that nobody uses yet.
    pub fn component(&self) -> Component {
        let number = self.components.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number <= COMPONENTS_MAX, "out of component names: raise COMPONENTS_MAX");
        Component {
            jid: BareJid::new(&format!("up{number}.localhost")).expect("a component's JID"),
            secret: self.site.secret.clone(),
        }
    }

    /// Registers a fresh account.
    pub async fn user(&self) -> User {
        let user = {
            let mut users = self.users.lock().expect("no panic while held");
            let number = users.len() + 1;
            let jid = BareJid::new(&format!("user{number}@localhost")).expect("a user's JID");
            let password = format!("password of user{number}");
            users.push(User { jid, password, devices: Devices::default() });
            users[number - 1].clone()
        };
        self.add(&user).await;
        user
    }

    async fn add(&self, user: &User) {
        match self.kind {
            Kind::Prosody => prosody::add_user(&self.site, user),
            Kind::Ejabberd => ejabberd::add_user(&self.site, user).await,
        }
    }

    /// Returns the `host:port` for components.
    pub fn component_address(&self) -> String {
        format!("127.0.0.1:{}", self.component_port)
    }

    /// Returns the server's output so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Tether::log).unwrap_or_default()
    }

    /// Returns the folder of the server's data and log.
    pub fn folder(&self) -> &Path {
        &self.site.folder
    }

    /// Returns the server's process id, to measure the process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Tether::pid)
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Prosody => "prosody",
            Self::Ejabberd => "ejabberd",
        }
    }

    fn command(self, site: &Site) -> Command {
        match self {
            Self::Prosody => prosody::command(site),
            Self::Ejabberd => ejabberd::command(site),
        }
    }
}

async fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}
