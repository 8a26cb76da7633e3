//! Users' commands (XEP-0050): their requests, and the answers to them.

use push::RegistrationId;
use tokio_xmpp::{
    jid::BareJid,
    minidom::{
        Element,
        rxml::{Namespace, xml_ncname},
    },
    parsers::{
        data_forms::{DataForm, DataFormType, Field, FieldType, Option_},
        disco::{DiscoInfoResult, DiscoItemsResult, Identity, Item},
        ns,
        stanza_error::{DefinedCondition, ErrorType, StanzaError},
    },
};

/// The namespace of commands, and the disco node of their list.
pub(crate) const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// The only field of the forms.
const CHOSEN: &str = "registrations";
/// Most registrations that one command may choose.
pub(crate) const CHOSEN_MAX: usize = 32;
/// The session id of every command: nothing is remembered between its two steps.
const SESSION: &str = "upwire";

/// The command that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    List,
    End,
    Test,
}

/// A user's request for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) node: Node,
    pub(crate) step: Step,
}

/// The step of the command that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    Cancel,
    /// The form comes back, with these registrations chosen.
    Submit(Vec<RegistrationId>),
}

/// Why a request is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadCommand {
    NoSuchNode,
    BadAction,
    /// The form does not parse, chooses too many registrations, or has a value that is no id.
    BadForm,
}

impl Node {
    const ALL: [Self; 3] = [Self::List, Self::End, Self::Test];

    const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::End => "end",
            Self::Test => "test",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::List => "My push endpoints",
            Self::End => "End push endpoints",
            Self::Test => "Send a test push",
        }
    }

    const fn instructions(self) -> &'static str {
        match self {
            Self::List => "The applications on your devices that get pushes.",
            Self::End => {
                "An application whose endpoint ends gets no more pushes at it, and a new endpoint when your device \
                 registers it again."
            }
            Self::Test => {
                "The push goes the way that all others go. An application that expects encrypted pushes ignores it; \
                 this command's answer, and the device's, are what it is for."
            }
        }
    }

    pub(crate) fn named(node: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == node)
    }
}

impl Command {
    pub(crate) fn read(payload: &Element) -> Result<Self, BadCommand> {
        let node = payload.attr::<str>("node").and_then(Node::named).ok_or(BadCommand::NoSuchNode)?;
        let form = payload.children().find(|child| child.is("x", ns::DATA_FORMS));
        let step = match payload.attr::<str>("action").unwrap_or("execute") {
            "cancel" => Step::Cancel,
            "execute" | "complete" | "next" => form.map_or(Ok(Step::Begin), Self::submitted)?,
            _ => return Err(BadCommand::BadAction),
        };
        Ok(Self { node, step })
    }

    fn submitted(form: &Element) -> Result<Step, BadCommand> {
        let form = DataForm::try_from(form.clone()).map_err(|_| BadCommand::BadForm)?;
        if form.type_ == DataFormType::Cancel {
            return Ok(Step::Cancel);
        }
        let field = form.fields.into_iter().find(|field| field.var.as_deref() == Some(CHOSEN));
        let values = field.map(|field| field.values).unwrap_or_default();
        if values.len() > CHOSEN_MAX {
            return Err(BadCommand::BadForm);
        }
        // Nothing was chosen: the form is offered again.
        if values.is_empty() {
            return Ok(Step::Begin);
        }
        let chosen = values.iter().map(|value| parse_id(value).ok_or(BadCommand::BadForm));
        chosen.collect::<Result<_, _>>().map(Step::Submit)
    }
}

fn error(kind: ErrorType, condition: DefinedCondition, text: &str) -> StanzaError {
    StanzaError::new(kind, condition, "en", text)
}

