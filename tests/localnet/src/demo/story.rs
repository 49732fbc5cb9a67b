//! The story of the demo, scene by scene; each scene ends when what it promises is there.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use shared::{Exit, Failure, term};

use super::{
    BLOCK_TIME, Plan, Stage, options,
    programs::{self, Cargo, Launch, Report, Supervisor},
    record::{self, Step},
    refusals,
    scenes::{
        BUILD_LIMIT, LOOK, SCENE_LIMIT, Scenes, TOUCHED, git_remote, missed, short, supervisor,
        watch,
    },
    sweep,
    trouble::CHAIN_TROUBLE,
};
use crate::{Localnet, chain::BlockMode, miners::Family};

/// How the validator evaluates here: new samples, and so a new step, every 5 s.
const VALIDATOR: &str = "--device cpu --dtype float32 --attn_implementation eager \
                         --latest_cortex_samples 24 --sync-blocks 10";

/// Plays all scenes; returns the closing report.
pub(super) async fn play(plan: &Plan, stage: &mut Stage) -> Result<String, Failure> {
    let scenes = Scenes::new();
    programs::check_cargo().await?;
    sweep(&plan.state_dir)?;
    start_subnet(plan, stage, &scenes).await?;
    start_supervisor(plan, stage, &scenes).await?;
    let before = validator_up(plan, stage, &scenes).await?;
    let steps = both_competitions(plan, stage, &scenes).await?;
    name_the_bad(stage.subnet()?, &steps, &scenes)?;
    let settled = weights_on_chain(plan, stage, &scenes, &steps).await?;
    let after = update(stage, &scenes, &before).await?;
    let resumed = state_kept(plan, stage, &scenes, &after, settled.number).await?;
    let mended = refusals::play(stage, &scenes, &before, &after).await?;
    let subnet = stage.subnet()?;
    let bad = subnet
        .miners
        .iter()
        .filter(|miner| !miner.role.is_honest())
        .count();
    let mut report = String::from("\nWhat happened:\n");
    let _ = writeln!(
        report,
        "  {} models judged, {bad} bad ones named",
        subnet.miners.len()
    );
    let _ = writeln!(
        report,
        "  weights of step {} read back from the chain, equal",
        settled.number
    );
    let _ = writeln!(
        report,
        "  updated from {} to {}",
        short(&before),
        short(&after)
    );
    let _ = writeln!(report, "  went on with step {resumed}, no state lost");
    let _ = write!(
        report,
        "  refused unsigned and older commits, left unsigned edits out, took a crashing one back, ended at {}",
        short(&mended)
    );
    for trouble in &plan.troubles {
        let _ = write!(report, "\n  survived {}", trouble.report(subnet));
    }
    Ok(report)
}

async fn start_subnet(plan: &Plan, stage: &mut Stage, scenes: &Scenes) -> Result<(), Failure> {
    let spinner = scenes.spinner.clone();
    let progress = move |what: &str| spinner.set_message(what.to_owned());
    let subnet = Localnet::start_with(options(plan), progress).await?;
    scenes.say("the subnet is up: chain, hub, samples, W&B stand-in, git remote");
    scenes.show(subnet.endpoints().table());
    scenes.say(format_args!(
        "{} miners have committed their models",
        subnet.miners.len()
    ));
    stage.subnet = Some(subnet);
    Ok(())
}

async fn start_supervisor(plan: &Plan, stage: &mut Stage, scenes: &Scenes) -> Result<(), Failure> {
    let subnet = stage.subnet()?;
    let remote = git_remote(subnet)?;
    let source = absolute(&plan.source)?;
    let cargo = Cargo {
        profile: plan.profile.clone(),
        target_dir: absolute(&plan.state_dir)?.join("target"),
        build_dir: own_target_dir().unwrap_or_else(|| source.join("target")),
    };
    let program = cargo.build("supervisor", &source, &scenes.spinner).await?;
    let folder = subnet.folder().to_owned();
    let own = |name: &str| folder.join(name).display().to_string();
    remote.clone_to(&folder.join("checkout"))?;
    let mut environment = subnet.environment();
    environment.push(("HF_HOME", own("hf")));
    let mut arguments = subnet.validator_arguments();
    arguments.extend(["--state-dir".to_owned(), own("validator")]);
    arguments.extend(["--model_dir".to_owned(), own("models-cache")]);
    arguments.extend(VALIDATOR.split_whitespace().map(ToOwned::to_owned));
    let supervisor = Supervisor::start(Launch {
        program,
        folder: &folder.join("supervisor"),
        checkout: &folder.join("checkout"),
        allowed_signers: remote.allowed_signers(),
        cargo: &cargo,
        environment,
        arguments,
    })?;
    stage.supervisor = Some(supervisor);
    scenes.say("the supervisor runs; it builds the validator and its worker from the git remote");
    Ok(())
}

