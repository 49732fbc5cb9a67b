//! Secrets that an operator gives stand in nothing that a validator writes: not in its log at its
//! most talkative, not in status, metrics, records, or what the commands say.

use std::{fs, path::Path, time::Duration};

use futures::future::join_all;
use tokio::process::Command;
use url::Url;

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

/// Returns an address with something planted wherever an address can hold it.
fn with_secrets(url: &str, name: &str) -> String {
    let planted = |place: &str| format!("{PLANTED}{name}{place}");
    let mut url = Url::parse(url).unwrap();
    url.set_username(&planted("USER")).unwrap();
    url.set_password(Some(&planted("PASSWORD"))).unwrap();
    url.set_query(Some(&format!("apikey={}", planted("QUERY"))));
    url.to_string()
}

/// So many MiB are said at least, by the validator in its two logs and by the commands together.
/// `SECRETS_LOG_MIB=10` takes minutes.
const SAID_MIB: u64 = 2;

/// Returns the lines of a text that hold what is planted.
fn planted_lines(what: &str, text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains(PLANTED));
    lines.map(|line| format!("{what}: {line:.300}")).collect()
}

fn planted(name: &str) -> String {
    format!("{PLANTED}{name}")
}

/// A subnet, and programs that are given something secret wherever they take it.
struct Planting<'a> {
    world: &'a World,
    /// Two endpoints and a source of samples, each with secrets in its address.
    flags: [String; 6],
}

impl<'a> Planting<'a> {
    fn new(world: &'a World) -> Self {
        let path = format!("{}/v1/{}", world.net.chain.ws_url(), planted("PATH"));
        let refused = format!(
            "ws://{}@127.0.0.1:1/{}",
            planted("GONE"),
            planted("GONEPATH")
        );
        let samples = with_secrets(&world.net.feed.url(), "SAMPLES");
        let chain = "--subtensor.chain_endpoint";
        let flags = [
            chain,
            &with_secrets(&path, "CHAIN"),
            chain,
            &refused,
            "--samples",
            &samples,
        ];
        Self {
            world,
            flags: flags.map(ToOwned::to_owned),
        }
    }

    fn chain(&self) -> Vec<&str> {
        self.flags[..4].iter().map(String::as_str).collect()
    }

    fn chain_and_samples(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    fn command(&self, state: &str) -> Command {
        let endpoints = self.world.net.endpoints();
        let mut command = self.world.command(state);
        command
            .env("HF_ENDPOINT", with_secrets(&endpoints.hub, "HUB"))
            .env("HF_TOKEN", planted("HF"))
            .env("WANDB_BASE_URL", with_secrets(&endpoints.wandb, "WANDB"))
            .env("WANDB_API_KEY", planted("WANDB"))
            .env("VALIDATOR_SAMPLES_TOKEN", planted("SAMPLES"))
            .env("VALIDATOR_DASHBOARD_TOKEN", planted("DASHBOARD"))
            .env("BT_WALLET_PASSWORD", planted("WALLET"));
        command
    }

    async fn answer(&self, state: &str, arguments: &[&str]) -> String {
        let mut command = self.command(state);
        command.args(arguments);
        World::ended(command).await.1
    }

    /// Lets commands talk until they and the two logs of the validator have said so many bytes.
    async fn talk(&self, bytes: u64) -> u64 {
        let (chain, all) = (self.chain(), self.chain_and_samples());
        let asked = [
            [&["inspect", "metagraph"], TALKATIVE, &chain].concat(),
            [&["inspect", "commitments"], TALKATIVE, &chain].concat(),
            [&["inspect", "hyperparameters"], TALKATIVE, &chain].concat(),
            [&["samples"], TALKATIVE, &all].concat(),
        ];
        let logged = || 2 * fs::metadata(self.world.log("a")).unwrap().len();
        let mut said = 0;
        while said + logged() < bytes {
            // Some of them meet a chain that is away, and say so.
            self.world.net.chain.cut(Duration::from_millis(20));
            let answers = asked.iter().map(|asked| self.answer("b", asked));
            for (asked, text) in asked.iter().zip(join_all(answers).await) {
                assert!(!text.is_empty(), "{asked:?}");
                said += text.len() as u64;
                let found = planted_lines(asked[1], &text);
                assert!(found.is_empty(), "{}", found.join("\n"));
            }
        }
        said
    }
}

/// All that the programs are built of, not ours only.
const TALKATIVE: &[&str] = &["--log", "trace"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_planted_is_found_after_a_whole_run() {
    let world = World::start("secrets", Duration::from_millis(300)).await;
    let planting = Planting::new(&world);
    let hook = format!("slack:http://127.0.0.1:1/services/{}", planted("HOOK"));
    let more = [
        "--notify",
        &hook,
        "--dashboard",
        "127.0.0.1:0",
        "--sync-blocks",
        "1",
        "--logging.record_log",
        "--wandb_project",
        "ours",
    ];
    let flags = [&planting.chain_and_samples(), TALKATIVE, &more].concat();
    let mut validator = world.logged(planting.command("a"), "a", &flags);
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
    let said = planting
        .talk(number("SECRETS_LOG_MIB", SAID_MIB) << 20)
        .await;
    let status = planting.answer("a", &["status"]).await;
    assert!(status.contains("***@127.0.0.1"), "{status}");
    let json = planting.answer("a", &["status", "--json"]).await;
    let check = [
        "check",
        "--device",
        "cpu",
        "--min-samples",
        "4",
        "--min-free",
        "1MB",
    ];
    let check = [&check, TALKATIVE, &planting.chain_and_samples()].concat();
    let check = planting.answer("b", &check).await;
    let wrong = [
        "check",
        "--subtensor.chain_endpoint",
        "http://PLANTEDSECRET@host/PLANTEDSECRET",
    ];
    let wrong = planting.answer("b", &wrong).await;
    assert_eq!(stop(&mut validator).await, 0);
    let texts = [status, json, check, wrong];
    let lines = texts
        .iter()
        .flat_map(|text| planted_lines("a command", text));
    let (files, read) = leaks(world.root());
    let found: Vec<String> = lines.chain(files).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    println!("{said} bytes of commands, {read} bytes of files");
}
