//! The pushes of one registration in the queue, for commands beside the server.

use push::{MessageId, PushMessage, RegistrationId, ports::Unavailable};

use crate::database::Database;

/// Most pushes that are read.
const QUEUED_MAX: i64 = 1000;

impl Database {
    /// Returns the ids of a registration's oldest pushes in the queue, including those that the server is delivering.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn queued(&self, registration: RegistrationId) -> Result<Vec<MessageId>, Unavailable> {
        const QUEUED: &str = "SELECT entry FROM queue WHERE registration = ?1 ORDER BY seq LIMIT ?2";
        let read = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare(QUEUED)?;
            let rows =
                statement.query_map((registration.as_bytes(), QUEUED_MAX), |row| row.get::<_, Vec<u8>>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let entries = self.read_apart(read).await?;
        let messages = entries.iter().filter_map(|entry| PushMessage::from_entry(entry).ok());
        Ok(messages.map(|message| message.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use push::ports::QueueWriter;

    use super::*;
    use crate::queue::tests::message;

    #[tokio::test]
    async fn what_is_queued_is_seen_from_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upwire.db");
        let (server, push) = (Database::open(&path).unwrap(), message(1));
        server.send(push.clone()).await.unwrap();
        let beside = Database::beside(&path).unwrap();
        assert_eq!(beside.queued(push.registration).await.unwrap(), [push.id]);
        assert_eq!(beside.queued(RegistrationId::from_bytes([7; 16])).await.unwrap(), []);
    }
}
