//! `validator samples` over every kind of source.

use std::time::Duration;

use serde_json::Value;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_draw_the_same_set_from_every_kind_of_source() {
    let world = World::start("kinds", Duration::from_millis(500)).await;
    let sources = world.net.sample_sources();
    let kinds: Vec<&str> = sources.iter().map(|spec| &spec[..4]).collect();
    assert_eq!(kinds, ["json", "hf:l", "hf:l", "http", "wand", "wand"]);
    for source in &sources {
        let mut drawn: Vec<Value> = Vec::new();
        for operator in ["a", "b"] {
            let cache = world.state(operator);
            let arguments = ["samples", "--samples", source, "--count", "20"];
            let further = [
                "--seed",
                "block",
                "--json",
                "--cache",
                cache.to_str().unwrap(),
            ];
            let output = world
                .command(operator)
                .args(arguments)
                .args(further)
                .output();
            let output = output.await.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{source}: {said}");
            drawn.push(serde_json::from_slice(&output.stdout).unwrap());
        }
        let [a, b] = [&drawn[0], &drawn[1]];
        assert_eq!(
            a["set"]["samples"].as_array().unwrap().len(),
            20,
            "{source}"
        );
        assert_eq!(a["set"]["digest"], b["set"]["digest"], "{source}");
        assert_eq!(a["seed_block"], 0, "{source}");
        assert_eq!(a["sources"][0]["notes"].as_array().unwrap().len(), 0, "{a}");
    }

    let nowhere = ["--subtensor.chain_endpoint", "ws://127.0.0.1:1"];
    let asked = ["samples", "--samples", &sources[0], "--count", "20"];
    let (code, text) = world.run("a", &[&asked[..], &nowhere].concat()).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the seed is a random one"), "{text}");
    let demanded = [&asked[..], &nowhere, &["--seed", "block"]].concat();
    let (code, text) = world.run("a", &demanded).await;
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("--seed random"), "{text}");
}
