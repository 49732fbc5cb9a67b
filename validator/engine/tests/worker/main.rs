//! A real eval-worker process, asked through its pipes, with friendly and with hostile models.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's panic is its verdict"
)]

#[cfg(feature = "cudasim")]
mod cudasim;
mod hostile;
mod process;

use model::{
    ContentHash, Conversation, MachineFaultKind, ModelFaultKind, PackingPlan,
    protocol::{Answer, Evaluate, Generate, ModelSource, Phase, Reply, Request, Tokenize},
};
use serde_json::json;

use self::process::{DEVICE, Worker, copy, edit_json, fixtures, kind, samples, source, tokenize};

#[test]
fn it_says_hello_tests_itself_evaluates_and_ends() {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = Worker::start(&[&model], &["--device-memory", "100000000"]);
    assert_eq!(worker.hello.device.as_ref().unwrap().id, DEVICE);
    assert_eq!(worker.hello.sandbox.len(), 8);
    let (answer, _) = worker.ask(&Request::SelfTest);
    let Answer::SelfTest(passed) = answer.unwrap() else {
        panic!()
    };
    assert!(passed.worst < 1e-4, "{passed:?}");

    let golden = ContentHash::of_directory(&model).unwrap();
    let first = worker.evaluate(source(&model), samples()).unwrap();
    assert_eq!(first.content_hash, golden);
    assert_eq!(first.norms_refused, None);
    assert!(first.counters.bytes_read > 0);
    let known = ModelSource {
        content_hash: Some(golden),
        ..source(&model)
    };
    let second = worker.evaluate(known.clone(), samples()).unwrap();
    assert_eq!(second.losses, first.losses);
    assert_eq!(second.counters.bytes_read, 0, "it was still loaded");

    let other = ModelSource {
        content_hash: Some(ContentHash::from_digest([0; 32])),
        ..known
    };
    let fault = worker.evaluate(other, samples()).unwrap_err();
    assert_eq!(kind(&fault), Ok(ModelFaultKind::Hash));

    let (answer, _) = worker.ask(&Request::Shutdown);
    assert_eq!(answer, Ok(Answer::Goodbye));
    let (signal, stderr) = worker.end();
    assert_eq!(signal, None, "{stderr}");
}

#[test]
fn progress_is_reported_in_phases() {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = Worker::start(&[&model], &[]);
    let (answer, phases) = worker.ask(&tokenize(&model));
    assert_eq!(phases, [Phase::Tokenize]);
    let Ok(Answer::Tokenized(samples)) = answer else {
        panic!("{answer:?}")
    };
    let plan = PackingPlan::new(&samples, 8192);
    let request = Evaluate {
        model: source(&model),
        samples,
        plan,
        next: None,
    };
    let (answer, phases) = worker.ask(&Request::Evaluate(request));
    answer.unwrap();
    assert_eq!(phases, [Phase::Load, Phase::Evaluate]);
}

#[test]
fn it_generates_the_same_answer_from_the_same_seed() {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = Worker::start(&[&model], &[]);
    let mut generate = |seed| {
        let (answer, _) = worker.ask(&Request::Generate(Generate {
            model: source(&model),
            tokenizer: model.clone(),
            conversation: Conversation::of("How are you?", ""),
            max_tokens: 60,
            seed,
        }));
        answer.unwrap()
    };
    let answers = [generate(1), generate(1), generate(2)];
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}

#[test]
fn the_end_of_the_validator_ends_it_in_mid_work() {
    let temporary = tempfile::tempdir().unwrap();
    let slow = copy(
        &fixtures().join("tokenizers/llama3"),
        &temporary.path().join("slow"),
    );
    // Within the limits for each conversation, but not soon done with many.
    let busy = "{% for a in range(300) %}{% for b in range(300) %}{% endfor %}{% endfor %}";
    edit_json(&slow.join("tokenizer_config.json"), |config| {
        config["chat_template"] = json!(busy);
    });
    let mut worker = Worker::start(&[&slow], &[]);
    let Request::Tokenize(request) = tokenize(&slow) else {
        panic!()
    };
    let conversations = vec![Conversation::of("q", "a"); 100_000];
    worker.send(&Request::Tokenize(Tokenize {
        conversations,
        ..request
    }));
    assert!(matches!(worker.next(), Some(Reply::Progress(_))));
    worker.stdin = None;
    let (signal, _) = worker.end();
    assert_eq!(signal, Some(nix::libc::SIGKILL));
}

#[test]
fn what_lies_outside_cannot_be_read() {
    let mut worker = Worker::start(&[&fixtures().join("models")], &[]);
    let landlock = worker
        .hello
        .sandbox
        .iter()
        .find(|wall| wall.name == "landlock")
        .unwrap();
    let stands = landlock.stands.is_ok();
    let read = worker.tokenize(&fixtures().join("tokenizers/llama3"));
    if stands {
        assert_eq!(kind(&read.unwrap_err()), Err(MachineFaultKind::Storage));
    } else {
        assert_eq!(read.unwrap().len(), 3);
    }
}

#[test]
fn a_search_path_with_nothing_between_its_colons_stops_no_worker() {
    for path in ["", "/usr/lib:", ":/usr/lib::/nowhere"] {
        let mut worker = Worker::start_in(&[("LD_LIBRARY_PATH", path)], &[], &["--device=cpu"]);
        let (answer, _) = worker.ask(&Request::SelfTest);
        assert!(answer.is_ok(), "{path:?}: {answer:?}");
    }
}

#[test]
fn running_out_of_memory_is_said_before_it_dies() {
    let tokenizer = fixtures().join("tokenizers/llama3");
    let mut worker = Worker::start(&[&tokenizer], &["--memory", "600000000"]);
    let Request::Tokenize(request) = tokenize(&tokenizer) else {
        panic!()
    };
    // No template and no normalizer may make that much; whoever drew the samples may.
    let conversations = vec![Conversation::of("q ".repeat(3 << 20), "a")];
    worker.send(&Request::Tokenize(Tokenize {
        conversations,
        ..request
    }));
    while worker.next().is_some() {}
    let (signal, stderr) = worker.end();
    assert_eq!(signal, Some(nix::libc::SIGABRT));
    assert!(stderr.contains("memory allocation of"), "{stderr}");
}
