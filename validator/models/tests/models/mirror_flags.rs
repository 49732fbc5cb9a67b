//! `--hub-mirror` as people give it: on the command line and by the environment.

use localnet::{
    http::{Fault, Rule},
    hub::{Hub as HubServer, Ports},
};
use serde_json::json;

use crate::{
    process::{command, ended, report, verify_arguments},
    world::{World, content_hash, golden},
};

/// The hub stalls: its listing is waited for once, the rest is asked of a mirror at once.
#[tokio::test(flavor = "multi_thread")]
async fn models_come_from_a_mirror_while_the_hub_stalls() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("model", &files);
    let hash = content_hash(&files).to_string();
    let empty = HubServer::start(Ports::default()).await.unwrap();
    let mirror = HubServer::start(Ports::default()).await.unwrap();
    World::publish_at(&mirror, "model", &files);
    let stall = || vec![Rule::always(Fault::Stall)];
    world.server.faults().set(stall());
    let mut arguments = verify_arguments(&world, "model", &commit, &hash);
    arguments.push("--download".into());
    let mut verify = command(&world);
    verify.args(&arguments).env("HF_TOKEN", "hf_PLANTED").env(
        "VALIDATOR_HUB_MIRROR",
        format!("{},{}", empty.url(), mirror.url()),
    );
    let output = ended(&mut verify).await;
    let told = report(&output);
    let verdict = (output.status.code(), &told["verdict"], &told["stage"]);
    assert_eq!(
        verdict,
        (Some(0), &json!("accepted"), &json!("bytes")),
        "{told}"
    );
    assert_eq!(told["origins"], json!([mirror.url() + "/"]), "{told}");
    assert_eq!(told["mirrored"], json!(true), "{told}");
    for server in [&empty, &mirror] {
        let requests = server.api.traffic.requests();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|request| !request.authorized));
    }

    // For people, and with a token of the mirror's own. The files are in the store by now.
    world
        .server
        .faults()
        .set(vec![Rule::always(Fault::Unavailable)]);
    arguments.retain(|argument| argument != "--json");
    let mut verify = command(&world);
    verify
        .args(&arguments)
        .args(["--hub-mirror", &mirror.url()])
        .args(["--hub-mirror-token", "of_the_mirror"]);
    let output = ended(&mut verify).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let from = format!("fetched from {}/\n", mirror.url());
    assert!(text.contains(&from), "{text}");
    let requests = mirror.api.traffic.requests();
    assert!(requests.last().unwrap().authorized);

    // Nobody serves: later, and all are named.
    mirror.faults().set(stall());
    arguments.push("--json".into());
    let mut verify = command(&world);
    verify.args(&arguments).args(["--hub-mirror", &empty.url()]);
    let output = ended(&mut verify).await;
    let told = report(&output);
    let verdict = (output.status.code(), &told["verdict"]);
    assert_eq!(verdict, (Some(75), &json!("retry")), "{told}");
    let reason = told["reason"].as_str().unwrap();
    for named in [world.server.url(), empty.url()] {
        assert!(reason.contains(&named), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_mirror_holds_no_secret() {
    let world = World::new().await;
    let mut verify = command(&world);
    verify
        .args(verify_arguments(&world, "model", &"0".repeat(40), "hash"))
        .args(["--hub-mirror", "https://me:SECRET@mirror.example"]);
    let output = ended(&mut verify).await;
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(!text.contains("SECRET"), "{text}");
    assert!(text.contains("--hub-mirror-token"), "{text}");
}
