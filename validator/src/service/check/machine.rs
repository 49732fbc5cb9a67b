//! What this machine has to give: device, disk, memory, the store of models.

use std::path::Path;

use shared::file;

use super::{Line, Settings, text};
use eval::Evaluator;
use model::protocol::Wall;
use models::{
    Store,
    store::{Depth, StoreError},
};
use subnet::FaultKind;

/// Below this much available memory, tokenizing alone may fail.
const LITTLE_MEMORY: u64 = 4 << 30;

/// The device, and the walls of the workers on it.
pub(super) async fn device(settings: &Settings) -> Vec<Line> {
    const SUBJECT: &str = "device";
    const REMEDY: &str = "--device auto or cpu computes without a GPU; see docs/operating.md";
    let evaluator = Evaluator::new(settings.workers.clone());
    let mut names = Vec::new();
    let (mut problem, mut unused_gpu, mut walls) = (None, None, Vec::new());
    for started in evaluator.start().await {
        let found = started.hello.and_then(|hello| {
            walls = hello.sandbox;
            Ok((hello.device?, hello.unused_gpu))
        });
        match found {
            Ok((device, unused)) => {
                names.push(format!("{} ({})", device.id, device.name));
                unused_gpu = unused_gpu.or(unused);
            }
            Err(fault) => problem = Some(fault),
        }
    }
    if problem.is_none() {
        for (device, tested) in evaluator.self_test().await {
            match tested {
                Ok(test) => names.push(format!("self-test of {device} off by {:.1e}", test.worst)),
                Err(fault) => problem = Some(fault),
            }
        }
    }
    evaluator.shut_down().await;
    let device = match (problem, unused_gpu) {
        (Some(fault), _) => Line::fail(SUBJECT, FaultKind::Machine, fault, REMEDY),
        (None, Some(why)) => Line::warn(
            SUBJECT,
            format_args!("{}; {why}", names.join(", ")),
            "a GPU is many times faster: docs/operating.md says what it needs",
        ),
        (None, None) => Line::ok(SUBJECT, names.join(", ")),
    };
    let sandbox = (!walls.is_empty()).then(|| sandbox(&walls));
    [device].into_iter().chain(sandbox).collect()
}

/// Which walls of the worker's sandbox stand. A control group is only to be had from systemd.
fn sandbox(walls: &[Wall]) -> Line {
    const SUBJECT: &str = "sandbox";
    let standing = walls.iter().filter(|wall| wall.stands.is_ok());
    let standing: Vec<&str> = standing.map(|wall| wall.name.as_str()).collect();
    let missing: Vec<String> = walls
        .iter()
        .filter_map(|wall| Some(format!("{}: {}", wall.name, wall.stands.as_ref().err()?)))
        .collect();
    let detail = format!("walls: {}", standing.join(", "));
    let optional = |wall: &Wall| wall.stands.is_ok() || wall.name == "cgroup";
    if walls.iter().all(optional) {
        Line::ok(SUBJECT, detail)
    } else {
        Line::warn(
            SUBJECT,
            format_args!("{detail}; not {}", missing.join("; not ")),
            "docs/walls.md says what each holds",
        )
    }
}

/// Whether programs of this user may look into each other.
pub(super) fn tracing() -> Line {
    const SUBJECT: &str = "ptrace";
    let scope = file::read_limited(Path::new("/proc/sys/kernel/yama/ptrace_scope"), 16);
    let scope = scope
        .ok()
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match scope.as_deref().map(str::trim) {
        Some("0") => Line::warn(
            SUBJECT,
            "any program of this user may look into the validator (kernel.yama.ptrace_scope is 0)",
            "`sysctl kernel.yama.ptrace_scope=1`; the key itself is in memory that only the validator can read, \
             where the kernel has that",
        ),
        Some(scope) => Line::ok(SUBJECT, format_args!("kernel.yama.ptrace_scope is {scope}")),
        None => Line::ok(SUBJECT, "this kernel has no limit beyond the user's (Yama)"),
    }
}

pub(super) fn disk(settings: &Settings) -> Line {
    const SUBJECT: &str = "disk";
    let folder = &settings.model_folder;
    let probe = settings.folder.join("probe");
    if let Err(error) = file::write_atomic(&probe, b"can we write here?") {
        return Line::fail(
            SUBJECT,
            FaultKind::Machine,
            text(&error),
            "make the folder writable, or name another with --state-dir",
        );
    }
    let _ = std::fs::remove_file(&probe);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    match file::free_space(folder) {
        Err(error) => Line::fail(
            SUBJECT,
            FaultKind::Machine,
            text(&error),
            "--model_dir names another folder",
        ),
        Ok(free) => {
            let least = settings.limits.min_free;
            let detail = format!(
                "{:.1} GB free for models in {}",
                gigabytes(free),
                folder.display()
            );
            let largest = settings.step.parameters.max_repository_bytes;
            if free <= least {
                let detail = format!("{detail}, {:.1} GB are to be left free", gigabytes(least));
                Line::fail(
                    SUBJECT,
                    FaultKind::Machine,
                    detail,
                    "free some, or lower --min-free",
                )
            } else if free - least < 2 * largest {
                Line::warn(
                    SUBJECT,
                    detail,
                    "two models of the largest size do not fit: free some",
                )
            } else {
                Line::ok(SUBJECT, detail)
            }
        }
    }
}

/// Returns how many bytes programs can still have; none on a system that does not say.
pub(super) fn available_memory() -> Option<u64> {
    let bytes = file::read_limited(Path::new("/proc/meminfo"), 1 << 16).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

pub(super) fn memory() -> Line {
    const SUBJECT: &str = "memory";
    match available_memory() {
        None => Line::warn(
            SUBJECT,
            "this system does not say",
            "see that some GB are free",
        ),
        Some(bytes) if bytes < LITTLE_MEMORY => Line::warn(
            SUBJECT,
            format_args!("{:.1} GB available", bytes as f64 / 1e9),
            "stop other programs: a model on the CPU needs its size in f32",
        ),
        Some(bytes) => Line::ok(
            SUBJECT,
            format_args!("{:.1} GB available", bytes as f64 / 1e9),
        ),
    }
}

pub(super) async fn store(settings: &Settings, deep: bool) -> Line {
    const SUBJECT: &str = "store";
    const REMEDY: &str = "--model_dir names another folder";
    let depth = if deep { Depth::Bytes } else { Depth::Sizes };
    let (folder, limits) = (settings.model_folder.clone(), settings.limits);
    let checked = tokio::task::spawn_blocking(move || {
        let store = Store::open(&folder, limits)?;
        let damage = store.check(depth, |_| ())?;
        Ok((store.models()?.len(), store.usage()?.blobs, damage))
    });
    let checked: Result<_, StoreError> = match checked.await {
        Ok(checked) => checked,
        Err(panic) => return Line::fail(SUBJECT, FaultKind::Machine, panic, REMEDY),
    };
    match checked {
        Err(error) => Line::fail(SUBJECT, FaultKind::Machine, text(&error), REMEDY),
        Ok((models, bytes, damage)) => {
            let detail = format!("{models} models, {:.1} GB", bytes as f64 / 1e9);
            match damage.first() {
                None => Line::ok(SUBJECT, detail),
                Some(first) => {
                    let count = damage.len();
                    let path = first.path.display();
                    let detail =
                        format!("{detail}; {count} damaged, first {path}: {}", first.problem);
                    Line::warn(
                        SUBJECT,
                        detail,
                        "removed; they are fetched again. Look after the disk",
                    )
                }
            }
        }
    }
}