/// Returns the target folder that this program was built in, if it still lies there.
fn own_target_dir() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let target_dir = own.parent()?.parent()?;
    let is_cargos = target_dir.join("CACHEDIR.TAG").exists();
    is_cargos.then(|| target_dir.to_owned())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::of(Exit::Machine, &error))
}

async fn validator_up(plan: &Plan, stage: &mut Stage, scenes: &Scenes) -> Result<String, Failure> {
    for trouble in plan
        .troubles
        .iter()
        .filter(|trouble| !trouble.is_of_chain())
    {
        trouble.set(stage.subnet()?);
    }
    let running = |report: &Report| match &report.child.release {
        Some(release) if report.child.state == "running" => Some(release.clone()),
        _ => None,
    };
    let release = watch(stage, scenes, "the validator running", BUILD_LIMIT, running).await?;
    stage
        .subnet()?
        .chain
        .set_block_mode(BlockMode::Every(BLOCK_TIME));
    scenes.say(format_args!(
        "the validator runs: commit {}",
        short(&release)
    ));
    Ok(release)
}

/// Looks at the step records until `found` finds what it looks for.
async fn watch_steps<T>(
    plan: &Plan,
    stage: &mut Stage,
    scenes: &Scenes,
    what: &str,
    found: impl Fn(&Localnet, &[Step]) -> Option<T>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + SCENE_LIMIT;
    loop {
        let steps = record::read(&plan.state_dir.join("validator/records/steps.jsonl"));
        if let Some(thing) = found(stage.subnet()?, &steps) {
            return Ok(thing);
        }
        let report = supervisor(stage)?.report().await?;
        if Instant::now() > deadline {
            return Err(missed(stage, what, report.as_ref()));
        }
        let line = report.map_or_else(String::new, |report| report.line());
        scenes.going_on(format!("{} steps · {line}", steps.len()));
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until both competitions have a step with both honest miners in it and every bad miner is
/// explained.
async fn both_competitions(
    plan: &Plan,
    stage: &mut Stage,
    scenes: &Scenes,
) -> Result<Vec<Step>, Failure> {
    let complete = |subnet: &Localnet, steps: &[Step]| {
        let newest = record::newest(steps);
        let judged = subnet.miners.iter().all(|miner| {
            let step = newest.get(miner.family.competition());
            if miner.role.is_honest() {
                let model = step.and_then(|step| step.models.get(&miner.uid));
                return model.is_some_and(record::RecordedModel::is_sound);
            }
            record::reason(steps, miner).is_some()
        });
        judged.then(|| steps.to_vec())
    };
    let steps = watch_steps(plan, stage, scenes, "a verdict on every miner", complete).await?;
    let subnet = stage.subnet()?;
    let newest = record::newest(&steps);
    for family in Family::ALL {
        if let Some(step) = newest.get(family.competition()) {
            scenes.say(format_args!(
                "step {}: competition {}",
                step.number, step.competition
            ));
            scenes.show(step.table(&subnet.miners));
        }
    }
    Ok(steps)
}

fn name_the_bad(subnet: &Localnet, steps: &[Step], scenes: &Scenes) -> Result<(), Failure> {
    let newest = record::newest(steps);
    let mut table = term::table(["uid", "competition", "miner", "reason"]);
    for miner in subnet.miners.iter().filter(|miner| !miner.role.is_honest()) {
        let reason = record::reason(steps, miner).unwrap_or_default();
        table.add_row([
            miner.uid.to_string(),
            miner.family.competition().to_owned(),
            miner.role.to_string(),
            reason.chars().take(110).collect(),
        ]);
        let step = newest.get(miner.family.competition());
        let model = step.and_then(|step| step.models.get(&miner.uid));
        // The softmax gives every uid of a step a sliver; what matters is that it is one.
        if let Some(model) = model.filter(|model| model.weight > 0.01) {
            let text = format!("the {} miner got weight {}", miner.role, model.weight);
            return Err(Failure::new(Exit::Failed, text));
        }
    }
    scenes.say("these won nothing, and why:");
    scenes.show(table);
    Ok(())
}

/// Waits until the chain has the weights of a step, to the last unit: of one that comes after those
/// shown, or of the last of them.
async fn weights_on_chain(
    plan: &Plan,
    stage: &mut Stage,
    scenes: &Scenes,
    shown: &[Step],
) -> Result<Step, Failure> {
    let last_shown = shown.last().map_or(0, |step| step.number);
    let troubles = plan.troubles.iter().filter(|trouble| trouble.is_of_chain());
    let mut not_before = 0;
    for trouble in troubles {
        scenes.say(format_args!("the chain is in trouble: {trouble}"));
        trouble.set(stage.subnet()?);
        tokio::time::sleep(CHAIN_TROUBLE).await;
        trouble.end(stage.subnet()?);
        not_before = u64::from(stage.subnet()?.chain.block_number());
    }
    let equal = |subnet: &Localnet, steps: &[Step]| {
        let neurons = subnet.chain.neurons(subnet.netuid);
        let validator = neurons
            .first()
            .filter(|neuron| neuron.last_update >= not_before)?;
        let mut newest = steps
            .iter()
            .rev()
            .take_while(|step| step.number >= last_shown);
        newest
            .find(|step| step.on_chain() == validator.weights)
            .cloned()
    };
    let what = "weights on the chain equal to those of a step";
    let step = watch_steps(plan, stage, scenes, what, equal).await?;
    let subnet = stage.subnet()?;
    scenes.say(format_args!(
        "the chain has the weights of step {}",
        step.number
    ));
    let mut table = term::table(["uid", "miner", "weight", "of 65535", "on the chain"]);
    let on_chain = weights_of_validator(subnet);
    for (uid, expected) in step.on_chain() {
        let miner = subnet.miners.iter().find(|miner| miner.uid == uid);
        let stored = on_chain.iter().find(|(stored, _)| *stored == uid);
        table.add_row([
            uid.to_string(),
            miner.map_or_else(String::new, |m| {
                format!("{} {}", m.family.competition(), m.role)
            }),
            format!("{:.6}", step.weights_after[usize::from(uid)]),
            expected.to_string(),
            stored.map_or_else(
                || "newer by now".to_owned(),
                |(_, weight)| weight.to_string(),
            ),
        ]);
    }
    scenes.show(table);
    Ok(step)
}

fn weights_of_validator(subnet: &Localnet) -> Vec<(u16, u16)> {
    let neurons = subnet.chain.neurons(subnet.netuid);
    neurons
        .first()
        .map(|validator| validator.weights.clone())
        .unwrap_or_default()
}

/// Pushes a commit and waits until the supervisor runs it.
async fn update(stage: &mut Stage, scenes: &Scenes, before: &str) -> Result<String, Failure> {
    let remote = git_remote(stage.subnet()?)?;
    let text = remote.read(TOUCHED)?;
    let text = format!("{text}// Touched by the demo to make a new version.\n");
    let commit = remote.push("Make a new version", &[(TOUCHED, text.as_bytes())])?;
    scenes.say(format_args!("pushed commit {}", short(&commit)));
    let switched = |report: &Report| {
        let release = report.child.release.as_ref()?;
        let new = release != before && report.child.state == "running";
        (new && report.update.phase == "idle").then(|| release.clone())
    };
    let release = watch(
        stage,
        scenes,
        "the new version running",
        BUILD_LIMIT,
        switched,
    )
    .await?;
    let (before, after) = (short(before), short(&release));
    scenes.say(format_args!(
        "the supervisor has built it and switched: {before} -> {after}"
    ));
    Ok(release)
}

/// Waits for a step of the new version that goes on where the old one stopped.
async fn state_kept(
    plan: &Plan,
    stage: &mut Stage,
    scenes: &Scenes,
    release: &str,
    last_known: u64,
) -> Result<u64, Failure> {
    let resumed = |_: &Localnet, steps: &[Step]| {
        let at = steps
            .iter()
            .position(|step| step.version.contains(release))?;
        Some((steps.get(at.checked_sub(1)?)?.clone(), steps[at].clone()))
    };
    let what = "a step of the new version";
    let (old, new) = watch_steps(plan, stage, scenes, what, resumed).await?;
    if new.number <= old.number
        || new.number <= last_known
        || new.weights_before != old.weights_after
    {
        let text = format!(
            "step {} does not go on from step {}",
            new.number, old.number
        );
        return Err(Failure::new(Exit::Failed, text)
            .because("the running weights of the old version are not those of the new one"));
    }
    scenes.say(format_args!(
        "step {} of the new version went on with the weights of step {}",
        new.number, old.number
    ));
    Ok(new.number)
}
