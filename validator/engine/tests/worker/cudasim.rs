//! What only the simulated GPU can show: what the walls grant its driver, what a pass launches, and
//! what follows when its memory ends.

use std::{collections::BTreeMap, path::Path};

use model::protocol::{Answer, Request};
use serde::Deserialize;

use crate::process::{Worker, fixtures, samples, source};

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
    let line = stderr.lines().find_map(|l| l.strip_prefix("cudasim: {"));
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
    assert_eq!((device.id.as_str(), device.name.as_str()), ("cuda:0", "cudasim"));
    for wall in &worker.hello.sandbox {
        wall.stands.as_ref().unwrap();
    }
    worker.evaluate(source(&model), samples()).unwrap();
    let said = said(worker);
    assert_eq!(said.counts["cache written"].0, 1);
    assert_eq!(said.granted_at_end, ["read cache"]);
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
