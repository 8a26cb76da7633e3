//! Compares docs/configuration.md with the options that clap knows. `UPDATE=1 cargo test -p upwire configuration_page`
//! rewrites its variables, flags and defaults, adds the rows that it lacks, and drops those of options that are gone.

use std::collections::BTreeMap;

use clap::{Arg, Command, CommandFactory};

use crate::Upwire;
use crate::docs_page::DocsPage;

const PAGE: DocsPage = DocsPage::new("configuration.md", "configuration_page");

/// Returns the options of `command` that `besides` does not have, by flag.
fn options(command: &Command, besides: Option<&Command>) -> BTreeMap<String, Arg> {
    let known = |arg: &Arg| {
        besides.is_some_and(|other| other.get_arguments().any(|known| known.get_id() == arg.get_id()))
    };
    let named = command.get_arguments().filter(|arg| !known(arg) && arg.get_id() != "help");
    named.filter_map(|arg| Some((format!("`--{}`", arg.get_long()?), arg.clone()))).collect()
}

/// Returns the row of an option. A default that clap does not have stays as it is on the page.
fn row(flag: &str, arg: &Arg, default: &str, meaning: &str) -> String {
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let by_clap = arg.get_default_values().first().map(|value| format!("`{}`", value.to_string_lossy()));
    let default = if arg.get_action().takes_values() { by_clap } else { None }.unwrap_or(default.to_owned());
    let cells = [variable, flag.to_owned(), default, meaning.to_owned()];
    cells
        .iter()
        .fold("|".to_owned(), |row, cell| format!("{row} {cell}{}|", if cell.is_empty() { "" } else { " " }))
}

/// Returns the page as it has to be.
fn updated(page: &str, serve: &Command, relay: &Command) -> String {
    let mut pending = BTreeMap::new();
    let mut lines = Vec::new();
    let (mut of_options, mut in_table) = (false, false);
    for line in page.lines().chain([""]) {
        if let Some(heading) = line.strip_prefix("## ") {
            pending = match heading {
                "upwire serve" => options(serve, None),
                "upwire relay" => options(relay, Some(serve)),
                _ => BTreeMap::new(),
            };
            of_options = !pending.is_empty();
        }
        if in_table && !line.starts_with('|') {
            let missing = std::mem::take(&mut pending);
            lines.extend(missing.iter().map(|(flag, arg)| {
                row(flag, arg, "", &arg.get_help().map(ToString::to_string).unwrap_or_default())
            }));
        }
        in_table = of_options && line.starts_with('|');
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            [_, _, flag, default, meaning, _] if in_table && flag.starts_with("`--") => {
                lines.extend(pending.remove(flag).map(|arg| row(flag, &arg, default, meaning)));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

#[test]
fn the_page_of_the_configuration_has_each_option_with_its_variable_and_default() {
    let mut upwire = Upwire::command();
    upwire.build();
    let [serve, relay] = ["serve", "relay"].map(|name| upwire.find_subcommand(name).unwrap());
    PAGE.assert_is(&updated(&PAGE.text(), serve, relay));
}
