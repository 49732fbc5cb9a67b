//! `validator inspect store`: what is on disk, who refers to it, what could go.

use std::collections::BTreeMap;

use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;
use shared::{Exit, Failure, file, term};

use super::super::flags::{StoreFlags, store_failure};
use models::{
    copies::{self, NearCopy},
    store::{ModelRecord, Store, StoreError, Usage},
};
use subnet::Hotkey;

/// Show the models on disk.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreFlags,
}

/// One model of the store.
#[derive(Debug, Serialize)]
struct StoredModelRow {
    content_hash: String,
    repository: String,
    commit: String,
    bytes: u64,
    files: usize,
    added: jiff::Timestamp,
    last_used: jiff::Timestamp,
    hotkeys: Vec<Hotkey>,
    evaluated: bool,
    weight: f64,
    /// Whether something uses it at this moment.
    pinned: bool,
    /// Whether it could be removed to make room.
    removable: bool,
}

#[derive(Debug, Serialize)]
struct Overview {
    root: String,
    usage: Usage,
    free: u64,
    models: Vec<StoredModelRow>,
    near_copies: Vec<NearCopy>,
}

pub(super) fn run(args: &StoreArgs) -> Result<Exit, Failure> {
    let root = args.store.root();
    if !root.join("blobs").is_dir() {
        let heading = format!("there is no store in {}", root.display());
        return Err(Failure::new(Exit::BadInput, heading).hint("--model_dir names another folder"));
    }
    let store = args.store.open()?;
    let overview = overview(&store).map_err(|error| store_failure(&error))?;
    if args.json {
        term::json(&overview);
    } else {
        show(&overview);
    }
    Ok(Exit::Ok)
}

fn overview(store: &Store) -> Result<Overview, StoreError> {
    let needs = store.needs()?;
    let models = store.models()?;
    let records: Vec<ModelRecord> = models.iter().map(|model| model.record.clone()).collect();
    let mut rows = Vec::new();
    for model in models {
        let hash = model.record.content_hash;
        let need = needs.get(&hash).cloned().unwrap_or_default();
        let pinned = store.is_pinned(&hash)?;
        rows.push(StoredModelRow {
            content_hash: hash.to_string(),
            bytes: model.record.bytes(),
            files: model.record.files.len(),
            repository: model.record.repository,
            commit: model.record.commit,
            added: model.record.added,
            last_used: model.last_used,
            hotkeys: need.hotkeys,
            evaluated: need.evaluated,
            weight: need.weight,
            pinned,
            removable: !pinned && !need.evaluated,
        });
    }
    Ok(Overview {
        root: store.root().display().to_string(),
        usage: store.usage()?,
        free: file::free_space(store.root())?,
        models: rows,
        near_copies: copies::near_copies(&records),
    })
}

fn show(overview: &Overview) {
    let Usage { blobs, staging } = overview.usage;
    term::line(format_args!(
        "{}: {} in files, {} unfinished, {} free on the disk",
        overview.root,
        HumanBytes(blobs),
        HumanBytes(staging),
        HumanBytes(overview.free)
    ));
    let mut table = term::table([
        "content hash",
        "repository",
        "bytes",
        "hotkeys",
        "last used",
        "kept because",
    ]);
    for row in &overview.models {
        let reason = match row {
            StoredModelRow { pinned: true, .. } => "in use",
            StoredModelRow {
                evaluated: true, ..
            } => "evaluated each step",
            StoredModelRow { hotkeys, .. } if !hotkeys.is_empty() => "committed; may go",
            _ => "nobody needs it; may go",
        };
        let hotkeys = match row.hotkeys.as_slice() {
            [] => "-".to_owned(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        table.add_row([
            row.content_hash.clone(),
            row.repository.clone(),
            HumanBytes(row.bytes).to_string(),
            hotkeys,
            row.last_used.strftime("%F %T").to_string(),
            reason.to_owned(),
        ]);
    }
    term::line(table);
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for NearCopy {
        first,
        second,
        share,
    } in &overview.near_copies
    {
        let text = format!("shares {:.1} % of its tensors with {first}", share * 100.0);
        shown.insert(second.to_string(), text);
    }
    for (second, text) in shown {
        term::line(format_args!("near-copy: {second} {text}"));
    }
}
