//! Hands out ports that no other process of the tests takes before their server has bound them.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;
use std::process;
use std::sync::Mutex;

use rustix::process::getuid;

/// The first port that is handed out. All are below the range from which Linux takes the ports of outgoing connections
/// (32768 and up). So the port of a server that is down for a moment is still free when it comes back.
const PORT_FIRST: u16 = 20_000;
/// Number of ports in a block. A process locks one block at a time.
const BLOCK_PORTS: u16 = 100;
const BLOCKS: u16 = 120;
/// Prefix of each user's folder of lock files, one for each block, named by its first port.
/// `infra/local/function-url.py` locks its own blocks there, too.
const FOLDER: &str = "upwire-ports-";

struct Ports {
    /// The unused ports of the last block.
    left: Range<u16>,
    next_block: u16,
    /// The lock files, locked until the process ends in any way.
    blocks: Vec<File>,
}

static PORTS: Mutex<Option<Ports>> = Mutex::new(None);

/// Returns a loopback port on which nothing listens. No other call gets it, in this process or another, while this
/// process lives.
pub fn free_port() -> u16 {
    PORTS.lock().expect("no panic while held").get_or_insert_with(Ports::new).take()
}

impl Ports {
    fn new() -> Self {
        // Servers of a run that has just ended may still hold ports, so the next run starts at another block.
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
