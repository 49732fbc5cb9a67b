//! `validator report`: a bundle for a bug report.

mod redact;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use clap::Args;
use flate2::{Compression, write::GzEncoder};
use shared::{Exit, Failure, cli::FullPath, clock, file, term, version::Version};

use self::redact::Redactor;
use super::flags::OwnFlags;
use crate::service;
use report::{events, journal};

/// Of a log or a journal, no more of its end is taken.
const TAIL: u64 = 1 << 20;

/// Make a bundle for a bug report, without secrets
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The archive [default: validator-report-TIME.tar.gz in this folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<FullPath>,
    /// A log to take along, such as the supervisor's; may be repeated
    #[arg(long = "add-log", value_name = "FILE")]
    logs: Vec<FullPath>,
    #[command(flatten)]
    own: OwnFlags,
}

const README: &str = "\
What this is: the state of a validator for a bug report, made by `validator report`.

Taken out: tokens, keys and passwords, addresses of machines and of webhooks, e-mail addresses, the name of the user and
of the machine, what follows the first 8 digits of long hexadecimal numbers. Hotkeys, coldkeys and repositories are public
on the chain and stay.

It was made by rules, not by a person: look at it before you send it.
";

pub(super) fn run(args: &ReportArgs, version: &Version) -> Result<Exit, Failure> {
    let folder = args.own.folder()?;
    let path = if let Some(path) = &args.output {
        path.to_path_buf()
    } else {
        let time = clock::now().strftime("%Y%m%dT%H%M%SZ");
        FullPath::of(Path::new(&format!("validator-report-{time}.tar.gz")))
            .map_err(|error| Failure::of(Exit::Machine, &error))?
            .to_path_buf()
    };
    let redactor = Redactor::of_this_machine();
    let parts = parts(args, &folder, version);
    let bytes = pack(&parts, &redactor).map_err(|error| Failure::of(Exit::Machine, &error))?;
    file::write_atomic_private(&path, &bytes)
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    for (name, text) in &parts {
        term::note(format_args!("  {name} ({} bytes)", text.len()));
    }
    term::note("tokens, keys, names and addresses are taken out; look at it before you send it");
    term::line(path.display());
    Ok(Exit::Ok)
}

fn pack(parts: &[(String, String)], redactor: &Redactor) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in parts {
        let text = redactor.redact(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(
            &mut header,
            format!("validator-report/{name}"),
            text.as_bytes(),
        )?;
    }
    archive.into_inner()?.finish()
}

/// Returns the files of the bundle; what can't be had says why in its place.
fn parts(args: &ReportArgs, folder: &Path, version: &Version) -> Vec<(String, String)> {
    let records = folder.join("records");
    let mut parts = vec![
        ("README.txt".to_owned(), README.to_owned()),
        ("system.txt".to_owned(), system(version, folder)),
    ];
    for (name, path) in [
        ("status.json", folder.join(service::STATUS)),
        ("metrics.prom", folder.join(service::METRICS)),
        ("tracker.json", folder.join("tracker.json")),
        ("validator.log", folder.join("validator.log")),
        ("events.jsonl", records.join(events::EVENTS)),
    ] {
        parts.push((name.to_owned(), tail(&path)));
    }
    let last = journal::read(&records.join(journal::CURRENT)).map(|mut entries| entries.pop());
    parts.push((
        "last-step.json".to_owned(),
        match last {
            Ok(Some(entry)) => String::from_utf8_lossy(&entry.line).into_owned(),
            Ok(None) => "there is no step in the current journal".to_owned(),
            Err(error) => error.to_string(),
        },
    ));
    for (number, log) in args.logs.iter().enumerate() {
        let name = log
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        parts.push((format!("log-{number}-{name}"), tail(log)));
    }
    parts
}

/// Returns the end of a file, from a whole line on.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(match text.split_once('\n') {
            Some((_, rest)) if from > 0 => rest.to_owned(),
            _ => text,
        })
    };
    read().unwrap_or_else(|error| format!("not to be had: {error}\n"))
}

/// Says what machine this is, as far as that explains faults.
fn system(version: &Version, folder: &Path) -> String {
    let proc = |name: &str, wanted: &[&str]| -> String {
        let text = tail(&PathBuf::from("/proc").join(name));
        let lines = text
            .lines()
            .filter(|line| wanted.iter().any(|word| line.starts_with(word)));
        lines.take(8).map(|line| format!("{line}\n")).collect()
    };
    let free =
        file::free_space(folder).map_or_else(|error| error.to_string(), |free| free.to_string());
    format!(
        "validator {version}\nmade at {}\nfree bytes at the state's folder: {free}\n{}{}{}{}",
        clock::now(),
        proc("version", &["Linux"]),
        proc("meminfo", &["MemTotal", "MemAvailable", "SwapTotal"]),
        proc("cpuinfo", &["model name"]),
        proc("driver/nvidia/version", &["NVRM"]),
    )
}
