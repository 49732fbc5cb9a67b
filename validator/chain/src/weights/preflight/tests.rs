use super::*;
use crate::{epoch::EpochState, weights::Emitted};

const US: Hotkey = Hotkey([1; 32]);

fn rules() -> Hyperparameters {
    Hyperparameters {
        tempo: 360,
        weights_rate_limit: 100,
        weights_version: 0,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        commit_reveal: false,
        reveal_period_epochs: 1,
        commit_reveal_version: None,
        stake_threshold: 1000,
        activity_cutoff: 5000,
        immunity_period: 5000,
        max_uids: 256,
        mechanisms: 1,
        owner_hotkey: None,
        owner: None,
        registered_at: None,
        null_consensus: false,
        time: None,
        safe_mode_until: None,
        block_millis: 12_000,
        epoch: EpochState {
            tempo: 360,
            counters: None,
        },
    }
}

fn neuron() -> Neuron {
    Neuron {
        uid: Uid(2),
        hotkey: US,
        coldkey: US,
        stake: 1000,
        validator_permit: true,
        active: true,
        consensus: 0,
        incentive: 0,
        dividends: 0,
        emission: 0,
        last_update: 500,
        registered_at: 1,
    }
}

fn request(weights: &[(u16, u16)]) -> WeightsRequest {
    let (uids, values) = weights.iter().copied().unzip();
    WeightsRequest {
        netuid: Netuid(6),
        mechanism: 0,
        weights: Emitted { uids, values },
        version_key: 27,
        window: std::time::Duration::ZERO,
    }
}

/// Asks at block 599, the first after which the rate limit lets weights in again; the subnet has four
/// neurons.
fn refused(
    rules: &Hyperparameters,
    neuron: Option<&Neuron>,
    request: &WeightsRequest,
) -> Vec<Refusal> {
    refusals(599, &US, neuron, 4, rules, request)
}

fn ordinary() -> WeightsRequest {
    request(&[(0, 65_535), (3, 65_535)])
}

/// Takes a request that is accepted to the edge of a rule.
type Change = fn(&mut Hyperparameters, &mut Neuron, &mut WeightsRequest);

#[test]
fn what_keeps_each_rule_just_so_is_accepted() {
    let accepted: [Change; 10] = [
        |_, _, _| (),
        |rules, _, _| rules.safe_mode_until = Some(599),
        |rules, _, _| rules.weights_version = 27,
        |rules, _, _| rules.min_allowed_weights = 2,
        |rules, _, _| rules.max_weight_limit = 32_768,
        // A limit that is none.
        |rules, _, request| {
            rules.max_weight_limit = u16::MAX;
            *request = self::request(&[(1, 9)]);
        },
        // Who has never set any waits for nothing, also on a young chain.
        |rules, neuron, _| {
            neuron.last_update = 0;
            rules.weights_rate_limit = 1000;
        },
        |rules, _, _| rules.commit_reveal_version = Some(9),
        |rules, _, _| {
            rules.commit_reveal = true;
            rules.commit_reveal_version = Some(4);
        },
        |rules, _, _| rules.epoch.tempo = 0,
    ];
    for (number, change) in accepted.iter().enumerate() {
        let (mut rules, mut neuron, mut request) = (rules(), neuron(), ordinary());
        change(&mut rules, &mut neuron, &mut request);
        assert_eq!(refused(&rules, Some(&neuron), &request), [], "{number}");
    }
}

#[test]
fn what_breaks_a_rule_just_so_is_refused() {
    let refusing: [(Change, Refusal); 12] = [
        (
            |rules, _, _| rules.safe_mode_until = Some(600),
            Refusal::SafeMode { until: 600 },
        ),
        (
            |_, _, request| request.netuid = Netuid(0),
            Refusal::RootNetwork,
        ),
        (
            |_, _, request| request.mechanism = 1,
            Refusal::NoSuchMechanism {
                mechanism: 1,
                count: 1,
            },
        ),
        (
            |rules, _, _| {
                rules.commit_reveal = true;
                rules.commit_reveal_version = Some(5);
            },
            Refusal::CommitVersion { version: 5 },
        ),
        (
            |rules, _, _| {
                rules.commit_reveal = true;
                rules.epoch.tempo = 0;
            },
            Refusal::NoReveal,
        ),
        (
            |_, neuron, _| neuron.stake = 999,
            Refusal::StakeTooLow {
                stake: 999,
                threshold: 1000,
            },
        ),
        (
            |rules, _, _| rules.weights_version = 28,
            Refusal::VersionKey {
                ours: 27,
                required: 28,
            },
        ),
        (
            |_, neuron, _| neuron.last_update = 503,
            Refusal::TooSoon {
                last: 503,
                blocks: 3,
            },
        ),
        (
            |_, neuron, _| neuron.validator_permit = false,
            Refusal::NoPermit { uid: Uid(2) },
        ),
        (
            |rules, _, _| rules.min_allowed_weights = 3,
            Refusal::TooFew {
                count: 2,
                minimum: 3,
            },
        ),
        (
            |_, _, request| *request = self::request(&[]),
            Refusal::TooFew {
                count: 0,
                minimum: 1,
            },
        ),
        (
            |rules, _, _| rules.max_weight_limit = 32_767,
            Refusal::MaxWeight {
                share: 32_768,
                limit: 32_767,
            },
        ),
    ];
    for (change, refusal) in refusing {
        let (mut rules, mut neuron, mut request) = (rules(), neuron(), ordinary());
        change(&mut rules, &mut neuron, &mut request);
        assert_eq!(refused(&rules, Some(&neuron), &request), [refusal]);
    }
}

