//! The hub answers hf-hub and plain HTTP clients as huggingface.co does.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use futures::StreamExt as _;
use hf_hub::{HFClient, repository::RepoTreeEntry};
use localnet::{
    http::{Fault, Rule},
    hub::{Access, Content, Hub, Kind, Ports},
};
use reqwest::{Client, StatusCode, redirect};
use serde_json::Value;

fn files() -> Vec<(String, Content)> {
    let weights: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    vec![
        (
            "config.json".into(),
            Content::from(&br#"{"model_type":"llama"}"#[..]),
        ),
        ("sub/folder/note.txt".into(), Content::from("hello")),
        ("model.safetensors".into(), Content::from(weights)),
    ]
}

async fn hub() -> (Hub, String) {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let revision = hub.commit_model("alice/llama", files());
    (hub, revision)
}

fn client() -> Client {
    Client::builder()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap()
}

fn following() -> Client {
    Client::builder().build().unwrap()
}

#[tokio::test]
async fn hf_hub_lists_and_downloads() {
    let (hub, revision) = hub().await;
    let cache = tempfile::tempdir().unwrap();
    let api = HFClient::builder()
        .endpoint(hub.url())
        .cache_dir(cache.path())
        .build()
        .unwrap();
    let model = api.model("alice", "llama");
    let info = model.info().send().await.unwrap();
    assert_eq!(info.sha.as_deref(), Some(revision.as_str()));
    assert_eq!(info.siblings.unwrap().len(), 3);

    let tree = model
        .list_tree()
        .recursive(true)
        .revision(&revision[..8])
        .send()
        .unwrap();
    let mut paths = Vec::new();
    let mut tree = Box::pin(tree);
    while let Some(entry) = tree.next().await {
        match entry.unwrap() {
            RepoTreeEntry::File {
                path, size, lfs, ..
            } => {
                paths.push(format!("{path} {size} {}", lfs.is_some()));
            }
            RepoTreeEntry::Directory { path, .. } => paths.push(format!("{path}/")),
        }
    }
    assert_eq!(
        paths,
        [
            "config.json 22 false",
            "model.safetensors 300000 true",
            "sub/",
            "sub/folder/",
            "sub/folder/note.txt 5 false"
        ]
    );

    let folder = model
        .snapshot_download()
        .revision(&revision)
        .send()
        .await
        .unwrap();
    for (path, content) in files() {
        let bytes = std::fs::read(folder.join(&path)).unwrap();
        assert_eq!(&bytes, content.bytes().unwrap(), "{path}");
    }
}

#[tokio::test]
async fn the_headers_describe_small_and_large_files() {
    let (hub, revision) = hub().await;
    let at = |path: &str| format!("{}/alice/llama/resolve/main/{path}", hub.url());
    let small = client().head(at("config.json")).send().await.unwrap();
    assert_eq!(small.status(), StatusCode::TEMPORARY_REDIRECT);
    assert!(
        small.headers()["location"]
            .to_str()
            .unwrap()
            .starts_with("/api/resolve-cache/")
    );
    assert_eq!(small.headers()["x-repo-commit"], revision.as_str());
    let etag = small.headers()["etag"].clone();
    let small = following().get(at("config.json")).send().await.unwrap();
    assert_eq!(small.headers()["etag"], etag);
    assert_eq!(small.text().await.unwrap(), r#"{"model_type":"llama"}"#);

    let large = client().head(at("model.safetensors")).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::FOUND);
    assert_eq!(large.headers()["x-linked-size"], "300000");
    let location = large.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&hub.cdn.url()));
    let part = client()
        .get(&location)
        .header("range", "bytes=299998-")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        part.headers()["content-range"],
        "bytes 299998-299999/300000"
    );
    assert_eq!(&part.bytes().await.unwrap()[..], &[0xde, 0xdf]);
    let beyond = client()
        .get(&location)
        .header("range", "bytes=300000-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let with_token = client()
        .get(&location)
        .bearer_auth("t")
        .send()
        .await
        .unwrap();
    assert_eq!(with_token.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        hub.cdn.traffic.requests().iter().map(|r| r.bytes).max(),
        Some(2.max(with_token.text().await.unwrap().len() as u64))
    );
}

