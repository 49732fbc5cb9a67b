//! Evaluation over real processes: `validator evaluate`, and what follows when a worker dies.
//!
//! Long because each way to lose a worker is told beside what becomes of its work.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's panic is its verdict"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use e2e::{limit, program, workspace};
use eval::{Evaluator, LossReason, Options, TimeLimits, WorkerObserver};
use model::{
    Architecture, Attention, Compatibility, Conversation, Dtype, Fault, MachineFaultKind,
    PackingPlan, TokenizedSample,
    norms::NormLimits,
    protocol::{DeviceMemory, Evaluate, ModelSource, Phase, Progress, Tokenize},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use shared::process::blocking_command;

fn fixtures() -> PathBuf {
    workspace().join("validator/engine/tests/fixtures")
}

fn fixture(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn validator(arguments: &[&str], files: &[(&str, &Path)]) -> Output {
    let mut command = blocking_command(program("validator"));
    command
        .args(arguments)
        .arg("--eval-worker")
        .arg(program("eval-worker"));
    for (flag, path) in files {
        command.arg(flag).arg(path);
    }
    limit::output(&mut command)
}

fn json_of(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// Writes a file that lives as long as the folder.
#[expect(clippy::disallowed_methods, reason = "fixtures need no atomic writes")]
fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn evaluate_agrees_with_the_python_validator() {
    let temporary = tempfile::tempdir().unwrap();
    let samples = fixture("samples.json");
    let lines: Vec<String> = samples
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let samples = write(&temporary, "samples.jsonl", &lines.join("\n"));
    let (losses, hashes) = (fixture("losses.json"), fixture("hashes.json"));
    for name in ["llama_gqa_sharded", "stablelm_nobias_gqa", "mistral"] {
        let golden = &losses["models"][name];
        let model = fixtures().join("models").join(name);
        let tokenizer = fixtures()
            .join("tokenizers")
            .join(golden["tokenizer"].as_str().unwrap());
        let output = validator(
            &["evaluate", "--json", "--dtype", "f32", "--device", "cpu"],
            &[
                ("--model", &model),
                ("--samples", &samples),
                ("--tokenizer", &tokenizer),
            ],
        );
        let report = json_of(&output);
        assert!(output.status.success());
        assert_eq!(report["content_hash"], hashes["models"][name]["hash"]);
        assert_eq!(
            (&report["norms_ok"], &report["device"]),
            (&json!(true), &json!("cpu"))
        );
        let run = &golden["runs"]["float32/eager"];
        let ids = run["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap());
        for (id, golden) in ids.zip(run["losses"].as_array().unwrap()) {
            let loss = &report["losses"][id as usize];
            match (loss.as_f64(), golden.as_f64()) {
                (Some(loss), Some(golden)) => assert!((loss - golden).abs() < 1e-4, "{name} {id}"),
                _ => assert_eq!(loss, golden, "{name} sample {id}"),
            }
        }
    }
}

#[test]
fn evaluate_takes_tokens_and_says_what_is_not_finite() {
    let temporary = tempfile::tempdir().unwrap();
    let special = fixture("special_losses.json");
    let rows = special["rows"].as_array().unwrap();
    let batches = write(
        &temporary,
        "batches.json",
        &Value::from(rows.clone()).to_string(),
    );
    let model = fixtures().join("models/llama_gqa");
    let output = validator(
        &[
            "evaluate",
            "--json",
            "--dtype",
            "float32",
            "--device",
            "cpu",
            "--pack-tokens",
            "1",
        ],
        &[("--model", &model), ("--batches", &batches)],
    );
    let report = json_of(&output);
    for (loss, row) in report["losses"].as_array().unwrap().iter().zip(rows) {
        match (loss.as_f64(), row["loss"].as_f64()) {
            (Some(loss), Some(golden)) => assert!((loss - golden).abs() < 1e-4, "{row}"),
            _ => assert_eq!(loss, &row["loss"], "{row}"),
        }
    }
    assert_eq!(report["mean_loss"], json!("inf"));
}

#[test]
fn tokenize_prints_what_models_see() {
    let temporary = tempfile::tempdir().unwrap();
    let line = json!({"messages": [{"role": "user", "content": "?"},
                                   {"role": "assistant", "content": "."}]});
    let samples = write(&temporary, "samples.jsonl", &format!("{line}\n\n"));
    let tokenizer = fixtures().join("tokenizers/llama3");
    let files = [
        ("--tokenizer", tokenizer.as_path()),
        ("--samples", samples.as_path()),
    ];
    let report = json_of(&validator(&["tokenize", "--json"], &files));
    let golden = &fixture("tokenized_llama3.json")["samples"][0];
    assert_eq!(
        report,
        json!([{"ids": golden["ids"], "prompt_len": golden["prompt_len"]}])
    );
}

/// Templates that ended the worker: an answer of 100 GB, nesting beyond any stack, strings in between
/// that grow without bound.
#[test]
fn a_tokenizer_that_ends_the_worker_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let line = json!({"prompt": "?", "response": "."});
    let samples = write(&temporary, "samples.jsonl", &line.to_string());
    let doubling = "{% set ns = namespace(x='aaaaaaaa') %}{% for _ in range(60) %}\
        {% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}";
    let nested = format!("{{{{ {}1 }}}}", "-".repeat(200_000));
    for template in ["{{ '%99999999999d' | format(1) }}", doubling, &nested] {
        let tokenizer = temporary.path().join("tokenizer");
        fs::create_dir_all(&tokenizer).unwrap();
        let golden = fixtures().join("tokenizers/llama3");
        fs::copy(
            golden.join("tokenizer.json"),
            tokenizer.join("tokenizer.json"),
        )
        .unwrap();
        let config = fs::read(golden.join("tokenizer_config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["chat_template"] = template.into();
        write(
            &temporary,
            "tokenizer/tokenizer_config.json",
            &config.to_string(),
        );
        let files = [
            ("--tokenizer", tokenizer.as_path()),
            ("--samples", samples.as_path()),
        ];
        let output = validator(&["tokenize"], &files);
        let told = String::from_utf8_lossy(&output.stderr);
        let shown: String = template.chars().take(40).collect();
        assert_eq!(output.status.code(), Some(3), "{shown}: {told}");
    }
}

#[test]
fn refusals_name_their_reason_and_exit_by_the_table() {
    let temporary = tempfile::tempdir().unwrap();
    let batches = write(
        &temporary,
        "batches.json",
        r#"[{"ids": [1, 2, 3], "prompt_len": 1}]"#,
    );
    let model = fixtures().join("models/gemma");
    let files = [
        ("--model", model.as_path()),
        ("--batches", batches.as_path()),
    ];
    let ask = |arguments: &[&str]| {
        let output = validator(
            &[&["evaluate", "--json", "--dtype", "f32"], arguments].concat(),
            &files,
        );
        (output.status.code(), json_of(&output)["fault"].clone())
    };
    // The competition decides what runs it, whatever the model calls itself.
    let (code, fault) = ask(&["--device", "cpu", "--competition", "s1"]);
    assert_eq!(
        (code, &fault["whose"]),
        (Some(3), &json!("model")),
        "{fault}"
    );
    let (code, fault) = ask(&["--device", "cuda:17"]);
    assert_eq!(
        (code, &fault["whose"]),
        (Some(74), &json!("machine")),
        "{fault}"
    );
    assert_eq!(fault["kind"], "device");

    let nothing = temporary.path().join("nothing");
    let output = validator(
        &["evaluate", "--device", "cpu"],
        &[("--model", &nothing), ("--batches", &batches)],
    );
    assert_eq!(output.status.code(), Some(65));
    let output = validator(&["evaluate", "--device", "cpu"], &[("--model", &model)]);
    assert_eq!(output.status.code(), Some(2));
    let bad = write(
        &temporary,
        "bad.json",
        r#"[{"ids": [-1], "prompt_len": 1}]"#,
    );
    let files = [("--model", model.as_path()), ("--batches", bad.as_path())];
    assert_eq!(validator(&["evaluate"], &files).status.code(), Some(65));
}

fn options(readable: &Path) -> Options {
    Options {
        program: program("eval-worker"),
        devices: vec!["cpu".into()],
        readable: vec![fixtures(), readable.to_owned()],
        memory: None,
        together: false,
        device_memory: None,
        no_sandbox: false,
        threads: Some(1),
        environment: Vec::new(),
    }
}

fn evaluation(samples: usize) -> Evaluate {
    let sample = |n: usize| TokenizedSample {
        ids: (0..400).map(|t| ((t * 31 + n) % 1000) as u32).collect(),
        prompt_len: 10,
    };
    let samples: Vec<TokenizedSample> = (0..samples).map(sample).collect();
    let plan = PackingPlan::new(&samples, 1);
    let model = ModelSource {
        directory: fixtures().join("models/llama_gqa"),
        content_hash: None,
        architecture: Architecture::Llama,
        dtype: Dtype::F32,
        attention: Attention::Sdpa,
        compatibility: Compatibility::V4_40,
        max_parameters: None,
        norm_limits: NormLimits::default(),
    };
    Evaluate {
        model,
        samples,
        plan,
        next: None,
    }
}

const PATIENCE: TimeLimits = TimeLimits::within(Duration::from_secs(60));

fn kind(fault: &Fault) -> MachineFaultKind {
    match fault {
        Fault::Machine(fault) => fault.kind,
        Fault::Model(fault) => panic!("{fault}"),
    }
}

/// Returns the processes below one, and that one last: a worker behind all its walls has a guard above it.
fn family(process: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let below = children
        .split_whitespace()
        .flat_map(|child| family(Pid::from_raw(child.parse().unwrap())));
    below.chain([process]).collect()
}

/// What metrics are made of: devices whose workers were replaced, and how full devices were.
#[derive(Debug, Default)]
struct Observed {
    replaced: Mutex<Vec<(String, &'static str)>>,
    memory: Mutex<Vec<(String, DeviceMemory)>>,
    /// Requests that began, and those that ended.
    requests: Mutex<(u32, u32)>,
}

impl WorkerObserver for Observed {
    fn replaced(&self, device: &str, why: LossReason) {
        let told = (device.to_owned(), why.name());
        self.replaced.lock().unwrap().push(told);
    }

    fn memory(&self, device: &str, memory: DeviceMemory) {
        self.memory
            .lock()
            .unwrap()
            .push((device.to_owned(), memory));
    }

    fn began(&self, _device: &str) {
        self.requests.lock().unwrap().0 += 1;
    }

    fn ended(&self, _device: &str, _after: Duration) {
        self.requests.lock().unwrap().1 += 1;
    }
}

/// Sends a signal to the worker in mid-model; returns the fault, and why the worker was replaced. The next model has
/// its losses.
async fn struck(signal: Signal, patience: TimeLimits) -> (Fault, Vec<(String, &'static str)>) {
    let observed = Arc::new(Observed::default());
    let evaluator = Evaluator::new(options(&fixtures())).observed(Arc::clone(&observed) as _);
    let process = evaluator.start().await[0].process.unwrap();
    let struck = AtomicBool::new(false);
    let strike = |progress: Progress| {
        if progress.phase == Phase::Evaluate && !struck.swap(true, Ordering::Relaxed) {
            for process in family(Pid::from_raw(process as i32)) {
                kill(process, signal).unwrap();
            }
        }
    };
    let fault = evaluator
        .evaluate(evaluation(50), patience, &strike)
        .await
        .unwrap_err();
    let next = evaluator
        .evaluate(evaluation(2), PATIENCE, &|_| {})
        .await
        .unwrap();
    assert_eq!(next.losses.len(), 2);
    let replaced = evaluator.start().await[0].process.unwrap();
    assert_ne!(replaced, process);
    evaluator.shut_down().await;
    let memory = observed.memory.lock().unwrap().clone();
    assert!(!memory.is_empty());
    for (device, memory) in memory {
        assert_eq!(device, "cpu");
        assert!((1 << 20..memory.total).contains(&memory.used), "{memory:?}");
    }
    // The model, a test of the machine unless it was given up, the next model.
    let (began, ended) = *observed.requests.lock().unwrap();
    assert!(began >= 2 && began == ended, "{began} of {ended}");
    let replaced = observed.replaced.lock().unwrap().clone();
    (fault, replaced)
}

#[tokio::test]
async fn a_worker_killed_in_mid_model_is_replaced() {
    let (fault, replaced) = struck(Signal::SIGKILL, PATIENCE).await;
    assert_eq!(replaced, [("cpu".to_owned(), "crashed")]);
    assert_eq!(kind(&fault), MachineFaultKind::Crashed, "{fault}");
    assert!(fault.to_string().contains("SIGKILL"), "{fault}");
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_and_replaced() {
    let patience = TimeLimits {
        idle: Duration::from_secs(1),
        ..PATIENCE
    };
    let (fault, replaced) = struck(Signal::SIGSTOP, patience).await;
    assert_eq!(replaced, [("cpu".to_owned(), "hung")]);
    assert_eq!(kind(&fault), MachineFaultKind::Hung, "{fault}");
}

/// Copies a golden tokenizer with another template.
#[expect(clippy::disallowed_methods, reason = "fixtures need no atomic writes")]
fn with_template(folder: &tempfile::TempDir, template: &str) -> Tokenize {
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let from = fixtures().join("tokenizers/llama3").join(name);
        fs::copy(from, folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = json!(template);
    fs::write(&path, config.to_string()).unwrap();
    Tokenize {
        directory: folder.path().to_owned(),
        compatibility: Compatibility::V4_40,
        sequence_length: 2048,
        conversations: vec![Conversation::of("q", "a")],
    }
}

#[tokio::test]
async fn one_that_eats_memory_is_named_and_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    let mut greedy = with_template(&temporary, "{{ messages[0]['content'] }}");
    // No template and no normalizer may make that much; whoever drew the samples may.
    greedy.conversations = vec![Conversation::of("q ".repeat(3 << 20), "a")];
    let options = Options {
        memory: Some(600 << 20),
        ..options(temporary.path())
    };
    let evaluator = Evaluator::new(options);
    let fault = evaluator
        .tokenize(greedy, PATIENCE, &|_| {})
        .await
        .unwrap_err();
    assert_eq!(kind(&fault), MachineFaultKind::OutOfMemory, "{fault}");
    evaluator
        .evaluate(evaluation(2), PATIENCE, &|_| {})
        .await
        .unwrap();
}

#[tokio::test]
async fn several_devices_work_side_by_side() {
    let devices = vec!["cpu".to_owned(), "cpu".to_owned()];
    let evaluator = Evaluator::new(Options {
        devices,
        ..options(&fixtures())
    });
    assert_eq!(evaluator.width(), 2);
    let evaluate = || evaluator.evaluate(evaluation(4), PATIENCE, &|_| {});
    let (one, two, three) = tokio::join!(evaluate(), evaluate(), evaluate());
    let one = one.unwrap().losses;
    assert_eq!(one, two.unwrap().losses);
    assert_eq!(one, three.unwrap().losses);
    for (device, passed) in evaluator.self_test().await {
        assert!(passed.is_ok(), "{device}: {passed:?}");
    }
}

#[tokio::test]
async fn a_request_given_up_takes_its_worker_along() {
    let observed = Arc::new(Observed::default());
    let evaluator = Evaluator::new(options(&fixtures())).observed(Arc::clone(&observed) as _);
    evaluator.start().await;
    let abandoned = evaluator.evaluate(evaluation(200), PATIENCE, &|_| {});
    tokio::time::timeout(Duration::from_millis(50), abandoned)
        .await
        .unwrap_err();
    let losses = evaluator
        .evaluate(evaluation(3), PATIENCE, &|_| {})
        .await
        .unwrap()
        .losses;
    assert_eq!(losses.len(), 3);
    let replaced = observed.replaced.lock().unwrap().clone();
    assert_eq!(replaced, [("cpu".to_owned(), "given-up")]);
}

#[tokio::test]
async fn what_is_no_worker_is_said_to_be_none() {
    let temporary = tempfile::tempdir().unwrap();
    let start = |program: PathBuf| async {
        let evaluator = Evaluator::new(Options {
            program,
            ..options(&fixtures())
        });
        let hello = evaluator.start().await.remove(0).hello;
        hello.unwrap_err()
    };
    let missing = start(temporary.path().join("missing")).await;
    assert_eq!(kind(&missing), MachineFaultKind::Spawn, "{missing}");
    let other = start("/bin/echo".into()).await;
    assert_eq!(kind(&other), MachineFaultKind::Protocol, "{other}");
    // No model is at fault for a worker that died before it met one.
    let silent = start("/bin/true".into()).await;
    assert_eq!(kind(&silent), MachineFaultKind::Spawn, "{silent}");
    // As the loader ends a program whose libraries are missing.
    let unlinked = write(
        &temporary,
        "unlinked",
        "#!/bin/sh\necho 'libcuda.so.1: cannot open shared object file' >&2\nexit 127\n",
    );
    fs::set_permissions(&unlinked, fs::Permissions::from_mode(0o755)).unwrap();
    let unlinked = start(unlinked).await;
    assert_eq!(kind(&unlinked), MachineFaultKind::Spawn, "{unlinked}");
    assert!(unlinked.to_string().contains("libcuda.so.1"), "{unlinked}");
}
