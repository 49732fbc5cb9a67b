//! What the supervisor does not take: unsigned, older and bad commits, edits that nobody signed; and
//! what it takes without a restart.

use std::path::Path;

use shared::{Exit, Failure, file};

use super::{
    Stage,
    programs::Report,
    scenes::{BUILD_LIMIT, SCENE_LIMIT, Scenes, TOUCHED, git_remote, short, watch},
};

/// Passes the smoke test and then does not stay up.
const BAD: &str = "//! A version that passes its tests and does not stay up.

fn main() -> shared::Exit {
    let mut words = std::env::args().skip(1);
    if words.next().is_some_and(|word| word.starts_with(\"--\") && word != \"--version\") {
        return shared::Exit::Bug;
    }
    validator::cli::main(shared::version!())
}
";

/// Plays them in turn while `running` runs; returns the commit that runs at the end.
pub(super) async fn play(
    stage: &mut Stage,
    scenes: &Scenes,
    first: &str,
    running: &str,
) -> Result<String, Failure> {
    let child = watch(
        stage,
        scenes,
        "the validator running",
        SCENE_LIMIT,
        |report| report.child.pid,
    )
    .await?;
    let remote = git_remote(stage.subnet()?)?;
    let readme = format!("{}\nTouched by the demo.\n", remote.read("README.md")?);
    let files = [("README.md", readme.as_bytes())];

    let unsigned = remote.push_unsigned("Do harm", &files)?;
    scenes.say(format_args!(
        "pushed {} without a signature",
        short(&unsigned)
    ));
    refused(stage, scenes, "is not signed").await?;

    git_remote(stage.subnet()?)?.reset(first)?;
    scenes.say(format_args!("put the branch back to {}", short(first)));
    refused(stage, scenes, "went back to an older commit").await?;

    let remote = git_remote(stage.subnet()?)?;
    remote.reset(running)?;
    let docs = remote.push("Explain it", &files)?;
    let taken = |report: &Report| (report.accepted() == Some(&docs)).then_some(report.child.pid);
    let after = watch(stage, scenes, "the documentation taken", SCENE_LIMIT, taken).await?;
    if after != Some(child) {
        return Err(Failure::new(
            Exit::Failed,
            "documentation alone restarted the validator",
        ));
    }
    scenes.say(format_args!(
        "took {}, which changes documentation only, without a restart",
        short(&docs)
    ));

    bad_version(stage, scenes, running).await
}

/// A commit that crashes, beside edits of the operator's that are left out, as nobody signed them;
/// then it is mended.
async fn bad_version(stage: &mut Stage, scenes: &Scenes, running: &str) -> Result<String, Failure> {
    let subnet = stage.subnet()?;
    let edited = subnet.folder().join("checkout").join(TOUCHED);
    let good = git_remote(subnet)?.read(TOUCHED)?;
    // The checkout stays where the operator left it, so this is older than what runs.
    let before =
        std::fs::read_to_string(&edited).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let mine = format!("// An edit of the operator's.\n{before}");
    write(&edited, &mine)?;
    let bad = git_remote(subnet)?.push("Break it", &[(TOUCHED, BAD.as_bytes())])?;
    scenes.say(format_args!(
        "edited {TOUCHED} in the checkout, which nobody signed; pushed {}, which crashes",
        short(&bad)
    ));
    let back = |report: &Report| {
        let runs =
            report.child.release.as_deref() == Some(running) && report.child.state == "running";
        let reason = report.update.quarantine.get(&bad)?;
        (runs && report.update.phase == "idle").then(|| reason.clone())
    };
    let reason = watch(
        stage,
        scenes,
        "the bad version rolled back",
        BUILD_LIMIT,
        back,
    )
    .await?;
    scenes.say(format_args!(
        "rolled back to {}, {} in quarantine: {reason}",
        short(running),
        short(&bad)
    ));
    if std::fs::read_to_string(&edited).ok() != Some(mine) {
        return Err(Failure::new(Exit::Failed, "the operator's edit is gone"));
    }
    scenes.say("the edit in the checkout is as it was");
    write(&edited, &before)?;

    let mended = format!("{good}// Mended.\n");
    let mended = git_remote(stage.subnet()?)?.push("Mend it", &[(TOUCHED, mended.as_bytes())])?;
    let runs = |report: &Report| {
        let idle = report.update.phase == "idle" && report.child.state == "running";
        (idle && report.child.release.as_deref() == Some(&mended)).then_some(())
    };
    watch(
        stage,
        scenes,
        "the mended version running",
        BUILD_LIMIT,
        runs,
    )
    .await?;
    scenes.say(format_args!(
        "the next commit, {}, is good and runs",
        short(&mended)
    ));
    Ok(mended)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    file::write_atomic(path, text.as_bytes()).map_err(|error| Failure::of(Exit::Machine, &error))
}

/// Waits until the supervisor says why it does not take a commit.
async fn refused(stage: &mut Stage, scenes: &Scenes, why: &str) -> Result<(), Failure> {
    let refused = |report: &Report| {
        let problem = report.update.problem.as_deref()?;
        problem.contains(why).then(|| problem.to_owned())
    };
    let what = format!("a refusal that says {why:?}");
    let said = watch(stage, scenes, &what, SCENE_LIMIT, refused).await?;
    scenes.say(format_args!("refused: {said}"));
    Ok(())
}