#[tokio::test]
async fn no_is_said_in_the_hubs_words() {
    let (hub, revision) = hub().await;
    hub.edit(|all| {
        all.add_token("insider");
        all.add_token("stranger");
        all.get_mut(Kind::Model, "alice/llama").unwrap().access =
            Access::Gated(vec!["insider".into()]);
        all.commit(Kind::Model, "bob/open", "main", files());
    });
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = following().get(format!("{}{path}", hub.url()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let code = response
            .headers()
            .get("x-error-code")
            .map(|c| c.to_str().unwrap().to_owned());
        (response.status().as_u16(), code.unwrap_or_default())
    };
    let file = format!("/alice/llama/resolve/{revision}/config.json");
    assert_eq!(ask(&file, None).await, (401, "GatedRepo".into()));
    assert_eq!(
        ask(&file, Some("stranger")).await,
        (403, "GatedRepo".into())
    );
    assert_eq!(ask(&file, Some("insider")).await, (200, String::new()));
    assert_eq!(
        ask("/api/models/alice/llama", None).await,
        (200, String::new())
    );
    assert_eq!(
        ask("/api/models/no/body", None).await,
        (401, "RepoNotFound".into())
    );
    assert_eq!(
        ask("/api/models/no/body", Some("insider")).await,
        (404, "RepoNotFound".into())
    );
    let revision = ask("/bob/open/resolve/0123abc/config.json", None).await;
    assert_eq!(revision, (404, "RevisionNotFound".into()));
    let entry = ask("/bob/open/resolve/main/none.json", None).await;
    assert_eq!(entry, (404, "EntryNotFound".into()));
}

#[tokio::test]
async fn pages_follow_links_and_former_names_redirect() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let many = (0..23).map(|n| (format!("shard-{n:02}.txt"), Content::from(format!("{n}"))));
    hub.commit_dataset("alice/data", many);
    hub.edit(|all| all.rename(Kind::Dataset, "alice/data", "alice/better"));
    let mut next = Some(format!(
        "{}/api/datasets/alice/data/tree/main?limit=10",
        hub.url()
    ));
    let mut sizes = Vec::new();
    while let Some(url) = next {
        let response = following().get(url).send().await.unwrap();
        next = response.headers().get("link").map(|link| {
            let link = link.to_str().unwrap();
            link[1..link.find('>').unwrap()].to_owned()
        });
        let page: Vec<Value> = response.json().await.unwrap();
        sizes.push(page.len());
    }
    assert_eq!(sizes, [10, 10, 3]);

    let url = format!("{}/api/datasets/alice/better/paths-info/main", hub.url());
    let body = serde_json::json!({ "paths": ["shard-03.txt", "none"] });
    let found: Vec<Value> = client()
        .post(url)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["path"], "shard-03.txt");
}

