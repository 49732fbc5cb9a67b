//! Audits: a validator publishes its steps while it runs, and anyone checks them without a wallet.

use std::{fs, path::Path, time::Duration};

use localnet::{
    bucket,
    http::{Fault, Faults, Rule},
};
use report::{
    StepRecord,
    journal::{self, Signature, signatures_of},
    publication::StepManifest,
    status::Cause,
    step_record::Outcome,
};
use serde_json::Value;
use shared::file;
use subnet::{Real, Uid};
use validator::step::scoring;

use crate::world::{World, stop};

/// Where the bucket's objects lie, below the bucket.
const FOLDER: &str = "mine/vali";

/// What the validator needs to write to the bucket.
const KEY: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", bucket::KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", bucket::SECRET),
];

/// Audits a place as somebody without a wallet; returns the exit code, what was found, and all that was said.
async fn audit(world: &World, place: &str, flags: &[&str]) -> (i32, Value, String) {
    let mut command = world.command("nobody");
    command
        .env_remove("BT_WALLET_PATH")
        .env_remove("BT_WALLET_NAME")
        .args([
            "audit",
            place,
            "--every",
            "1",
            "--device",
            "cpu",
            "--min-free",
            "1MB",
            "--json",
        ])
        .args(flags);
    let (code, text) = World::ended(command).await;
    let json = text.lines().find(|line| line.starts_with('{'));
    let begin = text
        .find("{\n")
        .or_else(|| json.and_then(|line| text.find(line)));
    let found = begin.and_then(|begin| {
        let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter();
        values.next()?.ok()
    });
    (code, found.unwrap_or_default(), text)
}

/// Returns the deviations of a finding, each as step, kind, uid and text.
fn deviations(found: &Value) -> Vec<(u64, String, Option<u64>, String)> {
    let steps = found["steps"].as_array().cloned().unwrap_or_default();
    let of = |step: &Value| -> Vec<_> {
        let number = step["step"].as_u64().unwrap();
        let found = step["deviations"].as_array().unwrap().clone();
        let told = found.into_iter().map(move |found| {
            let text = |name: &str| found[name].as_str().unwrap().to_owned();
            (number, text("kind"), found["uid"].as_u64(), text("text"))
        });
        told.collect()
    };
    steps.iter().flat_map(of).collect()
}

