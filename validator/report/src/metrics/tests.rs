use std::time::Duration;

use jiff::Timestamp;
use subnet::{CompetitionId, Real, Uid};

use super::*;
use crate::{
    board::{Board, Hold},
    status::{HotkeyStanding, ModelCounts, OriginStatus, RoundProgress, Sources, Start, TrustNow},
};

fn last_step(competition: &str, uid: u16) -> (CompetitionId, LastStep) {
    let model = ModelSummary {
        loss: Real(f64::NAN),
        win_rate: Real(0.5),
        weight: Real(0.25),
    };
    let competition = CompetitionId::from(competition);
    let step = LastStep {
        step: 8,
        competition: competition.clone(),
        block: 16,
        samples: "digest".into(),
        seconds: 1.5,
        finished_at: Timestamp::UNIX_EPOCH,
        models: [(Uid(uid), model)].into(),
    };
    (competition, step)
}

/// Details in which everything is known.
fn full() -> Details {
    let (_, step) = last_step("l3", 4);
    Details {
        block: Some(17),
        block_at: Some(Timestamp::UNIX_EPOCH),
        endpoints: vec![EndpointStatus {
            url: "ws://node.example/***".into(),
            in_use: true,
            block: Some(16),
            lag: Some(1),
            latency_millis: Some(250),
            watches: Some(true),
            state_depth: Some(2000),
            ..EndpointStatus::default()
        }],
        origins: vec![OriginStatus {
            url: "https://hub.example/".into(),
            served: 7,
            failed: 1,
            problem: None,
        }],
        step: Some(9),
        round: Some(RoundProgress {
            done: 1,
            of: 3,
            began_at: Timestamp::UNIX_EPOCH,
            done_at: None,
        }),
        start: Start {
            ready_at: Some(Timestamp::UNIX_EPOCH),
            ..Start::default()
        },
        weights: Some(WeightsClock {
            last_block: 14,
            age_blocks: 3,
            ..WeightsClock::default()
        }),
        models: ModelCounts {
            verified: 2,
            refused: 1,
            waiting: 0,
        },
        sources: Some(Sources {
            failing: vec!["away".into()],
            ..Sources::default()
        }),
        last_step: Some(step),
        last_steps: [last_step("l3", 4), last_step("s1", 5)].into(),
        trust: Some(TrustNow::default()),
        standing: Some(HotkeyStanding {
            permit: true,
            stake: 1.5,
        }),
        disk: Some(DiskUse {
            limit: Some(1),
            free: 1 << 40,
            ..DiskUse::default()
        }),
        ..Details::default()
    }
}

#[test]
fn the_status_is_what_prometheus_sees() {
    let (board, alarms) = Board::new(full());
    board.hold(Hold::SettingWeights, "weights are being set", None);
    alarms.twin.raise(Health::Red, "a twin");
    let text = render(
        &board.status("test", Duration::from_secs(15)),
        &Meters::default(),
    );
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.ends_with("\"} 0"))
        .filter(|line| !line.starts_with("finetune_vali_written"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    finetune_vali_build_info{version="test",device=""} 1
    finetune_vali_health 2
    finetune_vali_restart_safe 0
    finetune_vali_ready 1
    finetune_vali_ready_timestamp_seconds 0
    finetune_vali_start_attempt 0
    finetune_vali_problem{cause="twin"} 2
    finetune_vali_problem{cause="steps"} 1
    finetune_vali_block 17
    finetune_vali_block_timestamp_seconds 0
    finetune_vali_step 9
    finetune_vali_steps_done 0
    finetune_vali_step_seconds 1.5
    finetune_vali_step_models_done 1
    finetune_vali_step_models 3
    finetune_vali_weights_age_blocks 3
    finetune_vali_weights_late_blocks 0
    finetune_vali_weights_due_block 0
    finetune_vali_weights_failed_tries 0
    finetune_vali_weights_last_block 14
    finetune_vali_validator_trust_ratio 0
    finetune_vali_validator_trust_best_ratio 0
    finetune_vali_validator_permit 1
    finetune_vali_stake 1.5
    finetune_vali_models_verified 2
    finetune_vali_models_refused 1
    finetune_vali_models_waiting 0
    finetune_vali_sources_failing 1
    finetune_vali_samples_age_seconds 0
    finetune_vali_store_bytes 0
    finetune_vali_store_unfinished_bytes 0
    finetune_vali_store_limit_bytes 1
    finetune_vali_store_free_bytes 1099511627776
    finetune_vali_store_keep_free_bytes 0
    finetune_vali_endpoint_in_use{endpoint="0",url="ws://node.example/***"} 1
    finetune_vali_endpoint_block{endpoint="0",url="ws://node.example/***"} 16
    finetune_vali_endpoint_lag_blocks{endpoint="0",url="ws://node.example/***"} 1
    finetune_vali_endpoint_latency_seconds{endpoint="0",url="ws://node.example/***"} 0.25
    finetune_vali_endpoint_watches_transactions{endpoint="0",url="ws://node.example/***"} 1
    finetune_vali_endpoint_state_depth_blocks{endpoint="0",url="ws://node.example/***"} 2000
    finetune_vali_hub_origin_served{origin="0",url="https://hub.example/"} 7
    finetune_vali_hub_origin_failed{origin="0",url="https://hub.example/"} 1
    finetune_vali_loss{competition="l3",uid="4"} NaN
    finetune_vali_loss{competition="s1",uid="5"} NaN
    finetune_vali_win_rate{competition="l3",uid="4"} 0.5
    finetune_vali_win_rate{competition="s1",uid="5"} 0.5
    finetune_vali_weight{competition="l3",uid="4"} 0.25
    finetune_vali_weight{competition="s1",uid="5"} 0.25
    finetune_vali_evaluated_tokens_total 0
    finetune_vali_weight_sets_total 0
    finetune_vali_hub_received_bytes_total 0
    finetune_vali_hub_answer_seconds_sum 0.0
    finetune_vali_hub_answer_seconds_count 0
    "#);
}

#[test]
fn what_is_not_known_is_absent_and_what_is_counted_is_there() {
    let (board, _) = Board::new(Details::default());
    let meters = Meters::default();
    meters.weights_set();
    let text = render(&board.status("test", Duration::from_secs(15)), &meters);
    for absent in [
        "finetune_vali_loss",
        "finetune_vali_stake",
        "finetune_vali_store",
    ] {
        assert!(!text.contains(absent), "{text}");
    }
    assert!(
        text.contains("\nfinetune_vali_weight_sets_total 1\n"),
        "{text}"
    );
}

/// Returns every metric there is, as text.
pub(super) fn everything() -> String {
    let (board, _) = Board::new(full());
    render(
        &board.status("test", Duration::from_secs(15)),
        &Meters::with_every_row(),
    )
}

#[test]
fn every_metric_says_what_it_is() {
    let text = everything();
    let lines = text.lines();
    let told: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("# HELP "))
        .collect();
    for line in &told {
        let (_, words) = line.split_once(' ').unwrap();
        assert!(words.len() > 8 && words.ends_with('.'), "{line}");
    }
    assert_eq!(told.len(), text.matches("# TYPE ").count());
}
