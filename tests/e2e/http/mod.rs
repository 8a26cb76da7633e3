//! The resources over HTTP, as `upwire serve` answers for them.

mod description;
mod marker;
mod push_message_resource;
mod push_resource;
