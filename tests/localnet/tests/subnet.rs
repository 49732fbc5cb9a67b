//! A whole subnet starts with one call, is what its endpoints say, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use localnet::{
    Localnet, Options,
    miners::{Family, Role},
};
use reqwest::Client;
use serde_json::Value;

fn client() -> Client {
    Client::builder().build().unwrap()
}

/// Reads commitments as a validator does: over the chain's RPC, by storage prefix.
async fn commitments(chain: &str) -> Vec<String> {
    let rpc = chain.replace("ws://", "http://");
    let call = async |method: &str, params: Value| -> Value {
        let body = serde_json::json!({
            "jsonrpc": "2.0", "id": 1, "method": method, "params": params,
        });
        let answer = client().post(&rpc).json(&body).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["result"].clone()
    };
    let twox = |name: &str| hex::encode(sp_io::hashing::twox_128(name.as_bytes()));
    let prefix = format!("0x{}{}", twox("Commitments"), twox("CommitmentOf"));
    let keys = call("state_getKeysPaged", serde_json::json!([prefix, 256])).await;
    let mut found = Vec::new();
    for key in keys.as_array().unwrap() {
        let value = call("state_getStorage", serde_json::json!([key])).await;
        let bytes = hex::decode(&value.as_str().unwrap()[2..]).unwrap();
        let text: String = bytes
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() {
                    *byte as char
                } else {
                    ' '
                }
            })
            .collect();
        found.push(text);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn miners_commit_what_lies_on_the_hub() {
    let miners = Role::ALL.map(|role| (Family::Llama, role)).to_vec();
    let subnet = Localnet::start(Options {
        miners,
        ..Options::default()
    })
    .await
    .unwrap();
    let endpoints = subnet.endpoints();
    let records = commitments(&endpoints.chain).await;
    assert_eq!(records.len(), Role::ALL.len());
    for miner in &subnet.miners {
        let record = miner.commitment();
        assert!(
            records.iter().any(|text| text.contains(&record)),
            "{record}"
        );
        let place = format!("{}/revision/{}", miner.repository, miner.revision);
        let url = format!("{}/api/models/{place}?blobs=true", endpoints.hub);
        let info: Value = client()
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let files = info["siblings"].as_array().unwrap();
        let names: Vec<&str> = files
            .iter()
            .map(|file| file["rfilename"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "README.md",
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json"
            ]
        );
    }
    let neurons = subnet.chain.neurons(subnet.netuid);
    assert_eq!(neurons.len(), 1 + Role::ALL.len());
    assert!(neurons[0].validator_permit);
    assert_eq!(neurons[0].hotkey, subnet.validator.hotkey.public());

    let tokenizer = "NousResearch/Meta-Llama-3-8B-Instruct/resolve/main/tokenizer_config.json";
    let url = format!("{}/{tokenizer}", endpoints.hub);
    let config: Value = client()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        config["chat_template"]
            .as_str()
            .unwrap()
            .contains("<|start_header_id|>")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_where_the_endpoints_say_and_gone_afterwards() {
    let options = Options {
        samples: 30,
        ..Options::without_miners()
    };
    let subnet = Localnet::start(options).await.unwrap();
    let endpoints = subnet.endpoints();
    for path in ["validator/coldkeypub.txt", "validator/hotkeys/default"] {
        assert!(endpoints.wallets.join(path).is_file(), "{path}");
    }
    let lines = client()
        .get(&endpoints.samples)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(lines.lines().count(), 30);
    assert_eq!(
        lines,
        std::fs::read_to_string(&endpoints.samples_file).unwrap()
    );
    let text = std::fs::read_to_string(&endpoints.subnet).unwrap();
    let file: toml::Table = text.parse().unwrap();
    assert_eq!(
        file["samples"][0].as_str(),
        Some(endpoints.samples.as_str())
    );
    assert_eq!(
        file["schedules"][0]["competitions"][0]["id"].as_str(),
        Some("l3")
    );
    let env = std::fs::read_to_string(subnet.folder().join("localnet.env")).unwrap();
    assert!(
        env.contains(&format!("export HF_ENDPOINT='{}'", endpoints.hub)),
        "{env}"
    );

    let folder = subnet.folder().to_owned();
    drop(subnet);
    assert!(!folder.exists());
    assert!(
        client()
            .get(&endpoints.samples)
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_subnet_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        state_dir: Some(dir.path().to_owned()),
        ..Options::without_miners()
    };
    let first = Localnet::start(options.clone()).await.unwrap();
    let failure = Localnet::start(options.clone()).await.unwrap_err();
    assert_eq!(failure.exit().code(), 77);
    assert!(
        failure
            .to_string()
            .contains(&format!("pid {}", std::process::id())),
        "{failure}"
    );
    drop(first);
    Localnet::start(options).await.unwrap();
}
