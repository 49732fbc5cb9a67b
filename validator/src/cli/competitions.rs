//! `validator competitions`: what the subnet file says.

use shared::{Exit, Failure, term};

use super::flags::SubnetFlag;
use subnet::{BlockNumber, Parameters};

/// Show the competitions of the subnet file.
#[derive(Debug, clap::Args)]
pub(crate) struct CompetitionsArgs {
    /// Show the schedule that holds at this block instead of the last one
    #[arg(long, value_name = "BLOCK")]
    block: Option<BlockNumber>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a whole subnet file, as --subnet takes it
    #[arg(long, conflicts_with = "json")]
    toml: bool,
    #[command(flatten)]
    subnet: SubnetFlag,
}

fn summary(parameters: &Parameters) -> String {
    let Parameters {
        netuid,
        epsilon,
        temperature,
        alpha,
        blocks_per_epoch,
        limits,
        samples,
        ..
    } = parameters;
    let start = epsilon.start;
    let epsilon = if epsilon.blocks == 0 {
        start.to_string()
    } else {
        format!("{start} to {} over {} blocks", epsilon.end, epsilon.blocks)
    };
    format!(
        "subnet {netuid} · epsilon {epsilon} · temperature {temperature} · alpha {alpha} · weights \
         every {blocks_per_epoch} blocks\n{} samples a step (at least {}), the same for {} blocks · \
         {} minutes a step\nsamples from {}",
        limits.samples,
        limits.min_samples,
        limits.sync_blocks,
        limits.step_minutes,
        samples.join(", "),
    )
}

pub(super) fn run(args: &CompetitionsArgs) -> Result<Exit, Failure> {
    let parameters = args.subnet.parameters()?;
    if args.json {
        term::json(&parameters);
        return Ok(Exit::Ok);
    }
    if args.toml {
        let text = toml::to_string(&parameters).map_err(|error| Failure::of(Exit::Bug, &error))?;
        term::line(text.trim_end());
        return Ok(Exit::Ok);
    }
    let block = args.block.unwrap_or(BlockNumber::MAX);
    let mut table = term::table(["id", "architecture", "max parameters", "tokenizer", "share"]);
    for competition in parameters.competitions_at(block) {
        table.add_row([
            competition.id.to_string(),
            competition.architecture.clone(),
            competition.max_parameters.to_string(),
            competition
                .tokenizer
                .as_ref()
                .map_or_else(|| "the model's own".into(), ToString::to_string),
            competition.reward_share.to_string(),
        ]);
    }
    term::line(table);
    term::line(summary(&parameters));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hint_calls_a_valid_file_is_one() {
        let parameters = Parameters::embedded();
        let text = toml::to_string(&parameters).unwrap();
        assert_eq!(Parameters::parse("printed", &text).unwrap(), parameters);
    }
}
