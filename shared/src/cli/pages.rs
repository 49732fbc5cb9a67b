//! Completions for shells and pages for `man`, made from the command line itself.

use std::path::Path;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{
    Exit, Failure,
    cli::FullPath,
    file::{self, FileError},
    term,
};

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell; its documentation says where completions go
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder that the pages are written to, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: FullPath,
}

impl CompletionsArgs {
    /// Prints the completions of a command.
    pub fn run(&self, mut command: Command) -> Exit {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        term::line(String::from_utf8_lossy(&text).trim_end());
        Exit::Ok
    }
}

impl ManArgs {
    /// Writes a page for a command and for each of its subcommands.
    pub fn run(&self, command: Command) -> Result<Exit, Failure> {
        let folder: &Path = &self.folder;
        let write = || -> Result<(), FileError> {
            file::create_dir(folder)?;
            clap_mangen::generate_to(command, folder).map_err(FileError::on("write", folder))
        };
        write().map_err(|error| Failure::of(Exit::Machine, &error))?;
        term::note(format_args!("the pages are in {}", folder.display()));
        Ok(Exit::Ok)
    }
}
