//! `upwire assets`: writes the man pages and completions for packages, from the command line's own definition.

use std::path::PathBuf;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// Write man pages and completions, for packages.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder of the man pages
    #[arg(value_name = "FOLDER")]
    man: PathBuf,

    /// The folder of the completions
    #[arg(value_name = "FOLDER")]
    completions: PathBuf,
}

/// Writes all assets.
pub(crate) fn run(Options { man, completions }: &Options, mut command: Command) -> anyhow::Result<()> {
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, "upwire", completions)?;
    }
    Ok(clap_mangen::generate_to(command, man)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_subcommand_has_a_page_and_each_shell_its_completions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        run(&Options { man: path.clone(), completions: path.clone() }, crate::Upwire::command()).unwrap();
        for page in ["upwire.1", "upwire-serve.1", "upwire-registrations-list.1", "upwire-restore.1"] {
            assert!(std::fs::read_to_string(path.join(page)).unwrap().contains(".TH"), "{page}");
        }
        assert!(!path.join("upwire-assets.1").exists(), "it is for packages alone");
        for file in ["upwire.bash", "_upwire", "upwire.fish"] {
            assert!(std::fs::read_to_string(path.join(file)).unwrap().contains("registrations"), "{file}");
        }
    }
}
