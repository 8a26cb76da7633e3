//! The marker on SQLite, stored as a setting.

use push::{
    Marker,
    ports::{MarkerWriter, Markers, Unavailable},
};
use rusqlite::params;

use crate::database::Database;

const NAME: &str = "marker";
const SET: &str = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";

impl Markers for Database {
    async fn marker(&self) -> Result<Option<Marker>, Unavailable> {
        let text = self.setting(NAME)?;
        text.as_deref().map(Marker::parse).transpose().map_err(Unavailable::new)
    }
}

impl MarkerWriter for Database {
    async fn set_marker(&self, marker: &Marker) -> Result<(), Unavailable> {
        let text = marker.to_json();
        self.write(move |connection| connection.execute(SET, params![NAME, text]).map(drop)).await
    }
}
