//! The pages of a journal whose miners mean no good.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeMap, path::Path, time::Duration};

use index::Index;
use page::{Form, Queued, Route, Site};
use report::{
    Board, Journal, StepRecord,
    status::{Details, Status},
    step_record::{self, Engine, ModelRow, Outcome, Refusal, Rules, Samples},
};
use subnet::{CompetitionId, Fault, Hotkey, Netuid, Parameters, Real, Uid};

/// Names as only somebody chooses them who wants something.
fn hostile(uid: u16) -> String {
    match uid % 6 {
        0 => format!("<script>alert({uid})</script>:x:y"),
        1 => format!("\"><img src=x onerror=alert({uid})>:x:y"),
        2 => "a".repeat(10_000),
        3 => format!("\u{202e}gnp.exe\u{2066}:\u{1f600}:{uid}"),
        4 => format!("name:space{uid}:0123456789012345678901234567890123456789:hash:l3"),
        _ => "javascript:alert(1):x".to_owned(),
    }
}

fn record(step: u64, uids: u16, samples: usize) -> StepRecord {
    let models = (0..uids).map(|uid| {
        let losses = match uid % 5 {
            3 => vec![Real(f64::NAN); samples],
            4 => vec![Real(f64::INFINITY); samples],
            _ => (0..samples)
                .map(|sample| {
                    Real(1.0 + f64::from(uid) / 100.0 + (sample as f64 + step as f64).sin() / 10.0)
                })
                .collect(),
        };
        let outcome = match uid {
            7 => Outcome::CopyOf(Uid(1)),
            8 => Outcome::Failed(Fault::model("</td><script>alert(8)</script>")),
            _ => Outcome::Evaluated,
        };
        let row = ModelRow {
            hotkey: Hotkey([uid as u8; 32]),
            block: 100 + u64::from(uid),
            model: hostile(uid),
            content: format!("content {uid}"),
            parameters: 7,
            tokenizer: String::new(),
            outcome,
            losses,
            score: score::WinRow {
                wins: 1,
                matches: 2,
                win_rate: 1.0 / f64::from(uid + 1),
            },
            step_weight: Real(0.0),
            weight: Real(0.1),
            seconds: 1.0,
        };
        (Uid(uid), row)
    });
    StepRecord {
        format: step_record::FORMAT,
        version: "<b>1</b>".into(),
        netuid: Netuid(6),
        hotkey: Hotkey([0; 32]),
        step,
        competition: CompetitionId::from(if step.is_multiple_of(2) { "l3" } else { "<i>" }),
        block: 1000 + step,
        block_hash: "0x0".into(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::from_second(step as i64).unwrap(),
        rules: Rules::of(&Parameters::embedded(), 2, 0.5),
        samples: Samples {
            digest: "<digest>".into(),
            sources: vec!["https://example.org/?<script>".into()],
            ids: vec!["x".into(); samples],
            ..Samples::default()
        },
        engine: Engine::default(),
        plans: BTreeMap::new(),
        models: models.collect(),
        refused: vec![Refusal {
            uid: Uid(300),
            hotkey: Hotkey([77; 32]),
            block: 50,
            model: hostile(0),
            reason: "<svg onload=alert(1)>".into(),
        }],
        weights_before: vec![],
        weights_after: vec![],
        kept: vec![],
        generated: [(
            Uid(1),
            step_record::Generated {
                prompt: "<script>ask()</script>\nand more".into(),
                response: "<img src=x onerror=alert(1)>\u{202e}".into(),
                truth: "</dl>".into(),
            },
        )]
        .into(),
        receipt: Some(step_record::Receipt {
            block: 900,
            extrinsic: "<0xabc>".into(),
            attempts: 1,
            stored: vec![(Uid(1), 65535)],
        }),
        sandbox: None,
        timings: [("evaluate".to_owned(), 2.0)].into(),
    }
}

fn journal(folder: &Path, steps: u64, uids: u16, samples: usize) -> Index {
    let journal = Journal::open(&folder.join("records"), 1 << 30, 9).unwrap();
    for step in 0..steps {
        journal
            .append(&record(step, uids, samples), |_| [0; 64])
            .unwrap();
    }
    Index::open(folder).unwrap()
}

fn site(index: &Index, is_live: bool) -> Site<'_> {
    Site {
        index,
        status: None,
        queue: vec![Queued {
            uid: 1,
            model: hostile(1),
            stage: "waiting".into(),
            reason: Some("<script>".into()),
            again_at: Some(jiff::Timestamp::UNIX_EPOCH),
        }],
        is_live,
    }
}