fn parse_id(text: &str) -> Option<RegistrationId> {
    let is_hex = text.len() == 2 * RegistrationId::BYTES && text.bytes().all(|c| c.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(RegistrationId::from_bytes(number.to_be_bytes()))
}

impl From<BadCommand> for StanzaError {
    fn from(bad: BadCommand) -> Self {
        match bad {
            BadCommand::NoSuchNode => {
                error(ErrorType::Cancel, DefinedCondition::ItemNotFound, "no such command")
            }
            BadCommand::BadAction => {
                let text = "a command is executed, completed or cancelled";
                error(ErrorType::Modify, DefinedCondition::BadRequest, text)
            }
            BadCommand::BadForm => {
                let text = "choose from the endpoints that the form offers, 32 at most";
                error(ErrorType::Modify, DefinedCondition::BadRequest, text)
            }
        }
    }
}

/// Returns the list of commands (XEP-0050, "Retrieving the Command List").
pub(crate) fn items(component: &BareJid) -> Element {
    let items = Node::ALL.map(|node| Item {
        jid: component.clone().into(),
        node: Some(node.name().into()),
        name: Some(node.title().into()),
    });
    DiscoItemsResult { node: Some(COMMANDS.into()), items: items.into(), rsm: None }.into()
}

/// Returns the description of a command (XEP-0050, "Retrieving Command Information").
pub(crate) fn info(node: Node) -> Element {
    DiscoInfoResult {
        node: Some(node.name().into()),
        identities: vec![Identity::new("automation", "command-node", "en", node.title())],
        features: [COMMANDS, ns::DATA_FORMS].map(str::to_owned).into(),
        extensions: Vec::new(),
    }
    .into()
}

/// A registration as a user sees it.
pub(crate) struct Shown {
    pub(crate) id: RegistrationId,
    pub(crate) text: String,
}

/// Returns the form that asks which registrations are meant.
pub(crate) fn form(node: Node, shown: Vec<Shown>) -> Element {
    let options = shown.into_iter().take(CHOSEN_MAX);
    let options = options.map(|shown| Option_ { label: Some(shown.text), value: shown.id.to_string() });
    let field = Field {
        label: Some("Endpoints".into()),
        required: true,
        options: options.collect(),
        ..Field::new(CHOSEN, FieldType::ListMulti)
    };
    let form = described(node, DataForm::new(DataFormType::Form, COMMANDS, vec![field]));
    let actions = Element::builder("actions", COMMANDS)
        .attr(xml_ncname!("execute").into(), "complete")
        .append(Element::bare("complete", COMMANDS))
        .build();
    let mut answer = answer(node, "executing");
    answer.append_child(actions);
    answer.append_child(form.into());
    answer
}

/// Returns the registrations, for a user to read.
pub(crate) fn listed(shown: &[Shown]) -> Element {
    let lines = shown.iter().map(|shown| shown.text.clone()).collect();
    let field =
        Field { label: Some("Endpoints".into()), values: lines, ..Field::new(CHOSEN, FieldType::TextMulti) };
    let form = described(Node::List, DataForm::new(DataFormType::Result_, COMMANDS, vec![field]));
    let mut answer = completed(Node::List, &format!("{} endpoints", shown.len()));
    answer.append_child(form.into());
    answer
}

/// Returns the answer that a command was carried out, with a note.
pub(crate) fn completed(node: Node, note: &str) -> Element {
    let mut answer = answer(node, "completed");
    let note = Element::builder("note", COMMANDS).attr(xml_ncname!("type").into(), "info").append(note);
    answer.append_child(note.build());
    answer
}

/// Returns the answer that a command was cancelled.
pub(crate) fn cancelled(node: Node) -> Element {
    answer(node, "canceled")
}

fn described(node: Node, form: DataForm) -> DataForm {
    DataForm { title: Some(node.title().into()), instructions: Some(node.instructions().into()), ..form }
}

fn answer(node: Node, status: &str) -> Element {
    let mut answer = Element::bare("command", COMMANDS);
    for (name, value) in [
        (xml_ncname!("node"), node.name()),
        (xml_ncname!("sessionid"), SESSION),
        (xml_ncname!("status"), status),
    ] {
        answer.set_attr(Namespace::NONE, name.into(), value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(xml: &str) -> Result<Command, BadCommand> {
        Command::read(&xml.parse().unwrap())
    }

    fn command(attributes: &str, form: &str) -> String {
        format!("<command xmlns='{COMMANDS}' {attributes}>{form}</command>")
    }

    #[test]
    fn a_command_begins_ends_or_brings_its_form_back() {
        let id = RegistrationId::from_bytes([0xab; 16]);
        let form = |kind: &str, value: &str| {
            format!(
                "<x xmlns='jabber:x:data' type='{kind}'><field var='registrations'><value>{value}</value></field></x>"
            )
        };
        let step =
            |attributes: &str, form: &str| read(&command(attributes, form)).map(|command| command.step);
        assert_eq!(step("node='list'", ""), Ok(Step::Begin));
        assert_eq!(step("node='end' action='cancel'", ""), Ok(Step::Cancel));
        assert_eq!(step("node='end'", "<x xmlns='jabber:x:data' type='cancel'/>"), Ok(Step::Cancel));
        let nothing = "<x xmlns='jabber:x:data' type='submit'/>";
        assert_eq!(step("node='end' action='complete'", nothing), Ok(Step::Begin), "nothing was chosen");
        let submitted = step("node='end' action='complete'", &form("submit", &id.to_string()));
        assert_eq!(submitted, Ok(Step::Submit(vec![id])));
        assert_eq!(step("node='other'", ""), Err(BadCommand::NoSuchNode));
        assert_eq!(step("", ""), Err(BadCommand::NoSuchNode));
        assert_eq!(step("node='end' action='prev'", ""), Err(BadCommand::BadAction));
        for wrong in ["", "abc", "+0000000000000000000000000000000"] {
            assert_eq!(step("node='end'", &form("submit", wrong)), Err(BadCommand::BadForm), "{wrong}");
        }
        let many = format!("<value>{id}</value>").repeat(CHOSEN_MAX + 1);
        let many =
            format!("<x xmlns='jabber:x:data' type='submit'><field var='registrations'>{many}</field></x>");
        assert_eq!(step("node='end'", &many), Err(BadCommand::BadForm));
    }

    #[test]
    fn the_form_that_is_offered_is_one_that_comes_back() {
        let id = RegistrationId::from_bytes([1; 16]);
        let form = form(Node::Test, vec![Shown { id, text: "a phone".into() }]);
        assert_eq!(form.attr("status"), Some("executing"));
        let form = DataForm::try_from(form.get_child("x", ns::DATA_FORMS).unwrap().clone()).unwrap();
        let field = form.fields.into_iter().find(|field| field.var.as_deref() == Some(CHOSEN)).unwrap();
        assert_eq!(field.options[0].value, id.to_string());
        for node in Node::ALL {
            assert_eq!(Node::named(node.name()), Some(node));
            assert!(DiscoInfoResult::try_from(info(node)).is_ok());
        }
    }
}
