//! The supply of the steps over localnet's feed: fetched ahead, shared, never kept too long.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{path::Path, time::Duration};

use localnet::{
    feed::Feed,
    http::{Fault, Rule},
    samples::generate,
};
use samples::{Fetcher, FetcherSettings, Order, Supply, filter::Filter, hub, wandb};

async fn feed() -> Feed {
    Feed::start(0, generate(1, 60)).await.unwrap()
}

fn supply(feed: &Feed, cache: &Path, max_age: Duration) -> Supply {
    let settings = FetcherSettings {
        sources: vec![feed.url().parse().unwrap()],
        minimum: 4,
        cache: Some(cache.to_owned()),
        max_age,
        filter: Filter::default(),
        http_token: None,
        hub: hub::HubAccess::default(),
        wandb: wandb::WandbAccess::default(),
    };
    Supply::new(Fetcher::new(settings).unwrap(), 12)
}

fn asked(feed: &Feed) -> usize {
    feed.server.traffic.requests().len()
}

const HOUR: Duration = Duration::from_secs(3600);
const OF_BLOCK: Order = Order {
    seed: 7,
    block: Some(360),
};

#[tokio::test]
async fn steps_of_a_block_share_the_set_that_was_fetched_ahead() {
    let (feed, cache) = (feed().await, tempfile::tempdir().unwrap());
    let supply = supply(&feed, cache.path(), HOUR);
    // A step that comes while its set is on the way waits for that one.
    let ((), first) = tokio::join!(supply.prepare(OF_BLOCK), supply.take(OF_BLOCK));
    let first = first.unwrap();
    assert_eq!(asked(&feed), 1);
    // What the source shows now belongs to the next block.
    feed.show(generate(2, 60));
    let second = supply.take(OF_BLOCK).await.unwrap();
    assert_eq!(second.set, first.set);
    assert_eq!(asked(&feed), 1);
    let other = Order {
        seed: 8,
        block: Some(720),
    };
    let third = supply.take(other).await.unwrap();
    assert_ne!(third.set.digest, first.set.digest);
    assert_eq!(asked(&feed), 2);
}

#[tokio::test]
async fn without_a_block_each_step_has_a_set_of_its_own() {
    let (feed, cache) = (feed().await, tempfile::tempdir().unwrap());
    let supply = supply(&feed, cache.path(), HOUR);
    let order = supply.random_order();
    assert_eq!(order, supply.random_order(), "until it is taken");
    supply.prepare(order).await;
    let first = supply.take(order).await.unwrap();
    assert_eq!(asked(&feed), 1);
    assert_eq!(first.set.seed, order.seed);
    let next = supply.random_order();
    assert_ne!(next, order);
    let fixed = Order {
        seed: 7,
        block: None,
    };
    for fetches in 2..4 {
        supply.take(fixed).await.unwrap();
        assert_eq!(asked(&feed), fetches, "a fixed seed, and fresh samples");
    }
}

#[tokio::test]
async fn a_set_out_of_the_cache_is_said_and_asked_for_again() {
    let (feed, cache) = (feed().await, tempfile::tempdir().unwrap());
    let supply = supply(&feed, cache.path(), HOUR);
    let fresh = supply.take(OF_BLOCK).await.unwrap();
    assert!(fresh.trouble.is_empty());
    feed.server.faults.add(Rule::always(Fault::Gated));
    let other = Order {
        block: Some(720),
        ..OF_BLOCK
    };
    supply.prepare(other).await;
    let kept = supply.take(other).await.unwrap();
    assert_eq!(
        kept.set.digest, fresh.set.digest,
        "the same records and seed"
    );
    assert!(kept.set.cached_age.is_some());
    let trouble = &kept.trouble[0];
    assert!(
        trouble.contains("uses its samples of 0 min ago"),
        "{trouble}"
    );
    assert!(trouble.contains("403"), "{trouble}");
    feed.server.faults.clear();
    let back = supply.take(other).await.unwrap();
    assert_eq!((back.set.cached_age, back.trouble.len()), (None, 0));
}

#[tokio::test]
async fn a_set_that_waited_too_long_is_not_used() {
    let (feed, cache) = (feed().await, tempfile::tempdir().unwrap());
    let supply = supply(&feed, cache.path(), Duration::ZERO);
    supply.prepare(OF_BLOCK).await;
    supply.take(OF_BLOCK).await.unwrap();
    assert_eq!(asked(&feed), 2, "fetched again");
}

#[tokio::test]
async fn a_meagre_answer_does_not_cost_the_good_cache() {
    let (feed, cache) = (feed().await, tempfile::tempdir().unwrap());
    let supply = supply(&feed, cache.path(), HOUR);
    let order = |seed| Order { seed, block: None };
    supply.take(order(1)).await.unwrap();
    feed.show(generate(2, 3));
    for seed in 2..4 {
        let kept = supply.take(order(seed)).await.unwrap();
        assert_eq!(kept.set.samples.len(), 12);
        assert!(kept.set.cached_age.is_some());
    }
}
