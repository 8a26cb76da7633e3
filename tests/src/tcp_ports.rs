//! Hands out ports that nobody else on this machine takes before their server has bound them.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;
use std::process;
use std::sync::Mutex;

use rustix::process::getuid;

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up), so
/// that the port of a server that is down for a moment is still free when it comes back.
const PORT_FIRST: u16 = 20_000;
/// A process takes a block at a time.
const BLOCK_PORTS: u16 = 100;
const BLOCKS: u16 = 120;
/// Of each user; has a lock file for each block, named by its first port; `infra/local/function-url.py` locks its own there,
/// too.
const FOLDER: &str = "upwire-ports-";

struct Ports {
    /// The rest of the last block.
    left: Range<u16>,
    next_block: u16,
    /// Locked until the process ends, however that comes about.
    blocks: Vec<File>,
}

static PORTS: Mutex<Option<Ports>> = Mutex::new(None);

/// A loopback port on which nothing listens. No other call gets it, in this process or another one, for as long as this
/// process lives.
pub fn free_port() -> u16 {
    PORTS.lock().expect("no panic while held").get_or_insert_with(Ports::new).take()
}

impl Ports {
    fn new() -> Self {
        // Servers of a run that has just ended may not be gone yet: the next run starts elsewhere.
        Self { left: 0..0, next_block: (process::id() % u32::from(BLOCKS)) as u16, blocks: Vec::new() }
    }

    fn take(&mut self) -> u16 {
        loop {
            let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
            match self.left.find(free) {
                Some(port) => return port,
                None => self.lock_a_block(),
            }
        }
    }

    fn lock_a_block(&mut self) {
        let folder = env::temp_dir().join(format!("{FOLDER}{}", getuid().as_raw()));
        fs::create_dir_all(&folder).expect("create the folder of the ports' locks");
        for _ in 0..BLOCKS {
            let first = PORT_FIRST + self.next_block * BLOCK_PORTS;
            self.next_block = (self.next_block + 1) % BLOCKS;
            let lock = File::create(folder.join(first.to_string())).expect("create a lock file for ports");
            if lock.try_lock().is_ok() {
                self.blocks.push(lock);
                self.left = first..first + BLOCK_PORTS;
                return;
            }
        }
        panic!("no free block of ports from {PORT_FIRST} on");
    }
}
