//! Connections for reads that take longer than a point query: pages of mailboxes, sweeps, accounts.

use std::{path::Path, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use push::ports::Unavailable;
use rusqlite::Connection;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::file::connect;

/// Reads that are made at a time, each on a connection of its own.
const READERS: usize = 2;

/// Reads on threads of their own, so that no task of the runtime waits behind them.
pub(crate) struct Readers {
    connections: Arc<[Mutex<Connection>; READERS]>,
    /// A permit for each connection that nobody holds.
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
            // The read goes on where its caller has been cancelled: the permit is given back behind the connection.
            let _permit = permit;
            query(&idle(&connections[..]))
        });
        reading.await.map_err(Unavailable::new)?.map_err(Unavailable::new)
    }
}

/// A connection that nobody holds: whoever has a permit finds one.
fn idle(connections: &[Mutex<Connection>]) -> MutexGuard<'_, Connection> {
    connections.iter().find_map(Mutex::try_lock).unwrap_or_else(|| connections[0].lock())
}