#[test]
fn no_text_of_a_miner_is_markup_and_every_link_leads_somewhere() {
    let dir = tempfile::tempdir().unwrap();
    let index = journal(dir.path(), 6, 12, 12);
    for is_live in [true, false] {
        let site = site(&index, is_live);
        let routes = site.routes(100).unwrap();
        assert_eq!(routes.len(), 4 + 2 + 13 + 6, "{routes:?}");
        let names: Vec<String> = routes.iter().map(|route| route.file(Form::Html)).collect();
        for route in &routes {
            let html = site.page(route, Form::Html).unwrap().unwrap();
            let scripts = html.matches("<script").count();
            assert_eq!(scripts, usize::from(is_live), "{html}");
            for bad in [
                "<img",
                "onerror=alert(1)>",
                "<i>",
                "<b>1",
                "style=",
                "\u{202e}",
                "\u{2066}",
                "<svg onload",
            ] {
                assert!(!html.contains(bad), "{bad} is in {route:?}:\n{html}");
            }
            for svg in html.split("<svg").skip(1) {
                let head = svg.split('>').next().unwrap();
                assert!(
                    head.contains("aria-label=") || head.contains("aria-hidden"),
                    "{head}"
                );
            }
            assert_eq!(
                html.matches("<th").count(),
                html.matches("<th scope=").count() + html.matches("<thead").count()
            );
            for link in html.split("href=\"").skip(1) {
                let link = link.split('"').next().unwrap();
                let known = names.iter().any(|name| name == link)
                    || Route::of(link)
                        .is_some_and(|(route, _)| site.page(&route, Form::Html).unwrap().is_some())
                    || ["style.css", "#main"].contains(&link)
                    || link.starts_with("https://huggingface.co/name/space");
                assert!(known, "{link} in {route:?}");
            }
            let json = site.page(route, Form::Json).unwrap().unwrap();
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
        }
    }
    let site = site(&index, true);
    for missing in [Route::Step(99), Route::Uid(Uid(999)), Route::Competition(9)] {
        assert_eq!(site.page(&missing, Form::Html).unwrap(), None);
    }
}

#[test]
fn the_first_page_of_a_full_subnet_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let index = journal(dir.path(), 8, 256, 4);
    let html = site(&index, true)
        .page(&Route::Overview, Form::Html)
        .unwrap()
        .unwrap();
    assert!(html.len() <= 100 << 10, "{} bytes", html.len());
    assert!(html.contains("competition-0.html"), "{html}");
}

#[test]
fn without_a_step_there_are_pages_that_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let index = journal(dir.path(), 0, 0, 0);
    let site = site(&index, false);
    for route in site.routes(9).unwrap() {
        let html = site.page(&route, Form::Html).unwrap().unwrap();
        assert!(
            html.contains("yet")
                || route == Route::Health
                || route == Route::Queue
                || route == Route::Uid(Uid(1)),
            "{html}"
        );
    }
    let (board, _alarms) = Board::new(Details::default());
    board.device_memory("cuda:0", 31_000_000_000, 80_000_000_000);
    let health = |status| {
        let site = Site {
            status: Some(status),
            ..self::site(&index, false)
        };
        site.page(&Route::Health, Form::Html).unwrap().unwrap()
    };
    let status = board.status("test", Duration::from_secs(15));
    let now = health(status.clone());
    assert!(
        now.contains("31.00 of 80.00\u{a0}GB") && now.contains("39\u{a0}%"),
        "{now}"
    );
    assert!(now.contains("Nothing is known to be wrong"), "{now}");
    let stale = health(Status {
        written_at: 0,
        ..status
    });
    assert!(
        stale.contains("has ended or hangs") && !stale.contains("Nothing is known"),
        "{stale}"
    );
    let health = site.page(&Route::Health, Form::Html).unwrap().unwrap();
    assert!(
        health.contains("There is no status") && !health.contains("Nothing is known to be wrong"),
        "{health}"
    );
}

#[test]
fn pages_of_a_full_subnet_are_bounded_and_their_axes_and_tables_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let index = journal(dir.path(), 40, 256, 20);
    let site = site(&index, false);
    let page = |route: &Route| site.page(route, Form::Html).unwrap().unwrap();
    let competition = page(&Route::Competition(1));
    // Lines of the best, who have colors, and not of all.
    assert!(competition.contains("uid 0</li>"), "{competition}");
    assert!(competition.contains("56 more"), "{competition}");
    assert!(competition.len() < 400 << 10, "{} bytes", competition.len());
    let step = page(&Route::Step(39));
    assert!(step.contains("step-38.html") && !step.contains("step-40.html"));
    assert!(step.contains("upper quartile"), "{step}");
    assert!(step.contains("ask()&lt;/script&gt;<br>and more"), "{step}");
    let uid = page(&Route::Uid(Uid(5)));
    assert!(
        uid.contains("behave alike") && uid.contains("uid-6.html"),
        "{uid}"
    );
    let weights = page(&Route::Weights);
    assert!(weights.contains("100.00\u{a0}%"), "{weights}");
}
