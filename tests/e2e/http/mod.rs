//! The HTTP resources of `upwire serve`.

mod description;
mod marker;
mod push_message_resource;
mod push_resource;