#[tokio::test]
async fn the_viewer_turns_pages_of_rows() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let rows: Vec<String> = (0..250).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    let rows = rows.join(
        "
",
    );
    hub.commit_dataset(
        "alice/data",
        [("data/train.jsonl".into(), Content::from(rows))],
    );
    let get = async |query: &str| {
        let url = format!("{}/{query}", hub.url());
        let response = client().get(url).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    let (_, size) = get("size?dataset=alice%2Fdata").await;
    assert_eq!(size["size"]["dataset"]["num_rows"], 250);
    let page = "rows?dataset=alice/data&config=default&split=train&offset=200&length=100";
    let (_, page) = get(page).await;
    assert_eq!(page["rows"].as_array().unwrap().len(), 50);
    assert_eq!(page["rows"][0]["row"]["n"], 200);
    let (status, _) = get("rows?dataset=alice/data&split=train&length=101").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_virtual_file_costs_nothing_until_it_is_read() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let sha256 = "5a".repeat(32);
    let huge = Content::Virtual {
        head: "head".into(),
        size: 1 << 40,
        sha256: sha256.clone(),
    };
    hub.commit_model("mallory/huge", [("model.safetensors".into(), huge)]);
    let url = format!("{}/repos/{sha256}", hub.cdn.url());
    let part = client()
        .get(&url)
        .header("range", "bytes=2-9")
        .send()
        .await
        .unwrap();
    assert_eq!(&part.bytes().await.unwrap()[..], b"ad\0\0\0\0\0\0");
    let end = client()
        .get(&url)
        .header("range", "bytes=-300000")
        .send()
        .await
        .unwrap();
    assert!(end.bytes().await.unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn every_fault_is_what_its_name_says() {
    let (hub, _) = hub().await;
    let large = format!("{}/alice/llama/resolve/main/model.safetensors", hub.url());
    let with = async |rule: Rule| {
        hub.api.faults.set(vec![rule.clone()]);
        following().get(&large).send().await
    };
    let on_cdn = async |fault| {
        hub.api.faults.clear();
        hub.cdn.faults.set(vec![Rule::always(fault)]);
        following().get(&large).send().await.unwrap()
    };
    let whole = on_cdn(Fault::WrongEtag).await;
    assert_eq!(
        whole.headers()["etag"],
        format!("\"{}\"", "ab".repeat(32)).as_str()
    );
    let truth = whole.bytes().await.unwrap();

    assert!(on_cdn(Fault::Cut).await.bytes().await.is_err());
    assert_eq!(
        on_cdn(Fault::LyingLength)
            .await
            .bytes()
            .await
            .unwrap()
            .len(),
        150_000
    );
    let wrong = on_cdn(Fault::WrongBytes).await.bytes().await.unwrap();
    assert_eq!((wrong.len(), &wrong[1..]), (truth.len(), &truth[1..]));
    assert_ne!(wrong[0], truth[0]);
    let one = on_cdn(Fault::ChangingBody).await.bytes().await.unwrap();
    let two = following()
        .get(&large)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_ne!(one, two);
    let mut endless = on_cdn(Fault::Endless).await;
    let mut read = 0;
    while read < 2 * truth.len() {
        read += endless.chunk().await.unwrap().unwrap().len();
    }
    drop(endless);
    hub.cdn.faults.clear();

    let limited = with(Rule::always(Fault::TooManyRequests)).await.unwrap();
    assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.headers()["retry-after"], "1");
    let page = with(Rule::always(Fault::Html)).await.unwrap();
    assert!(page.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert!(
        with(Rule::always(Fault::RedirectLoop))
            .await
            .unwrap_err()
            .is_redirect()
    );
    let moved = with(Rule::always(Fault::ThirdHost)).await.unwrap();
    assert_eq!(moved.url().host_str(), Some("localhost"));
    assert_eq!(moved.bytes().await.unwrap(), truth);
    assert_eq!(hub.third_host.traffic.requests().len(), 1);

    let once = Rule::always(Fault::ServerError)
        .on("safetensors")
        .method("GET")
        .times(1);
    assert_eq!(
        with(once).await.unwrap().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(
        following()
            .get(&large)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap(),
        truth
    );
    let stalled = with(Rule::always(Fault::Stall));
    let limit = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(limit, stalled).await.is_err());
}

#[tokio::test]
async fn the_dev_endpoint_sets_faults_and_shows_requests() {
    let (hub, _) = hub().await;
    let dev = |what: &str| format!("{}/dev/{what}", hub.url());
    let rule = serde_json::json!({ "fault": "429", "on": "/api/", "times": 1 });
    client()
        .post(dev("faults"))
        .json(&rule)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let info = format!("{}/api/models/alice/llama?blobs=true", hub.url());
    assert_eq!(client().get(&info).send().await.unwrap().status(), 429);
    let info: Value = client()
        .get(&info)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let sizes: Vec<_> = info["siblings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["size"])
        .collect();
    assert_eq!(sizes, [22, 300_000, 5]);
    let log: Value = client()
        .get(dev("requests"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let statuses: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["status"])
        .collect();
    assert_eq!(statuses, [429, 200]);
    assert!(log[1]["bytes"].as_u64().unwrap() > 300);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (hub, _) = hub().await;
    let ports = Ports {
        hub: hub.api.address.port(),
        cdn: 0,
    };
    let failure = Hub::start(ports).await.unwrap_err();
    assert_eq!(failure.exit().code(), 77);
    assert!(
        failure.to_string().contains(&hub.api.address.to_string()),
        "{failure}"
    );
    assert!(!failure.hints().is_empty());
}
