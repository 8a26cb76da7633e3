//! Connections for reads that take longer than a point query: pages of mailboxes, sweeps, accounts.

use std::{path::Path, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use push::ports::Unavailable;
use rusqlite::Connection;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::file::connect;

/// Number of connections, and so of concurrent reads.
const READERS: usize = 2;

/// Reads on threads of their own, so that they block no task of the runtime.
pub(crate) struct Readers {
    connections: Arc<[Mutex<Connection>; READERS]>,
    /// One permit for each idle connection.
    idle: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = || connect(path).map(Mutex::new);
        let connections = Arc::new([connection()?, connection()?]);
        Ok(Self { connections, idle: Arc::new(Semaphore::new(READERS)) })
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let permit = Arc::clone(&self.idle).acquire_owned().await.expect("it is never closed");
        let connections = Arc::clone(&self.connections);
        let reading = spawn_blocking(move || {
            // The read goes on if its caller is cancelled, so the closure holds the permit, and returns it after the
            // connection.
            let _permit = permit;
            query(&idle(&connections[..]))
        });
        reading.await.map_err(Unavailable::new)?.map_err(Unavailable::new)
    }
}

/// Returns an idle connection. A holder of a permit always finds one.
fn idle(connections: &[Mutex<Connection>]) -> MutexGuard<'_, Connection> {
    connections.iter().find_map(Mutex::try_lock).unwrap_or_else(|| connections[0].lock())
}
