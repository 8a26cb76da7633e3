//! The answers of the component about itself (XEP-0030, XEP-0092, XEP-0157).

use tokio_xmpp::{
    minidom::Element,
    parsers::{
        data_forms::{DataForm, DataFormType, Field, FieldType},
        disco::{DiscoInfoResult, DiscoItemsResult, Identity},
        ns,
        stanza_error::{DefinedCondition, ErrorType, StanzaError},
        version::VersionResult,
    },
};
use url::Url;

use super::{
    commands::COMMANDS,
    stanza::{UNIFIED_PUSH, error},
};

/// Returns the answer to a disco#info query (XEP-0030): the identity, the features, and who runs this server
/// (XEP-0157).
pub(crate) fn info(contact: &[Url]) -> Element {
    let features = [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, ns::VERSION, COMMANDS, UNIFIED_PUSH]
        .map(str::to_owned)
        .into();
    let identities = vec![Identity::new("pubsub", "push", "en", "Upwire, a UnifiedPush server")];
    let extensions = if contact.is_empty() { Vec::new() } else { vec![contact_form(contact)] };
    DiscoInfoResult { node: None, identities, features, extensions }.into()
}

/// Makes the contact form. One contact serves all fields: the operator of a push server is its administrator and its
/// support, and is told of abuse.
fn contact_form(contact: &[Url]) -> DataForm {
    let fields = ["abuse-addresses", "admin-addresses", "support-addresses"].map(|name| Field {
        values: contact.iter().map(Url::to_string).collect(),
        ..Field::new(name, FieldType::ListMulti)
    });
    DataForm::new(DataFormType::Result_, ns::SERVER_INFO, fields.into())
}

/// Returns the error for a query about an unknown node.
pub(crate) fn no_such_node() -> StanzaError {
    error(ErrorType::Cancel, DefinedCondition::ItemNotFound, "no such node")
}

/// Returns the answer to a query for the software version (XEP-0092).
pub(crate) fn version() -> Element {
    VersionResult { name: "Upwire".into(), version: env!("CARGO_PKG_VERSION").into(), os: None }.into()
}

/// Returns the answer to a query for items: there are none.
pub(crate) fn items() -> Element {
    DiscoItemsResult { node: None, items: Vec::new(), rsm: None }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_this_is_in_the_answer_to_discovery() {
        let contact = ["mailto:admin@example.com", "xmpp:admin@example.com"].map(|url| url.parse().unwrap());
        let answer = DiscoInfoResult::try_from(info(&contact)).unwrap();
        let [form] = &answer.extensions[..] else { panic!("{answer:?}") };
        assert_eq!(form.form_type(), Some(ns::SERVER_INFO));
        for name in ["abuse-addresses", "admin-addresses", "support-addresses"] {
            let field = form.fields.iter().find(|field| field.var.as_deref() == Some(name)).unwrap();
            assert_eq!(field.values, ["mailto:admin@example.com", "xmpp:admin@example.com"]);
        }
        assert!(DiscoInfoResult::try_from(info(&[])).unwrap().extensions.is_empty());
    }
}
