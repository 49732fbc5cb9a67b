//! What only the simulated GPU can show: what the walls grant its driver, what a pass launches, and
//! what follows when its memory ends.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use eval::{Evaluator, LossReason, Options, TimeLimits, WorkerObserver};
use model::{
    Compatibility, Conversation, Dtype, MachineFaultKind, PackingPlan,
    protocol::{Answer, DeviceMemory, Evaluate, ModelSource, Request, Tokenize},
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
        (
            "growths of the pool",
            more(&|name| name == "growth of the pool"),
        ),
        ("copies", more(&|name| name == "copy")),
    ];
    // A layer has 9 launches; the model has four, beside embedding, last norm, head and its loss.
    let expected = [
        ("launches", 42),
        ("attentions", 4),
        ("uploads", 2),
        ("downloads", 1),
        ("waits", 0),
        // From the driver's pool, which keeps what is freed: none asks the system.
        ("allocations", 40),
        ("growths of the pool", 0),
        ("copies", 0),
    ];
    assert_eq!(found, expected);
}

/// However many tensors are converted on their way, each block of a file has one more pinned buffer for them.
#[test]
fn converted_tensors_share_a_pinned_buffer() {
    let [stored, converted] = [Dtype::F32, Dtype::Bf16].map(|dtype| work(dtype, 1));
    let pinned = |said: &Said| said.counts["pinned"].0;
    assert_eq!(pinned(&converted) - pinned(&stored), 1);
}

/// Two devices of so many MiB each.
fn of_two(megabytes: &'static str) -> [(&'static str, &'static str); 2] {
    [("CUDASIM_DEVICES", "2"), ("CUDASIM_MEMORY_MB", megabytes)]
}

const BOTH: &str = "cuda:0,cuda:1";

/// Returns the bits of the losses of a model that a worker of these devices computes, in so many packs as there are
/// samples, and what the driver says.
fn bits(environment: &[(&str, &str)], device: &str, model: &Path) -> (Vec<u64>, Said) {
    let environment = [environment, &[("CUDASIM_STATS", "1")]].concat();
    let device = format!("--device={device}");
    let mut worker = Worker::start_in(&environment, &[model], &[device.as_str()]);
    let samples = samples();
    let request = Request::Evaluate(Evaluate {
        model: source(model),
        plan: PackingPlan::new(&samples, 1),
        samples,
        next: None,
    });
    let Ok(Answer::Evaluated(evaluation)) = worker.ask(&request).0 else {
        panic!("{device} has no losses")
    };
    let bits = evaluation.losses.iter().map(|loss| loss.to_bits());
    (bits.collect(), said(worker))
}

#[test]
fn all_devices_share_the_packs_of_a_model_that_fits_each() {
    let model = fixtures().join("models/llama_gqa");
    let (one, _) = bits(&[], "cuda:0", &model);
    let (both, said) = bits(&of_two("64"), BOTH, &model);
    assert_eq!(one, both, "the same bits");
    for device in 0..2 {
        let launches = format!("launches on device {device}");
        assert!(said.counts[&launches].0 > 0, "{:?}", said.counts);
    }
    assert!(!said.counts.contains_key("copy to another device"));
}

#[test]
fn a_model_larger_than_a_device_has_its_layers_on_both() {
    let model = fixtures().join("models/llama_tied_theta500k");
    let (one, _) = bits(&[], "cuda:0", &model);
    let (both, said) = bits(&of_two("2"), BOTH, &model);
    assert_eq!(one, both, "the same bits");
    assert!(said.counts["copy to another device"].0 > 0);
}

/// An evaluator of two devices of so many MiB, whose workers may take so much memory of the host.
fn evaluator(megabytes: &'static str, readable: &Path, memory: Option<u64>) -> Evaluator {
    let environment = of_two(megabytes).map(|(name, value)| (name.to_owned(), value.to_owned()));
    #[expect(
        clippy::disallowed_methods,
        reason = "where the simulated driver is, the script says"
    )]
    let libraries = std::env::var("LD_LIBRARY_PATH").unwrap();
    Evaluator::new(Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_eval-worker")),
        devices: BOTH.split(',').map(ToOwned::to_owned).collect(),
        together: false,
        readable: vec![readable.to_owned()],
        memory,
        device_memory: None,
        threads: Some(2),
        no_sandbox: false,
        environment: environment
            .into_iter()
            .chain([("LD_LIBRARY_PATH".to_owned(), libraries)])
            .collect(),
    })
}

/// What a device has no room for, all of them get; then each has its own worker again.
#[tokio::test]
async fn models_are_worked_on_by_one_device_or_if_need_be_by_all() {
    let models = fixtures().join("models");
    let (small, large) = (
        models.join("llama_gqa_sharded"),
        models.join("llama_tied_theta500k"),
    );
    let evaluator = evaluator("2", &models, None);
    assert_eq!(evaluator.width(), 2);
    for model in [&small, &large, &small] {
        let samples = samples();
        let request = Evaluate {
            model: source(model),
            plan: PackingPlan::new(&samples, 1),
            samples,
            next: None,
        };
        let patience = TimeLimits::within(Duration::from_mins(5));
        let evaluated = evaluator
            .evaluate(request, patience, &|_| {})
            .await
            .unwrap();
        let (expected, _) = bits(&[], "cuda:0", model);
        let found: Vec<u64> = evaluated.losses.iter().map(|loss| loss.to_bits()).collect();
        assert_eq!(found, expected);
    }
    let each = evaluator.start().await;
    let devices = each
        .into_iter()
        .map(|started| started.hello.unwrap().device.unwrap().id);
    assert_eq!(devices.collect::<Vec<_>>(), ["cuda:0", "cuda:1"]);
    evaluator.shut_down().await;
}

/// The devices whose workers were replaced.
#[derive(Debug, Default)]
struct Replaced(Mutex<Vec<String>>);

impl WorkerObserver for Replaced {
    fn replaced(&self, device: &str, _: LossReason) {
        self.0.lock().unwrap().push(device.to_owned());
    }

    fn memory(&self, _: &str, _: DeviceMemory) {}

    fn began(&self, _: &str) {}

    fn ended(&self, _: &str, _: Duration) {}
}

/// All devices together are for models that one has no room for, not for text that the host has none for.
#[tokio::test]
async fn text_takes_no_gpu() {
    let model = fixtures().join("models/llama_gqa");
    let replaced = Arc::new(Replaced::default());
    let evaluator = evaluator("64", &model, Some(600 << 20)).observed(Arc::clone(&replaced) as _);
    let request = Tokenize {
        directory: model.clone(),
        compatibility: Compatibility::V4_40,
        sequence_length: 2048,
        conversations: vec![Conversation::of("q ".repeat(3 << 20), "a")],
    };
    let patience = TimeLimits::within(Duration::from_mins(5));
    let fault = evaluator.tokenize(request, patience, &|_| {}).await;
    let fault = fault.unwrap_err();
    assert_eq!(kind(&fault), Err(MachineFaultKind::OutOfMemory), "{fault}");
    evaluator.shut_down().await;
    assert_eq!(*replaced.0.lock().unwrap(), ["cuda:0"]);
}

#[test]
fn what_does_not_fit_is_said_and_the_worker_lives_on() {
    let models = fixtures().join("models");
    // In 16 bits the small model and its pass fit; the large one's weights in 32 bits don't.
    let mut worker = worker(&[("CUDASIM_MEMORY_MB", "2")], &models);
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