/// Publishes another record in the place of a step's, signed with the validator's own key.
fn forge(world: &World, path: &Path, change: impl FnOnce(&mut StepRecord)) {
    let mut record = journal::read(path).unwrap().remove(0).record;
    change(&mut record);
    let line = serde_json::to_vec(&record).unwrap();
    let signed = journal::signed_bytes(&line);
    let mut signature: Signature =
        serde_json::from_slice(&fs::read(signatures_of(path)).unwrap()).unwrap();
    signature.sha256 = hex(&signed[signed.len() - 32..]);
    signature.signature = hex(&world.net.validator.hotkey.signer.sign(&signed).0);
    let packed = zstd::encode_all(line.as_slice(), 3).unwrap();
    file::write_atomic(path, &packed).unwrap();
    let signature = serde_json::to_vec(&signature).unwrap();
    file::write_atomic(&signatures_of(path), &signature).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(
    clippy::too_many_lines,
    reason = "a run is dear: one is audited in many ways"
)]
#[tokio::test(flavor = "multi_thread")]
async fn published_steps_are_audited_by_anyone_and_what_was_tampered_with_is_named() {
    let world = World::start("audit", Duration::from_millis(500)).await;
    let folder = world.root().join("bucket");
    let faults = Faults::default();
    let server = bucket::start(&folder, faults.clone()).await.unwrap();
    let place = format!("{}/{FOLDER}", server.url());
    // The bucket is away at first: no step waits for it, and the status says so until it is back.
    faults.add(Rule::always(Fault::Unavailable).method("PUT"));
    let mut command = world.command("a");
    command.envs(KEY);
    let flags = ["--publish", &place, "--sync-blocks", "10", "--genesis"];
    let mut validator = world.logged(command, "a", &flags);
    let told = || {
        let status = world.status("a");
        status.is_some_and(|status| status.details.alarms.contains_key(&Cause::Publish))
    };
    world
        .until("a", "steps while the bucket is away, and its alarm", || {
            told() && world.records("a").len() > 2
        })
        .await;
    faults.clear();
    let manifest = folder.join(FOLDER).join("manifest.json");
    let published = || {
        let bytes = fs::read(&manifest).ok()?;
        Some(StepManifest::read(&bytes).unwrap().steps)
    };
    world
        .until(
            "a",
            "the records in the bucket, and the end of the alarm",
            || !told() && published().is_some_and(|steps| steps.len() > 2),
        )
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    let log = world.log_text("a");
    assert!(
        !log.contains(bucket::SECRET) && !log.contains("X-Amz"),
        "{log}"
    );
    let (steps, records) = (published().unwrap(), world.records("a"));
    assert_eq!(
        steps.len(),
        records.len(),
        "the last step is published, too"
    );

    // Somebody who has no wallet, no model and no sample.
    fs::remove_dir_all(world.store()).unwrap();
    let page = world.root().join("page");
    let hotkey = records[0].hotkey.to_string();
    let flags = ["--hotkey", &hotkey, "--page", page.to_str().unwrap()];
    let (code, found, text) = audit(&world, &place, &flags).await;
    assert_eq!(
        (code, found["verdict"].as_str()),
        (0, Some("holds")),
        "{text}"
    );
    assert_eq!(
        found["steps"].as_array().unwrap().len(),
        steps.len(),
        "{text}"
    );
    for step in found["steps"].as_array().unwrap() {
        let again = &step["recomputed"];
        assert!(again["models"].as_u64().unwrap() > 0, "{text}");
        assert_eq!(again["loss"].as_f64(), Some(0.0), "{text}");
    }
    let written = fs::read_to_string(page.join("audit.html")).unwrap();
    assert!(
        written.contains("holds") && written.contains(&hotkey),
        "{written}"
    );

    // The key's owner lies: a better loss, and a better win; both signed anew.
    let file = |name: String| folder.join(FOLDER).join(name);
    let of = |step: usize| file(steps[step].record());
    let is_rated = |record: &StepRecord| {
        let rated = record
            .models
            .iter()
            .find(|(_, row)| row.outcome == Outcome::Evaluated && row.mean_loss().is_finite());
        *rated.unwrap().0
    };
    let (first, second): (Uid, Uid) = (is_rated(&records[0]), is_rated(&records[1]));
    let honest = tempfile::tempdir().unwrap();
    copy(&folder, honest.path());
    forge(&world, &of(0), |record| {
        for loss in &mut record.models.get_mut(&first).unwrap().losses {
            *loss = Real(loss.0 * 0.9);
        }
        scoring::score(record);
    });
    forge(&world, &of(1), |record| {
        record.models.get_mut(&second).unwrap().score.wins += 1;
    });
    // Somebody else meddles: a cut record.
    let bytes = fs::read(of(2)).unwrap();
    file::write_atomic(&of(2), &bytes[..bytes.len() / 2]).unwrap();
    let (code, found, text) = audit(&world, &place, &["--page", page.to_str().unwrap()]).await;
    assert_eq!(
        (code, found["verdict"].as_str()),
        (3, Some("deviates")),
        "{text}"
    );
    let told = deviations(&found);
    let is_told = |step: usize, kind: &str, uid: Option<Uid>, text: &str| {
        told.iter().any(|(number, of_kind, of_uid, said)| {
            (*number, of_kind.as_str()) == (steps[step].step, kind)
                && *of_uid == uid.map(|uid| u64::from(uid.0))
                && said.contains(text)
        })
    };
    assert!(is_told(0, "loss", Some(first), "computed again"), "{text}");
    assert!(
        is_told(1, "score", Some(second), "follows from the losses"),
        "{text}"
    );
    assert!(is_told(2, "record", None, "unpack"), "{text}");
    assert_eq!(told.len(), 3, "{text}");
    let written = fs::read_to_string(page.join("audit.html")).unwrap();
    assert!(written.contains("deviates"), "{written}");

    // In a folder as on an address; without the key, every change is one of the signature.
    let folder = honest.path().join(FOLDER);
    let path = folder.join(steps[0].record());
    let mut record = journal::read(&path).unwrap().remove(0).record;
    record.models.get_mut(&first).unwrap().losses[0] = Real(0.5);
    let packed = zstd::encode_all(serde_json::to_vec(&record).unwrap().as_slice(), 3);
    file::write_atomic(&path, &packed.unwrap()).unwrap();
    fs::remove_file(folder.join(steps[1].signature())).unwrap();
    // A packed sample set of nothing but zeros, which would take the memory of the machine.
    let digest = records[2].samples.digest.clone();
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 3).unwrap();
    file::write_atomic(&folder.join(format!("samples/{digest}.json.zst")), &bomb).unwrap();
    let (code, found, text) = audit(&world, folder.to_str().unwrap(), &[]).await;
    assert_eq!(code, 3, "{text}");
    let told = deviations(&found);
    let is_told = |step: usize, kind: &str, text: &str| {
        let number = steps[step].step;
        told.iter()
            .any(|(of, of_kind, _, said)| *of == number && of_kind == kind && said.contains(text))
    };
    assert!(is_told(0, "signature", "tampered"), "{text}");
    assert!(is_told(1, "signature", "missing"), "{text}");
    assert!(is_told(2, "samples", "unpacks to more than"), "{text}");

    // Nothing there, another hotkey, and nobody there.
    let (code, _, text) = audit(&world, world.root().to_str().unwrap(), &[]).await;
    assert_eq!(code, 65, "{text}");
    let stranger = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let (code, _, text) = audit(&world, folder.to_str().unwrap(), &["--hotkey", stranger]).await;
    assert_eq!(code, 3, "{text}");
    drop(server);
    let (code, _, text) = audit(&world, &place, &[]).await;
    assert_eq!(code, 75, "{text}");
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
