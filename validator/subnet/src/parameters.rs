//! The subnet file: every constant of the subnet in one TOML document; the default is embedded.

use std::path::Path;

pub use model::{Compatibility, norms::NormLimits};
use serde::{Deserialize, Deserializer, Serialize};
use shared::file::{self, FileError};

use super::{
    BlockNumber, CommitmentRules, Competition, CompetitionId, FixedTokenizer, Netuid,
    SubnetIdentity,
};

/// The subnet file of the fine-tuning subnet.
pub const EMBEDDED: &str = include_str!("../data/subnet.toml");

const MAX_BYTES: u64 = 1 << 20;

/// Head start of the older of two models, as a fraction of its loss: from `start` to `end`, linear
/// in the age of the older model over `blocks`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epsilon {
    /// Fraction at age 0.
    pub start: f64,
    /// Fraction from age `blocks` on.
    pub end: f64,
    /// Length of the decay, in blocks.
    pub blocks: u64,
}

impl Epsilon {
    /// Returns a head start that never decays.
    pub const fn fixed(fraction: f64) -> Self {
        Self {
            start: fraction,
            end: fraction,
            blocks: 0,
        }
    }

    /// Returns the fraction for an older model of this age, in blocks.
    pub fn at_age(self, age: u64) -> f64 {
        let Self { start, end, blocks } = self;
        if age >= blocks {
            return end;
        }
        start + (end - start) * (age as f64 / blocks as f64)
    }

    /// Reads what the subnet file may say: one number, or the three of a decay.
    fn number_or_decay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number or { start, end, blocks }")]
        enum WrittenEpsilon {
            Fixed(f64),
            Decay(Epsilon),
        }
        WrittenEpsilon::deserialize(deserializer).map(|written| match written {
            WrittenEpsilon::Fixed(fraction) => Self::fixed(fraction),
            WrittenEpsilon::Decay(epsilon) => epsilon,
        })
    }
}

/// A list of competitions that holds from a block on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// First block at which it holds.
    pub from_block: BlockNumber,
    /// The competitions, in the order in which steps take them.
    pub competitions: Vec<Competition>,
}

/// What a step may take, and what it is made of. A flag of the command line beats each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepLimits {
    /// Minutes one attempt at a step may take.
    pub step_minutes: u64,
    /// Samples drawn for each step.
    pub samples: usize,
    /// Fewest samples worth a step.
    pub min_samples: usize,
    /// Blocks over which validators draw the same samples.
    pub sync_blocks: u64,
}

impl Default for StepLimits {
    fn default() -> Self {
        Self {
            step_minutes: 20,
            samples: 400,
            min_samples: 20,
            sync_blocks: 360,
        }
    }
}

/// Every constant of the subnet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    pub netuid: Netuid,
    /// Which subnet of this number is meant.
    #[serde(default)]
    pub identity: SubnetIdentity,
    /// Which of the subnet's mechanisms the weights are for.
    #[serde(default)]
    pub mechanism: u8,
    /// Block at which the subnet began; epochs of the consensus start are counted from it.
    pub start_block: BlockNumber,
    /// Head start of the older of two models.
    #[serde(deserialize_with = "Epsilon::number_or_decay")]
    pub epsilon: Epsilon,
    /// Temperature of the softmax over win rates.
    pub temperature: f64,
    /// Share of the old weights kept by the moving average.
    pub alpha: f64,
    /// Longest conversation, in tokens.
    pub sequence_length: usize,
    /// Largest repository, in bytes, over all its files.
    pub max_repository_bytes: u64,
    /// Limits on the weights' norms.
    pub norms: NormLimits,
    /// Version key sent with the weights.
    pub weights_version: u64,
    /// Blocks between weight sets.
    pub blocks_per_epoch: u64,
    pub sample_min: usize,
    /// Where samples come from, as `--samples` takes them.
    #[serde(default)]
    pub samples: Vec<String>,
    #[serde(default)]
    pub limits: StepLimits,
    /// How miners commit to models.
    #[serde(default)]
    pub commitment: CommitmentRules,
    /// What older library versions refused.
    #[serde(default)]
    pub compatibility: Compatibility,
    /// The schedules, by ascending `from_block`.
    pub schedules: Vec<Schedule>,
}

