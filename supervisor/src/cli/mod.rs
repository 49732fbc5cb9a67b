//! The command line: what each subcommand does.

mod adopt_pm2;
mod args;
mod configure;
mod doctor;
mod layers;
mod logs;
mod run;
mod talk;

use std::ffi::OsString;

use shared::{Exit, Failure, version::Version};

use args::Command;

use crate::update::channel;

/// Parses the command line and does what it says.
pub fn main(line: &[OsString], version: Version) -> Result<Exit, Failure> {
    let cli = match layers::parse(line, version)? {
        layers::Parsed::Text(text) => {
            shared::term::line(text.trim_end());
            return Ok(Exit::Ok);
        }
        layers::Parsed::Cli(cli) => *cli,
    };
    match cli.command {
        None => run::run(cli.run, line, version),
        Some(Command::Run(options)) => run::run(*options, line, version),
        Some(Command::Worker { supervisor }) => Ok(crate::worker::run(supervisor)),
        Some(Command::Launch(launch)) => {
            crate::child::spec::launch(launch.memory_max, &launch.line)
        }
        Some(Command::Status(query)) => talk::status(&query),
        Some(Command::Restart(query)) => talk::order(&query, &crate::control::Command::Restart),
        Some(Command::Stop(query)) => talk::order(&query, &crate::control::Command::Stop),
        Some(Command::Rollback(query)) => talk::order(&query, &crate::control::Command::Rollback),
        Some(Command::Check(query)) => talk::check(&query),
        Some(Command::Doctor(options)) => doctor::examine(*options),
        Some(Command::AdoptPm2(options)) => adopt_pm2::show(options.name.as_deref()),
        Some(Command::Sign(options)) => sign(&options),
        Some(Command::Update(options)) => {
            let command = crate::control::Command::Update {
                force: options.force,
            };
            talk::order(&options.query, &command)
        }
        Some(Command::History(query)) => talk::history(&query),
        Some(Command::Logs(options)) => logs::show(&options),
    }
}

fn sign(options: &args::Sign) -> Result<Exit, Failure> {
    let failed = |fault: crate::error::Fault| Failure::new(Exit::Failed, fault);
    if options.new_key {
        let public = channel::new_key(&options.key).map_err(failed)?;
        shared::term::line(format_args!(
            "wrote {} and {}",
            options.key.display(),
            public.display()
        ));
    }
    for archive in &options.archives {
        channel::sign(archive, &options.key).map_err(failed)?;
        shared::term::line(format_args!("signed {}", archive.display()));
    }
    Ok(Exit::Ok)
}
