//! A subnet file that names another mechanism than the first: the weights go there.

use std::time::Duration;

use crate::world::{World, stop};

#[tokio::test(flavor = "multi_thread")]
async fn weights_go_to_the_mechanism_of_the_subnet_file() {
    let mut options = World::options("mechanism", Duration::from_millis(500));
    options.hyperparameters.mechanism_count = 2;
    let world = World::with(options).await;
    let text = std::fs::read_to_string(world.net.endpoints().subnet).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table.insert("mechanism".to_owned(), 1.into());
    let file = world.root().join("mechanism.toml");
    shared::file::write_atomic(&file, table.to_string().as_bytes()).unwrap();
    let mut command = world.command("a");
    command.env("VALIDATOR_SUBNET", &file);
    let mut validator = world.logged(command, "a", &[]);
    world
        .until("a", "a weight set that was read back", || {
            let status = world.status("a");
            status.is_some_and(|status| status.details.receipt.is_some())
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    let weights = async |mechanism: &str| {
        let arguments = ["inspect", "weights", "--mechanism", mechanism, "--json"];
        world.run("a", &arguments).await
    };
    let (code, text) = weights("1").await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("65535"), "{text}");
    let (code, text) = weights("0").await;
    assert_ne!(code, 0, "{text}");
    assert!(world.weights().1.is_empty(), "nothing went to the first");
}
