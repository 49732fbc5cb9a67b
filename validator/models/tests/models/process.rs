//! `validator verify` and `validator inspect store` as processes: what they print, what is left
//! when they are killed or run out of disk, how much memory they take.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    process::{Output, Stdio},
    time::Duration,
};

use e2e::{
    limit::LIMIT,
    program,
    wait::{a_moment, until},
};
use localnet::http::{Fault, Rule};
use model::ContentHash;
use models::{
    Store,
    store::{Depth, StoreLimits},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::process;

use crate::world::{World, content_hash, golden, large_model};

/// Arguments of `validator verify` for a repository of the world's hub.
pub(crate) fn verify_arguments(world: &World, name: &str, commit: &str, hash: &str) -> Vec<String> {
    let store = store_dir(world);
    let model = format!("miner/{name}@{commit}");
    let url = world.server.url();
    [
        "verify",
        &model,
        "--hash",
        hash,
        "--architecture",
        "LlamaForCausalLM",
        "--hub-url",
        &url,
    ]
    .into_iter()
    .chain([
        "--model_dir",
        store.to_str().unwrap(),
        "--min-free",
        "0",
        "--json",
    ])
    .map(ToOwned::to_owned)
    .collect()
}

fn store_dir(world: &World) -> PathBuf {
    world.dir.path().join("store")
}

pub(crate) fn command(world: &World) -> tokio::process::Command {
    let mut command = process::command(program("validator"));
    command
        .env("HF_HOME", world.dir.path())
        .env_remove("HF_TOKEN")
        .env_remove("HF_ENDPOINT");
    command
}

async fn run(world: &World, arguments: &[String]) -> Output {
    ended(command(world).args(arguments)).await
}

pub(crate) async fn ended(command: &mut tokio::process::Command) -> Output {
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    output.expect("no end").unwrap()
}

pub(crate) fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_the_verdict() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("model", &files);
    let hash = content_hash(&files).to_string();
    let arguments = |hash: &str| verify_arguments(&world, "model", &commit, hash);

    let output = run(&world, &arguments(&hash)).await;
    let report = report(&output);
    assert_eq!(
        (output.status.code(), &report["verdict"]),
        (Some(0), &json!("accepted"))
    );
    assert_eq!(
        (&report["stage"], &report["parameters"]),
        (&json!("headers"), &json!(224_688))
    );
    assert!(
        !store_dir(&world).exists(),
        "without --download nothing is stored"
    );

    let wrong = ContentHash::from_digest([7; 32]).to_string();
    let output = run(&world, &arguments(&wrong)).await;
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(crate::process::report(&output)["content_hash"], json!(hash));

    let download = [arguments(&hash), vec!["--download".into()]].concat();
    let output = run(&world, &download).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(crate::process::report(&output)["stage"], json!("bytes"));

    world.server.faults().set(vec![Rule::always(Fault::Html)]);
    let output = run(&world, &download).await;
    let report = crate::process::report(&output);
    assert_eq!(
        (output.status.code(), &report["verdict"]),
        (Some(75), &json!("retry"))
    );
    for key in [
        "reason",
        "content_hash",
        "bytes_fetched",
        "files",
        "parameters",
        "claim",
    ] {
        assert!(report.get(key).is_some(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_the_verdict_and_the_store() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("model", &files);
    let hash = content_hash(&files).to_string();
    let mut arguments = verify_arguments(&world, "model", &commit, &hash);
    arguments.retain(|argument| argument != "--json");
    arguments.push("--download".into());
    let output = run(&world, &arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(&commit, "COMMIT");
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let text = text.join("\n");
    insta::assert_snapshot!(text, @r###"
    accepted: miner/model@COMMIT
    judged by every byte; 965.08 KiB fetched
    content hash CXnwen5L6QXI2b6wCAAEGw8ZEV5tO09Fl6GIpf4FgyE=
    224688 parameters
     file                      bytes    sha256
    ─────────────────────────────────────────────────────────────────────────────────────────────────────
     config.json               635      4b0183a308e41d590c9f2a6c6c186c4fa4487835268de96302bc268179dfe0f0
     generation_config.json    117      cb1b161bc15e6f03437c49101e1fbc8eae5f5efebba4818cd525d0392cf210a8
     model.safetensors         902760   a94160dfd17b92a38121c7e2b2a0e302704fa2b295416e036e47673edc0673bd
     special_tokens_map.json   73       462d91939dbc37178aa5a3eae7068d1990ccc92e09f288cc71f42cdf139d69cc
     tokenizer.json            44494    b8c5feae3a110bed01e09c952f276e6787810cf5b459b77ab725500472d016c5
     tokenizer_config.json     2213     5b4a148954709b65939eac09235da2efb5c5c9cf0b22ea8d0353437b679bf146
    "###);

    let store = store_dir(&world);
    let inspect =
        ["inspect", "store", "--model_dir", store.to_str().unwrap()].map(ToOwned::to_owned);
    let output = run(&world, &inspect).await;
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("nobody needs it; may go")
    );
    let output = run(&world, &[&inspect[..], &["--json".to_owned()]].concat()).await;
    let overview = report(&output);
    assert_eq!(overview["models"][0]["content_hash"], json!(hash));
    assert_eq!(overview["models"][0]["removable"], json!(true));
    assert_eq!(overview["usage"]["staging"], json!(0));
    let nowhere = ["inspect", "store", "--model_dir", "/nonexistent"].map(ToOwned::to_owned);
    assert_eq!(run(&world, &nowhere).await.status.code(), Some(65));
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|found| found.len())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_stage_it_leaves_nothing_or_everything() {
    const PART: u64 = 8 << 20;
    let world = World::new().await;
    let (files, hash) = large_model(200_000, 0.0);
    let commit = world.server.commit_model("miner/model", files);
    let hash = hash.to_string();
    let mut arguments = verify_arguments(&world, "model", &commit, &hash);
    let download = ["--download", "--connections", "1", "--bandwidth", "30MB"];
    arguments.extend(download.map(ToOwned::to_owned));
    let store = store_dir(&world);
    let staged = || bytes_in(&store.join("staging"));
    let met = || world.server.faults().met();
    // Where the hub stops answering, or how many bytes are staged when the process is killed.
    let stages = [
        ("/api/models/", 0),
        ("config.json", 0),
        ("tokenizer.json", 0),
        ("model.safetensors", 0),
        ("", PART),
        ("", 3 * PART),
    ];
    for (held_up, bytes) in stages {
        let before = met();
        if !held_up.is_empty() {
            world
                .server
                .faults()
                .set(vec![Rule::always(Fault::Stall).on(held_up)]);
        }
        let stage = format!("{held_up} {bytes}");
        let mut child = command(&world).args(&arguments).spawn().unwrap();
        let reached = until(Duration::from_secs(30), || {
            if held_up.is_empty() {
                staged() >= bytes
            } else {
                met() > before
            }
        });
        assert!(reached.await, "{stage}");
        process::signal_group(child.id().unwrap(), Signal::SIGKILL).unwrap();
        child.wait().await.unwrap();
        world.server.faults().clear();
        let survivor = Store::open(&store, StoreLimits::default()).unwrap();
        assert_eq!(survivor.check(Depth::Bytes, |_| {}).unwrap(), [], "{stage}");
        assert_eq!(survivor.models().unwrap().len(), 0, "{stage}");
    }
    world.server.cdn.traffic.clear();
    let output = run(&world, &arguments).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let store = Store::open(&store, StoreLimits::default()).unwrap();
    let model = store.model(&hash.parse().unwrap()).unwrap().unwrap();
    assert_eq!(
        ContentHash::of_directory(&model.dir).unwrap().to_string(),
        hash
    );
    assert_eq!(store.usage().unwrap().staging, 0);
    let fetched = world.server.cdn.traffic.bytes("/repos/");
    assert!(
        fetched < 200_000 * 192 - 2 * PART,
        "{fetched} bytes: not resumed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_the_machines_fault_and_passes() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("model", &files);
    let hash = content_hash(&files).to_string();
    let mut arguments = verify_arguments(&world, "model", &commit, &hash);
    arguments.push("--download".into());

    // A limit on the size of files stops the writing in its middle, whatever the file system.
    let script = "trap '' XFSZ; ulimit -f 500; exec \"$@\"";
    let mut limited = process::command("/bin/bash");
    limited
        .args(["-c", script, "bash"])
        .arg(program("validator"))
        .args(&arguments)
        .env("HF_HOME", world.dir.path());
    let output = ended(&mut limited).await;
    let report = report(&output);
    assert_eq!(
        (output.status.code(), &report["verdict"]),
        (Some(75), &json!("retry")),
        "{report}"
    );
    assert!(
        report["reason"]
            .as_str()
            .unwrap()
            .contains("could not write"),
        "{report}"
    );

    let greedy: Vec<String> = arguments
        .iter()
        .map(|argument| {
            if argument == "0" {
                "1000TB".to_owned()
            } else {
                argument.clone()
            }
        })
        .collect();
    let output = run(&world, &greedy).await;
    let report = crate::process::report(&output);
    assert_eq!(output.status.code(), Some(75), "{report}");
    assert!(
        report["reason"]
            .as_str()
            .unwrap()
            .contains("have to stay free"),
        "{report}"
    );

    assert_eq!(run(&world, &arguments).await.status.code(), Some(0));
}

/// What mirrors, proxies and a busy hub do: each is got over, whole and verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_serves_less_costs_no_model() {
    let world = World::new().await;
    let (files, hash) = large_model(100_000, 0.0);
    let commit = world.server.commit_model("miner/model", files);
    let mut arguments = verify_arguments(&world, "model", &commit, &hash.to_string());
    arguments.push("--download".into());
    let (hub, cdn) = (world.server.faults(), &world.server.cdn.faults);
    let cases = [
        (hub, Rule::always(Fault::NoRanges)),
        (cdn, Rule::always(Fault::NoRanges)),
        (hub, Rule::always(Fault::Gzip)),
        (cdn, Rule::always(Fault::Gzip)),
        (hub, Rule::always(Fault::RateLimit).times(1)),
    ];
    for (server, rule) in cases {
        let met = server.met();
        server.set(vec![rule.clone()]);
        let output = run(&world, &arguments).await;
        server.clear();
        let report = report(&output);
        let verdict = (output.status.code(), &report["verdict"]);
        assert_eq!(verdict, (Some(0), &json!("accepted")), "{rule:?}: {report}");
        assert!(server.met() > met, "{rule:?} was never met");
        let store = Store::open(&store_dir(&world), StoreLimits::default()).unwrap();
        assert_eq!(store.check(Depth::Bytes, |_| {}).unwrap(), [], "{rule:?}");
        drop(store);
        std::fs::remove_dir_all(store_dir(&world)).unwrap();
    }
    // Without end it is nobody's verdict, and the hub's own header says until when.
    hub.set(vec![Rule::always(Fault::RateLimit)]);
    let output = run(&world, &arguments).await;
    let report = report(&output);
    let verdict = (output.status.code(), &report["verdict"]);
    assert_eq!(verdict, (Some(75), &json!("retry")), "{report}");
}

/// After 30 s without a byte the program asks the hub for another way and goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_given_up_and_the_route_changed() {
    const PART: u64 = 8 << 20;
    let world = World::new().await;
    let (files, hash) = large_model(200_000, 0.0);
    let commit = world.server.commit_model("miner/model", files);
    let mut arguments = verify_arguments(&world, "model", &commit, &hash.to_string());
    let download = ["--download", "--connections", "1", "--bandwidth", "30MB"];
    arguments.extend(download.map(ToOwned::to_owned));
    let mut child = command(&world);
    let child = child.args(&arguments).stdout(Stdio::piped());
    let child = child.spawn().unwrap();
    let staging = store_dir(&world).join("staging");
    let downloading = until(LIMIT, || bytes_in(&staging) >= PART);
    assert!(downloading.await, "nothing comes");
    let asked = || {
        let requests = world.server.api.traffic.requests();
        let weights = |request: &localnet::http::Request| request.target.contains(".safetensors");
        requests.iter().filter(|request| weights(request)).count()
    };
    let before = asked();
    let cdn = &world.server.cdn;
    cdn.faults
        .set(vec![Rule::always(Fault::StallMidway).times(1)]);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output = output.expect("no end").unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", report(&output));
    assert_eq!(cdn.faults.met(), 1);
    assert_eq!(asked(), before + 1, "the hub is asked for the way again");
    let fetched = cdn.traffic.bytes("/repos/");
    assert!(fetched < 200_000 * 192 + 2 * PART, "{fetched}: not resumed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_model_takes_little_memory() {
    let world = World::new().await;
    let (files, hash) = large_model(2_000_000, 0.0);
    let commit = world.server.commit_model("miner/large", files);
    let mut arguments = verify_arguments(&world, "large", &commit, &hash.to_string());
    arguments.push("--download".into());
    let mut child = command(&world);
    let child = child.args(&arguments).stdout(Stdio::piped());
    let child = child.spawn().unwrap();
    let process = child.id().unwrap();
    let mut output = pin!(tokio::time::timeout(LIMIT, child.wait_with_output()));
    let mut peak = 0;
    let output = loop {
        tokio::select! {
            output = &mut output => break output.expect("no end").unwrap(),
            () = a_moment() => peak = peak.max(peak_kib(process)),
        }
    };
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report["bytes_fetched"].as_u64().unwrap() > 2_000_000 * 192);
    assert!((1..256 << 10).contains(&peak), "{peak} KiB");
}

/// Returns the most memory that a process has held so far, in KiB; 0 if it is gone.
///
/// Not `getrusage`, which counts the children of all tests of this program together.
fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
