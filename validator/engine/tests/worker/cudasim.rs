//! What only the simulated GPU can show: what the walls grant its driver, what a pass launches, and
//! what follows when its memory ends.

use std::{collections::BTreeMap, path::Path};

use model::{
    Dtype, MachineFaultKind, PackingPlan,
    protocol::{Answer, Evaluate, ModelSource, Request},
};
use serde::Deserialize;

use crate::process::{Worker, fixtures, kind, samples, source};

/// What the simulated driver says at the end of a process.
#[derive(Debug, Deserialize)]
struct Said {
    problems: Vec<String>,
    /// What the driver demanded at its start and the system would still grant.
    granted_at_end: Vec<String>,
    /// How often and how much, by name.
    counts: BTreeMap<String, (u64, f64)>,
}

/// Ends a worker, and returns what the driver says.
fn said(mut worker: Worker) -> Said {
    let (answer, _) = worker.ask(&Request::Shutdown);
    assert_eq!(answer, Ok(Answer::Goodbye));
    let (signal, stderr) = worker.end();
    assert_eq!(signal, None, "{stderr}");
    // A process that compiled ahead said it before.
    let mut lines = stderr.lines().rev();
    let line = lines.find_map(|l| l.strip_prefix("cudasim: {"));
    let said: Said = serde_json::from_str(&format!("{{{}", line.unwrap())).unwrap();
    assert_eq!(said.problems, [""; 0]);
    said
}

fn worker(environment: &[(&str, &str)], model: &Path) -> Worker {
    let environment = [environment, &[("CUDASIM_STATS", "1")]].concat();
    Worker::start_in(&environment, &[model], &[])
}

/// Drivers since 570 name threads and listen on a socket in `cuInit`; no model may.
#[test]
fn the_walls_let_a_driver_start_and_close_behind_it() {
    let model = fixtures().join("models/llama_gqa");
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("made/by/the/worker");
    let mut worker = worker(&[("CUDA_CACHE_PATH", cache.to_str().unwrap())], &model);
    let device = worker.hello.device.clone().unwrap();
    assert_eq!(
        (device.id.as_str(), device.name.as_str()),
        ("cuda:0", "cudasim")
    );
    for wall in &worker.hello.sandbox {
        // Control groups belong to the system's services.
        assert!(wall.stands.is_ok() || wall.name == "cgroup", "{wall:?}");
    }
    worker.evaluate(source(&model), samples()).unwrap();
    let said = said(worker);
    assert_eq!(said.granted_at_end, ["read cache"]);
}

/// What a worker's driver compiles goes into a copy for this worker; the cache is filled by a process that never
/// meets a model, once.
#[test]
fn no_worker_writes_the_cache() {
    let model = fixtures().join("models/llama_gqa");
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("kernels");
    let start = || worker(&[("CUDA_CACHE_PATH", cache.to_str().unwrap())], &model);
    let names = || -> Vec<_> {
        let entries = std::fs::read_dir(&cache).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let changed = || {
        std::fs::metadata(cache.join("index"))
            .unwrap()
            .modified()
            .unwrap()
    };

    let first = start();
    let filled = changed();
    assert_eq!(
        names().len(),
        3,
        "filled, index, the worker's copy: {:?}",
        names()
    );
    assert_eq!(said(first).counts["cache written"].0, 1, "its copy");
    assert_eq!(names(), ["filled", "index"]);
    said(start());
    assert_eq!(changed(), filled, "filled once");
}

#[test]
fn a_driver_that_may_not_start_is_explained() {
    let model = fixtures().join("models/llama_gqa");
    let refused = [("CUDASIM_CUINIT", "304")];
    let worker = Worker::start_in(&refused, &[&model], &["--device=cuda"]);
    let fault = worker.hello.device.as_ref().unwrap_err().to_string();
    assert!(fault.contains("CUDA_ERROR_OPERATING_SYSTEM"), "{fault}");
    assert!(fault.contains("walls"), "{fault}");

    let mut worker = Worker::start_in(&refused, &[&model], &["--device=auto"]);
    assert_eq!(worker.hello.device.as_ref().unwrap().id, "cpu");
    worker.evaluate(source(&model), samples()).unwrap();
}

/// What a worker's device does for a plan of so many packs of the same samples.
fn work(dtype: Dtype, packs: usize) -> Said {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = worker(&[], &model);
    let samples = vec![samples(); packs].concat();
    let of_one = samples.len() / packs;
    // One pack is as large as the samples of one.
    let tokens = samples[..of_one].iter().map(|sample| sample.ids.len());
    let plan = PackingPlan::new(&samples, tokens.sum());
    assert_eq!(plan.packs().len(), packs);
    let model = ModelSource {
        dtype,
        ..source(&model)
    };
    let request = Evaluate {
        model,
        samples,
        plan,
        next: None,
    };
    worker.ask(&Request::Evaluate(request)).0.unwrap();
    said(worker)
}

/// Returns how often things of a name that `is` one of a kind happened.
fn times(said: &Said, is: impl Fn(&str) -> bool) -> u64 {
    let counts = said.counts.iter().filter(|(name, _)| is(name));
    counts.map(|(_, (times, _))| times).sum()
}

/// Counts don't jitter: what one more pack costs is known to the launch.
#[test]
fn a_pack_launches_uploads_and_allocates_so_much() {
    let (two, three) = (work(Dtype::Bf16, 2), work(Dtype::Bf16, 3));
    let more = |is: &dyn Fn(&str) -> bool| times(&three, is) - times(&two, is);
    let found = [
        (
            "launches",
            more(&|name| name.starts_with("kernel ") || name.starts_with("product")),
        ),
        (
            "attentions",
            more(&|name| name.starts_with("kernel attention")),
        ),
        ("uploads", more(&|name| name.starts_with("upload"))),
        ("downloads", more(&|name| name == "download")),
        ("waits", more(&|name| name == "wait")),
        ("allocations", more(&|name| name == "allocation")),
        ("copies", more(&|name| name == "copy")),
    ];
    // A layer has 9 launches; the model has four, beside embedding, last norm, head and its loss.
    let expected = [
        ("launches", 44),
        ("attentions", 4),
        ("uploads", 9),
        ("downloads", 1),
        ("waits", 0),
        ("allocations", 49),
        ("copies", 0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_does_not_fit_is_said_and_the_worker_lives_on() {
    let models = fixtures().join("models");
    // In 16 bits the small model and its pass fit; the large one's weights in 32 bits don't.
    let mut worker = worker(&[("CUDASIM_MEMORY_MB", "1")], &models);
    let small = ModelSource {
        dtype: Dtype::Bf16,
        ..source(&models.join("llama_gqa"))
    };
    let large = source(&models.join("llama_tied_theta500k"));
    worker.evaluate(small.clone(), samples()).unwrap();
    let fault = worker.evaluate(large, samples()).unwrap_err();
    assert_eq!(kind(&fault), Err(MachineFaultKind::OutOfMemory), "{fault}");
    worker.evaluate(small, samples()).unwrap();
    assert!(said(worker).counts["out of memory"].0 > 0);
}