/// Why a subnet file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ParametersError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such file.
    #[error("there is no subnet file {0}")]
    Missing(String),
    /// It is not TOML, or not of this shape.
    #[error("{name} is not a subnet file")]
    Toml {
        name: String,
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{name}: {key} {problem}")]
    Value {
        name: String,
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Parameters {
    /// Returns the embedded parameters of the fine-tuning subnet.
    pub fn embedded() -> Self {
        Self::parse("the embedded subnet file", EMBEDDED).expect("a test parses the embedded file")
    }

    pub fn read(path: &Path) -> Result<Self, ParametersError> {
        let name = path.display().to_string();
        let bytes = file::read_limited(path, MAX_BYTES)?
            .ok_or_else(|| ParametersError::Missing(name.clone()))?;
        Self::parse(&name, &String::from_utf8_lossy(&bytes))
    }

    /// Parses and checks a subnet file; `name` is for errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParametersError> {
        let parameters: Self = toml::from_str(text).map_err(|source| ParametersError::Toml {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        parameters.check(name)?;
        Ok(parameters)
    }

    /// Returns the competitions that hold at a block; none before the first schedule.
    pub fn competitions_at(&self, block: BlockNumber) -> &[Competition] {
        self.schedules
            .iter()
            .rev()
            .find(|schedule| schedule.from_block <= block)
            .map_or(&[], |schedule| &schedule.competitions)
    }

    /// Returns the competition of this id at a block.
    pub fn competition_at(&self, block: BlockNumber, id: &CompetitionId) -> Option<&Competition> {
        self.competitions_at(block)
            .iter()
            .find(|competition| competition.id == *id)
    }

    fn check(&self, name: &str) -> Result<(), ParametersError> {
        let refuse = |key: &str, problem: String| {
            Err(ParametersError::Value {
                name: name.to_owned(),
                key: key.to_owned(),
                problem,
            })
        };
        let fraction = 0.0..1.0;
        if !fraction.contains(&self.epsilon.start) || !fraction.contains(&self.epsilon.end) {
            return refuse("epsilon", "must be at least 0 and below 1".into());
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 || self.temperature.is_infinite() {
            return refuse("temperature", "must be above 0".into());
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return refuse("alpha", "must lie between 0 and 1".into());
        }
        for (key, value) in [
            ("sequence_length", self.sequence_length as u64),
            ("max_repository_bytes", self.max_repository_bytes),
            ("blocks_per_epoch", self.blocks_per_epoch),
            ("sample_min", self.sample_min as u64),
            ("limits.step_minutes", self.limits.step_minutes),
            ("limits.samples", self.limits.samples as u64),
            ("limits.min_samples", self.limits.min_samples as u64),
            ("limits.sync_blocks", self.limits.sync_blocks),
            ("schedules", self.schedules.len() as u64),
        ] {
            if value == 0 {
                return refuse(key, "must not be 0 or empty".into());
            }
        }
        if !self
            .schedules
            .is_sorted_by(|a, b| a.from_block < b.from_block)
        {
            return refuse(
                "schedules",
                "must be in ascending order of from_block".into(),
            );
        }
        for (index, schedule) in self.schedules.iter().enumerate() {
            if let Some((key, problem)) = schedule.problem() {
                return refuse(&format!("schedules[{index}].{key}"), problem);
            }
        }
        Ok(())
    }
}

/// Model classes the engine can evaluate.
pub const ARCHITECTURES: [&str; 5] = [
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "StableLmForCausalLM",
    "GemmaForCausalLM",
    "Qwen2ForCausalLM",
];

impl Schedule {
    fn problem(&self) -> Option<(String, String)> {
        for (index, competition) in self.competitions.iter().enumerate() {
            let key = |field: &str| format!("competitions[{index}].{field}");
            let id = &competition.id.0;
            if id.is_empty() || id.chars().count() > 2 || id.contains(':') {
                return Some((
                    key("id"),
                    format!("{id:?} must be one or two characters, no colon"),
                ));
            }
            if self.competitions[..index]
                .iter()
                .any(|other| other.id == competition.id)
            {
                return Some((key("id"), format!("{id:?} is used twice")));
            }
            let architecture = competition.architecture.as_str();
            if !ARCHITECTURES.contains(&architecture) {
                let known = ARCHITECTURES.join(", ");
                return Some((
                    key("architecture"),
                    format!("{architecture:?} is none of {known}"),
                ));
            }
            if let Some(problem) = competition.tokenizer.as_ref().and_then(tokenizer_problem) {
                return Some((key("tokenizer"), problem));
            }
            if competition.max_parameters == 0 {
                return Some((key("max_parameters"), "must not be 0".into()));
            }
            if competition.reward_share.is_nan() || competition.reward_share <= 0.0 {
                return Some((key("reward_share"), "must be above 0".into()));
            }
        }
        let sum: f64 = self
            .competitions
            .iter()
            .map(|competition| competition.reward_share)
            .sum();
        ((sum - 1.0).abs() > 1e-9).then(|| {
            (
                "competitions".to_owned(),
                format!("have reward shares that add up to {sum}, not 1"),
            )
        })
    }
}

fn tokenizer_problem(tokenizer: &FixedTokenizer) -> Option<String> {
    let is_commit = |text: &str| {
        text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match (&tokenizer.revision, &tokenizer.content_hash) {
        (Some(revision), _) if !is_commit(revision) => Some(format!(
            "has the revision {revision:?}, which must be a full commit: 40 hexadecimal digits"
        )),
        (None, Some(_)) => Some("has a content_hash, which needs a revision".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use model::ContentHash;

    use super::*;

    #[test]
    fn the_embedded_file_is_the_subnet_of_the_python_validator() {
        let parameters = Parameters::embedded();
        assert_eq!(parameters.netuid, Netuid(6));
        assert_eq!(parameters.weights_version, 27);
        let ids: Vec<_> = parameters
            .competitions_at(3_000_000)
            .iter()
            .map(|c| c.id.0.as_str())
            .collect();
        assert_eq!(ids, ["l3", "s1"]);
        assert!((parameters.epsilon.at_age(5) - 0.01).abs() < f64::EPSILON);
        assert_eq!(parameters.limits, StepLimits::default());
    }

    #[test]
    fn a_bad_value_is_named_by_file_and_key() {
        let refused = |from: &str, to: &str| {
            let text = EMBEDDED.replace(from, to);
            assert_ne!(text, EMBEDDED, "{from}");
            Parameters::parse("s.toml", &text).unwrap_err().to_string()
        };
        insta::assert_snapshot!(refused("reward_share = 0.6", "reward_share = 0.7"), @"s.toml: schedules[0].competitions have reward shares that add up to 1.1, not 1");
        insta::assert_snapshot!(refused("id = \"l3\"", "id = \"l33\""), @r#"s.toml: schedules[0].competitions[0].id "l33" must be one or two characters, no colon"#);
        insta::assert_snapshot!(refused("\"LlamaFor", "\"LamaFor"), @r#"s.toml: schedules[0].competitions[0].architecture "LamaForCausalLM" is none of LlamaForCausalLM, MistralForCausalLM, StableLmForCausalLM, GemmaForCausalLM, Qwen2ForCausalLM"#);
        insta::assert_snapshot!(refused("step_minutes = 20", "step_minutes = 0"), @"s.toml: limits.step_minutes must not be 0 or empty");
        insta::assert_snapshot!(refused("id = \"s1\"", "id = \"l3\""), @r#"s.toml: schedules[0].competitions[1].id "l3" is used twice"#);
    }

    #[test]
    fn a_fixed_tokenizer_may_be_pinned() {
        let plain = "tokenizer = \"stabilityai/stablelm-2-zephyr-1_6b\"";
        let parse = |pins: &str| {
            let pinned = format!(
                "tokenizer = {{ repository = \"stabilityai/stablelm-2-zephyr-1_6b\"{pins} }}"
            );
            let text = EMBEDDED.replace(plain, &pinned);
            assert_ne!(text, EMBEDDED);
            Parameters::parse("s.toml", &text).map_err(|error| error.to_string())
        };
        let tokenizer = |parameters: &Parameters| {
            let s1 = parameters.competition_at(1, &CompetitionId::from("s1"));
            s1.unwrap().tokenizer.clone().unwrap()
        };
        assert_eq!(
            tokenizer(&parse("").unwrap()),
            tokenizer(&Parameters::embedded())
        );
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let hash = ContentHash::from_digest([7; 32]);
        let both = format!(", revision = \"{commit}\", content_hash = \"{hash}\"");
        let parameters = parse(&both).unwrap();
        let pinned = tokenizer(&parameters);
        assert_eq!(pinned.revision.as_deref(), Some(commit));
        assert_eq!(pinned.content_hash, Some(hash));
        let written = serde_json::to_string(&pinned).unwrap();
        let read: FixedTokenizer = serde_json::from_str(&written).unwrap();
        assert_eq!(read, pinned);
        insta::assert_snapshot!(parse(", revision = \"main\"").unwrap_err(), @r#"s.toml: schedules[0].competitions[1].tokenizer has the revision "main", which must be a full commit: 40 hexadecimal digits"#);
        insta::assert_snapshot!(parse(&format!(", content_hash = \"{hash}\"")).unwrap_err(), @"s.toml: schedules[0].competitions[1].tokenizer has a content_hash, which needs a revision");
        assert!(parse(", content_hash = \"short\"").is_err());
    }

    #[test]
    fn epsilon_may_decay_with_age() {
        let epsilon = Epsilon {
            start: 0.05,
            end: 0.01,
            blocks: 100,
        };
        assert!((epsilon.at_age(0) - 0.05).abs() < 1e-12);
        assert!((epsilon.at_age(50) - 0.03).abs() < 1e-12);
        assert!((epsilon.at_age(1000) - 0.01).abs() < 1e-12);
    }
}