#[test]
fn uids_must_exist_and_be_named_once() {
    let count = 4;
    let odd = request(&[(3, 1), (3, 1), (4, 1)]);
    let uid = Uid;
    let expected = [
        Refusal::DuplicateUid { uid: uid(3) },
        Refusal::NoSuchUid { uid: uid(4), count },
    ];
    assert_eq!(refused(&rules(), Some(&neuron()), &odd), expected);
}

#[test]
fn who_has_no_uid_hears_what_does_not_depend_on_it() {
    let mut request = ordinary();
    request.mechanism = 1;
    let not_registered = Refusal::NotRegistered {
        hotkey: US,
        netuid: Netuid(6),
    };
    let no_such = Refusal::NoSuchMechanism {
        mechanism: 1,
        count: 1,
    };
    let said = refused(&rules(), None, &request);
    assert_eq!(said, [no_such, not_registered]);
}

#[test]
fn the_owner_needs_no_permit_and_no_stake() {
    let mut rules = rules();
    let mut neuron = neuron();
    (neuron.validator_permit, neuron.stake) = (false, 0);
    rules.owner_hotkey = Some(US);
    assert_eq!(refused(&rules, Some(&neuron), &ordinary()), []);
    rules.owner_hotkey = Some(Hotkey([2; 32]));
    assert_eq!(refused(&rules, Some(&neuron), &ordinary()).len(), 2);
}

#[test]
fn a_weight_on_oneself_alone_needs_no_permit_and_no_company() {
    let mut rules = rules();
    let mut neuron = neuron();
    neuron.validator_permit = false;
    (rules.min_allowed_weights, rules.max_weight_limit) = (3, 1);
    let only_self = request(&[(2, 65_535)]);
    assert_eq!(refused(&rules, Some(&neuron), &only_self), []);
    assert_eq!(refused(&rules, Some(&neuron), &ordinary()).len(), 3);
}

#[test]
fn waiting_helps_against_some_refusals_and_is_counted_for_one() {
    let soon = Refusal::TooSoon { last: 1, blocks: 7 };
    let many = Refusal::TooManyCommits {
        count: 10,
        blocks: 9,
    };
    let safe = Refusal::SafeMode { until: 5 };
    let cases = [
        (&soon, Some(7), false),
        (&many, Some(9), false),
        (&safe, None, false),
        (&Refusal::RootNetwork, None, true),
        (&Refusal::NoPermit { uid: Uid(1) }, None, true),
    ];
    for (refusal, wait, lasting) in cases {
        assert_eq!((refusal.wait(), refusal.is_lasting()), (wait, lasting));
    }
    let preflight = |refusals: Vec<Refusal>| Preflight {
        block: 1,
        neuron: None,
        hyperparameters: rules(),
        refusals,
    };
    assert_eq!(preflight(vec![soon.clone()]).wait(), Some(7));
    assert_eq!(preflight(vec![soon, Refusal::RootNetwork]).wait(), None);
    assert_eq!(preflight(Vec::new()).wait(), None);
}

#[test]
fn mechanisms_lie_4096_subnets_apart() {
    let index = |netuid, mechanism| storage_index(Netuid(netuid), mechanism);
    assert_eq!(index(6, 0), 6);
    assert_eq!(index(6, 1), 4102);
    assert_eq!(index(6, 2), 8198);
    let key = [Argument::u128(4102), Argument::u128(3)];
    assert_eq!(row_key(Netuid(6), 1, Uid(3)), key);
}

#[test]
fn commits_are_counted_where_an_epoch_has_room_for_too_many() {
    let rules = |commit_reveal, tempo, weights_rate_limit| Hyperparameters {
        tempo,
        weights_rate_limit,
        commit_reveal,
        ..rules()
    };
    for (rules, counted) in [
        (rules(true, 1000, 100), true),
        (rules(true, 999, 100), false),
        (rules(true, 360, 100), false),
        (rules(true, 5000, 100), true),
        (rules(true, 10, 0), true),
        (rules(true, 9, 0), false),
        (rules(true, 10, 1), true),
        (rules(false, 1000, 100), false),
    ] {
        assert_eq!(may_be_too_many(&rules), counted, "{rules:?}");
    }
}
