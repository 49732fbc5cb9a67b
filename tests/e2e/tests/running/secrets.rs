//! Secrets that an operator gives stand in nothing that a validator writes: not in its log at its
//! most talkative, not in status, metrics, records, or what the commands say.

use std::{fs, path::Path, time::Duration};

use crate::{
    plan::number,
    world::{World, stop},
};

/// What is planted; nothing else contains it.
const PLANTED: &str = "PLANTEDSECRET";

/// Returns the files under a folder that hold what is planted, and how many bytes were read.
fn leaks(folder: &Path) -> (Vec<String>, u64) {
    let (mut found, mut read) = (Vec::new(), 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
                continue;
            }
            // Files come and go while a validator runs.
            let Ok(bytes) = fs::read(&path) else { continue };
            read += bytes.len() as u64;
            let text = String::from_utf8_lossy(&bytes);
            let line = text.lines().find(|line| line.contains(PLANTED));
            found.extend(line.map(|line| format!("{}: {line:.300}", path.display())));
        }
    }
    (found, read)
}

/// Waits until the log has so many bytes.
async fn talk(world: &World, bytes: u64) {
    let length = || fs::metadata(world.log("a")).unwrap().len();
    let mut before = length();
    while before < bytes {
        world
            .until("a", "more in the log", || length() > before)
            .await;
        before = length();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_planted_is_found_after_a_whole_run() {
    let world = World::start("secrets", Duration::from_millis(300)).await;
    let chain = world.net.chain.ws_url();
    let host = chain.trim_start_matches("ws://");
    let planted = |name: &str| format!("{PLANTED}{name}");
    let endpoint = format!(
        "ws://{}:{}@{host}/v1/{}?apikey={}",
        planted("USER"),
        planted("PASSWORD"),
        planted("PATH"),
        planted("QUERY")
    );
    let refused = format!(
        "ws://{}@127.0.0.1:1/{}",
        planted("GONE"),
        planted("GONEPATH")
    );
    let flags = [
        "--subtensor.chain_endpoint",
        &endpoint,
        "--subtensor.chain_endpoint",
        &refused,
        "--sync-blocks",
        "1",
        "--logging.trace",
        "--logging.record_log",
        "--wandb_project",
        "ours",
    ];
    let mut command = world.command("a");
    command
        .env("HF_TOKEN", planted("HF"))
        .env("WANDB_API_KEY", planted("WANDB"))
        .env("BT_WALLET_PASSWORD", planted("WALLET"));
    let mut validator = world.logged(command, "a", &flags);
    world
        .until("a", "steps and weights", || {
            world.records("a").len() > 2 && !world.weights().1.is_empty()
        })
        .await;
    // What goes wrong is told most of all.
    world.net.chain.fail_calls(localnet::chain::CallError {
        method: None,
        code: -32000,
        message: format!("no quota left for {}", planted("PATH")),
        count: 3,
    });
    world.net.chain.cut(Duration::from_millis(500));
    let block = world.weights().0;
    world
        .until("a", "weights after the trouble", || {
            world.weights().0 > block
        })
        .await;
    // `SECRETS_LOG_MIB=10` runs until so much was written.
    let bytes = number("SECRETS_LOG_MIB", 0_u64) << 20;
    talk(&world, bytes).await;
    let status = world.run("a", &["status"]).await.1;
    assert!(status.contains("***@127.0.0.1"), "{status}");
    let json = world.run("a", &["status", "--json"]).await.1;
    let endpoints = [
        "--subtensor.chain_endpoint",
        &endpoint,
        "--subtensor.chain_endpoint",
        &refused,
    ];
    let check = [
        "check",
        "--device",
        "cpu",
        "--min-samples",
        "4",
        "--min-free",
        "1MB",
    ];
    let check = world.run("b", &[&check[..], &endpoints].concat()).await.1;
    let wrong = [
        "check",
        "--subtensor.chain_endpoint",
        "http://PLANTEDSECRET@host/PLANTEDSECRET",
    ];
    let wrong = world.run("b", &wrong).await.1;
    assert_eq!(stop(&mut validator).await, 0);
    for said in [status, json, check, wrong] {
        assert!(!said.contains(PLANTED), "{said}");
    }
    let (found, read) = leaks(world.root());
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(read > bytes.max(1 << 20), "{read} bytes were read");
    println!("{read} bytes were read");
}
