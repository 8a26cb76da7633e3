//! Settings: texts by name.

use rusqlite::{Connection, OptionalExtension};

/// Reads a setting.
pub(crate) fn find_setting(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()
}
