//! `validator check`: on a healthy subnet, with one thing broken, and with almost all of them.

use std::time::Duration;

use localnet::http::{Fault, Rule};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_is_broken() {
    let world = World::start("check", Duration::from_millis(500)).await;
    let healthy = [
        "check",
        "--device",
        "cpu",
        "--min-samples",
        "4",
        "--min-free",
        "1MB",
    ];
    let (code, text) = world.run("a", &healthy).await;
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("FAIL"), "{text}");
    let missing = world.state("none.jsonl");
    let missing = format!("jsonl:{}", missing.display());
    for (broken, code, subject) in [
        (["--wallet.name", "nobody"], 78, "FAIL wallet"),
        (["--wallet.name", "miner-l3-good"], 78, "FAIL permit"),
        (
            ["--subtensor.chain_endpoint", "ws://127.0.0.1:1"],
            75,
            "FAIL chain",
        ),
        (["--device", "cuda"], 74, "FAIL device"),
        (["--min-free", "900TB"], 74, "FAIL disk"),
        (
            ["--hub-url", "http://127.0.0.1:1"],
            0,
            "from disk: the hub can't be reached",
        ),
        (["--samples", &missing], 75, "FAIL samples"),
    ] {
        let flags: Vec<&str> = match broken[0] {
            "--device" => ["check", "--min-samples", "4", "--min-free", "1MB"].into(),
            "--min-free" => ["check", "--device", "cpu", "--min-samples", "4"].into(),
            _ => healthy.into(),
        };
        let (found, text) = world.run("b", &[&flags[..], &broken].concat()).await;
        assert!(text.contains(subject), "{subject}: {text}");
        assert_eq!(found, code, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_judges_a_runtime_before_the_upgrade() {
    let world = World::start("check-metadata", Duration::from_millis(500)).await;
    let file = world.state("runtime.scale");
    let path = file.to_str().unwrap();
    let (code, text) = world
        .run("a", &["inspect", "metadata", "--out", path])
        .await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = world.run("a", &["check", "--metadata", path]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("things are as they should be"), "{text}");
    // A pallet that is called otherwise takes everything along that is read from it.
    let bytes = std::fs::read(&file).unwrap();
    let bytes = replaced(bytes, b"SubtensorModule", b"SubtensorModern");
    shared::file::write_atomic(&file, &bytes).unwrap();
    let (code, text) = world.run("a", &["check", "--metadata", path]).await;
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("FAIL runtime"), "{text}");
    assert!(text.contains("look for a newer release"), "{text}");
    // Half a file.
    shared::file::write_atomic(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (code, text) = world.run("a", &["check", "--metadata", path]).await;
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("is not the metadata of a runtime"), "{text}");
}

/// Replaces a text by one of the same length, everywhere.
fn replaced(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    while let Some(at) = bytes.windows(old.len()).position(|window| window == old) {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn check_measures_and_says_how_many_models_an_hour_that_buys() {
    let world = World::start("check-measure", Duration::from_millis(500)).await;
    let command = ["check", "--measure", "--json", "--device", "cpu"];
    let (code, text) = world.run("a", &command).await;
    assert_eq!(code, 0, "{text}");
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let measured = found["measured"].as_array().unwrap();
    for part in [
        "chain latency, ws://127.0.0.1",
        "download",
        "disk read",
        "sha256",
        "matrix products, cpu",
        "free memory",
    ] {
        let one = measured
            .iter()
            .find(|one| one["what"].as_str().unwrap().starts_with(part));
        let one = one.unwrap_or_else(|| panic!("{part} is not in {text}"));
        assert!(one["value"].as_f64().unwrap() > 0.0, "{one}");
        assert!(["A", "B", "C", "D"].contains(&one["grade"].as_str().unwrap()));
    }
    let capacity = found["capacity"].as_array().unwrap();
    assert_eq!(capacity.len(), 2, "{text}");
    for one in capacity {
        assert!(one["evaluated_per_hour"].as_f64().unwrap() > 0.0, "{one}");
        assert!(one["fetched_per_hour"].as_f64().unwrap() > 0.0, "{one}");
    }
    assert!(!world.state("a").join("models/measure").exists());
    // What does not answer has no number, and the rest is measured all the same.
    let away = [
        "check",
        "--measure",
        "--device",
        "cpu",
        "--hub-url",
        "http://127.0.0.1:1",
    ];
    let (code, text) = world.run("a", &away).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("unknown, download was not measured"),
        "{text}"
    );
    assert!(text.contains("limited by matrix products"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_everything_that_is_broken_at_once() {
    let world = World::start("check-broken", Duration::from_millis(500)).await;
    let state = world.state("a");
    shared::file::write_atomic(&state.join("state.json"), b"{\"format\":1,\"st").unwrap();
    world.net.hub.faults().add(Rule::always(Fault::Gated));
    let missing = format!("jsonl:{}", world.state("none.jsonl").display());
    let chain = world.net.endpoints().chain;
    let flags = [
        ["--wallet.name", "miner-l3-good"],
        ["--subtensor.chain_endpoint", "ws://127.0.0.1:1"],
        ["--subtensor.chain_endpoint", &chain],
        ["--device", "cuda:99"],
        ["--min-free", "900TB"],
        ["--hub-token", "hf_refused"],
        ["--samples", &missing],
        ["--wandb_project", "ours"],
        ["--wandb-url", &world.net.endpoints().wandb],
        ["--wandb-key", "refused"],
    ];
    let (code, text) = world
        .run("a", &[&["check"], flags.as_flattened()].concat())
        .await;
    // Of 78 (configuration), 74 (machine) and 75 (outside), the one that only the operator can mend.
    assert_eq!(code, 78, "{text}");
    insta::with_settings!({filters => vec![
        (r#"([ "])/\S+/(eval-worker|models|none\.jsonl)"#, "$1/[..]/$2"),
        (r"(state +)/\S+/a:", "$1/[..]/a:"),
        (r"(//127\.0\.0\.1):\d{2,}", "$1:[port]"),
        (r"hotkey \w{48}", "hotkey [address]"),
        (r"\d+ blocks? old", "[n] blocks old"),
        (r"block \d+, snapshot in \d+ ms", "block [n], snapshot in [n] ms"),
        (r"\d+\.\d GB free", "[n] GB free"),
        (r"\d+ s off", "[n] s off"),
        (r"\d+ s behind", "[n] s behind"),
        (r"chain 0x\w{8}", "chain 0x[hash]"),
        // Both depend on the machine and on how the worker was built.
        (r"(FAIL device +).*", "$1[why]"),
        // The kernel's limit on looking into other processes, which not every kernel has.
        (r"(OK  |WARN) ptrace .*\n( +-> .*\n)?", "[how] ptrace\n"),
        (r"(OK  |WARN) memory .*\n( +-> .*\n)?", "[how] memory\n"),
    ]}, {
        insta::assert_snapshot!(text, @r#"
        OK   subnet file   subnet 6, 2 competitions
        OK   wallet        hotkey [address]
        OK   eval-worker   /[..]/eval-worker
        WARN chain         ws://127.0.0.1:1/: could not connect to the chain: ws://127.0.0.1:1/: Error when opening the TCP socket: Connection refused (os error 111)
                           -> check --subtensor.network and --subtensor.chain_endpoint, and the network
        OK   chain         ws://127.0.0.1:[port]/: block [n], snapshot in [n] ms, watches transactions, has states [n] blocks old
        OK   chain clock   [n] s behind this machine's
        OK   subnet        netuid 6: registered at block 0, chain 0x[hash]..
        OK   registration  uid 1
        FAIL permit        no validator permit: the chain refuses weights
                           -> more stake; permits are given anew at each epoch
        OK   stake         0.000
        OK   weights       [n] blocks old
        FAIL device        [why]
                           -> --device auto or cpu computes without a GPU; see docs/operating.md
        [how] ptrace
        FAIL disk          [n] GB free for models in /[..]/models, 900000.0 GB are to be left free
                           -> free some, or lower --min-free
        [how] memory
        OK   clock         [n] s off the hub's
        FAIL hub           tokenizer NousResearch/Meta-Llama-3-8B-Instruct: http://127.0.0.1:[port]/api/models/NousResearch/Meta-Llama-3-8B-Instruct/revision/main answered 403 Forbidden: Access to this repository is restricted
                           -> gated repositories need a token that may read them: HF_TOKEN or --hub-token
        OK   store         0 models, 0.0 GB
        FAIL samples       only 0 usable samples, 20 are needed (no sample files at "/[..]/none.jsonl")
                           -> --samples names other sources; `validator samples` shows what each gives
        WARN W&B           project ours: the key is refused (http://127.0.0.1:[port]/graphql answered 401 Unauthorized: user is not logged in), rows stay on disk
                           -> WANDB_API_KEY or ~/.netrc
        WARN state         /[..]/a: it is damaged: it ends in the middle of a string at line 1 column 15
                           -> it will be set aside, and the validator starts from the chain's consensus
        "#);
    });
}
