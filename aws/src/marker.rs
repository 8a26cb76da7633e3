//! The marker on DynamoDB: one item beside the registrations.

use aws_sdk_dynamodb::types::AttributeValue;
use push::{
    Marker,
    ports::{MarkerWriter, Markers, Unavailable},
};

use crate::{error::unavailable, item::read_text, registrations::RegistrationsTable};

/// The key of the marker's item. The keys of registrations are hexadecimal.
const KEY: &str = "marker";
/// The attribute that has the marker, as JSON.
const MARKER: &str = "marker";

impl Markers for RegistrationsTable {
    async fn marker(&self) -> Result<Option<Marker>, Unavailable> {
        let (client, table) = self.parts();
        let get = client.get_item().table_name(table).key("id", AttributeValue::S(KEY.into()));
        let read = get.consistent_read(true).send().await.map_err(unavailable("dynamodb:GetItem"))?;
        let Some(item) = read.item else { return Ok(None) };
        let text = read_text(&item, MARKER).ok_or_else(|| Unavailable::new("the marker is malformed"))?;
        Marker::parse(text).map(Some).map_err(Unavailable::new)
    }
}

impl MarkerWriter for RegistrationsTable {
    async fn set_marker(&self, marker: &Marker) -> Result<(), Unavailable> {
        let (client, table) = self.parts();
        let put = client.put_item().table_name(table).item("id", AttributeValue::S(KEY.into()));
        let put = put.item(MARKER, AttributeValue::S(marker.to_json())).send().await;
        put.map(drop).map_err(unavailable("dynamodb:PutItem"))
    }
}
