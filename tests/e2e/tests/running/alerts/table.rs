//! What is broken for each health rule, and what ends it.

use report::status::Cause;
use shared::status::Health;

/// A cause, how bad it becomes at least, what is broken, and what is mended.
pub(super) type Case = (Cause, Health, &'static str, &'static str);

/// What goes wrong while one validator runs, in this order.
pub(super) const RUNNING: [Case; 21] = [
    (
        Cause::Publish,
        Health::Yellow,
        "the bucket refuses what is put there",
        "it takes it",
    ),
    (
        Cause::Chain,
        Health::Yellow,
        "nobody reaches the chain",
        "it is back",
    ),
    (
        Cause::ChainLag,
        Health::Red,
        "our clock is two hours ahead",
        "it is set right",
    ),
    (
        Cause::State,
        Health::Yellow,
        "a folder stands where the state is written",
        "it is gone",
    ),
    (
        Cause::Store,
        Health::Yellow,
        "a folder stands where the store notes who needs what",
        "it is gone",
    ),
    (
        Cause::Tokenizer,
        Health::Yellow,
        "another tokenizer is pushed",
        "the one of before is back",
    ),
    (
        Cause::Models,
        Health::Yellow,
        "a miner commits anew, and the hub is down",
        "the hub is up",
    ),
    (
        Cause::Tracker,
        Health::Yellow,
        "the same, and a folder stands where verdicts are written",
        "it is gone",
    ),
    (
        Cause::Losses,
        Health::Yellow,
        "every prompt is longer than what is scored",
        "they are of the usual length",
    ),
    (
        Cause::Samples,
        Health::Yellow,
        "nobody reaches the source of samples",
        "it is back",
    ),
    (
        Cause::OldSamples,
        Health::Yellow,
        "the same, for 25 hours",
        "it is back",
    ),
    (
        Cause::Step,
        Health::Yellow,
        "the same, until the cache is too old",
        "it is back",
    ),
    (
        Cause::Steps,
        Health::Yellow,
        "the same, for another day",
        "it is back",
    ),
    (
        Cause::Wandb,
        Health::Yellow,
        "rows that were never sent take 5 GiB",
        "they are deleted",
    ),
    (
        Cause::Twin,
        Health::Red,
        "somebody sets weights with our hotkey",
        "two epochs pass",
    ),
    (
        Cause::Trust,
        Health::Yellow,
        "a large validator weighs others than we do",
        "it is gone",
    ),
    (
        Cause::Registration,
        Health::Red,
        "we lose our place",
        "we are registered anew",
    ),
    (
        Cause::Weights,
        Health::Yellow,
        "the chain refuses every transaction",
        "it takes them",
    ),
    (
        Cause::WeightsAge,
        Health::Yellow,
        "the same, until weights are overdue",
        "it takes them",
    ),
    (
        Cause::Permit,
        Health::Yellow,
        "our stake is gone",
        "it is back",
    ),
    (
        Cause::Commitments,
        Health::Yellow,
        "all miners lose their places",
        "one is back",
    ),
];

/// What the next start tells, or what ends with it.
pub(super) const RESTARTED: [Case; 4] = [
    (
        Cause::Failure,
        Health::Red,
        "there is no such wallet",
        "there is",
    ),
    (
        Cause::CrashLoop,
        Health::Yellow,
        "the same, three times",
        "a start that becomes ready",
    ),
    (
        Cause::OldChainData,
        Health::Yellow,
        "a start with --offline and no chain",
        "one with a chain",
    ),
    (
        Cause::Disk,
        Health::Red,
        "more is to stay free than there is",
        "less is",
    ),
];

/// What needs a subnet of its own: the test that breaks and mends it.
pub(super) const ELSEWHERE: [(Cause, &str, &str); 2] = [
    (
        Cause::Reveal,
        "committed_weights_are_followed_until_they_are_revealed",
        include_str!("../main.rs"),
    ),
    // It ends with nothing but the subnet itself: the netuid does not come back.
    (
        Cause::Subnet,
        "a_netuid_that_changes_hands_and_a_lost_place_stop_evaluation_and_weights",
        include_str!("../identity.rs"),
    ),
];
