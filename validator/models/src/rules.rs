//! What a competition asks of a model, applied to configuration, headers and tokenizer files.

use std::collections::BTreeMap;

use model::{
    Architecture, Compatibility, Dtype,
    config::{ConfigError, DecoderSpec},
    generation::{self, GENERATION_FILE},
    header::Header,
    inventory::Inventory,
    norms::NormLimits,
};
use serde_json::Value;

use super::{
    manifest::{Contents, Manifest, TOKENIZER_CONFIG},
    rejection::{Judged, Rejection},
    store::TensorDigest,
};
use subnet::{Competition, Parameters};

/// What a model has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The class it is loaded as, whatever its configuration calls itself.
    pub architecture: Architecture,
    /// Most parameters, tied tensors counted once.
    pub max_parameters: Option<u64>,
    /// Most bytes of the repository, over all its files.
    pub max_repository_bytes: u64,
    /// Limits on the norms of its projections.
    pub norms: NormLimits,
    /// What norms are rounded to: the dtype of the evaluation.
    pub dtype: Dtype,
    /// Whose rules hold: those of transformers 4.40, or today's.
    pub compatibility: Compatibility,
}

impl Rules {
    /// The rules of a competition; norms are rounded to `dtype`.
    pub fn of(
        parameters: &Parameters,
        competition: &Competition,
        dtype: Dtype,
    ) -> Result<Self, ConfigError> {
        let architecture = competition.architecture.parse()?;
        let max_parameters = Some(competition.max_parameters);
        Ok(Self {
            max_parameters,
            ..Self::without_competition(parameters, architecture, dtype)
        })
    }

    /// The rules that hold for any model of an architecture.
    pub fn without_competition(
        parameters: &Parameters,
        architecture: Architecture,
        dtype: Dtype,
    ) -> Self {
        Self {
            architecture,
            max_parameters: None,
            max_repository_bytes: parameters.max_repository_bytes,
            norms: parameters.norms,
            dtype,
            compatibility: parameters.compatibility,
        }
    }

    /// Judges the configuration: can the model be built, and is it small enough?
    pub(super) fn judge_config(
        &self,
        manifest: &Manifest,
        contents: &Contents,
    ) -> Judged<DecoderSpec> {
        let config = contents
            .get(&manifest.layout.config)
            .map_or(&[][..], |bytes| bytes);
        let spec = DecoderSpec::parse(config, self.architecture, self.compatibility)
            .map_err(Rejection::refused)?;
        self.judge_size(spec.parameters())?;
        if let Some(settings) = contents.get(GENERATION_FILE) {
            generation::admit(settings, self.compatibility).map_err(Rejection::refused)?;
        }
        Ok(spec)
    }

    /// Judges the weights by their headers: is every tensor there, of the right shape?
    pub(super) fn judge_headers(
        spec: &DecoderSpec,
        headers: &BTreeMap<String, Header>,
    ) -> Judged<Inventory> {
        Inventory::take(spec, headers).map_err(Rejection::refused)
    }

    /// Judges the size of a model again where its head turns out to be stored beside the embedding
    /// it is tied to, with other content: then both count. Returns the number of parameters.
    pub(super) fn judge_untied(
        &self,
        inventory: &Inventory,
        digests: &BTreeMap<String, TensorDigest>,
    ) -> Judged<u64> {
        let parameters = inventory.parameters_if_untied(|stored| digests.get(stored).copied());
        self.judge_size(parameters)?;
        Ok(parameters)
    }

    fn judge_size(&self, parameters: u64) -> Judged<()> {
        match self.max_parameters {
            Some(max) if parameters > max => Err(Rejection::refused(format!(
                "the model has {parameters} parameters, {max} are allowed"
            ))),
            _ => Ok(()),
        }
    }

    /// Judges whether the tokenizer's files suffice to load it.
    pub(super) fn judge_tokenizer(&self, manifest: &Manifest, contents: &Contents) -> Judged<()> {
        let class = &manifest.tokenizer;
        let here = |name: &str| manifest.files.contains_key(name);
        let own = class.vocabulary_files();
        let json = class.tokenizer_json();
        if let Some(bytes) = contents.get(json) {
            let tokenizer: Result<Value, _> = serde_json::from_slice(bytes);
            let problem = match tokenizer {
                Ok(value) if value.get("model").is_some() => None,
                Ok(_) => Some("it has no model".to_owned()),
                Err(error) => Some(shared::causes::one_line(&error)),
            };
            if let Some(problem) = problem {
                return Err(Rejection::refused(format!(
                    "{json} is not a tokenizer: {problem}"
                )));
            }
        }
        let from_json = class.is_fast() && here(json);
        // A slow class without files of its own (bytes, characters) needs none.
        let from_own = own.iter().all(|name| here(name)) && !(own.is_empty() && class.is_fast());
        if !from_json && !from_own {
            let name = class.name();
            return Err(Rejection::refused(format!(
                "the files of its tokenizer ({name}) are missing"
            )));
        }
        self.judge_prefix_space(manifest, contents)
    }

    /// transformers 4.40 rebuilds a Llama tokenizer that says `add_prefix_space` from its
    /// SentencePiece model, and fails if there is none.
    fn judge_prefix_space(&self, manifest: &Manifest, contents: &Contents) -> Judged<()> {
        let affected = self.compatibility == Compatibility::V4_40
            && manifest.tokenizer.name() == "LlamaTokenizerFast"
            && !manifest.files.contains_key("tokenizer.model");
        if !affected {
            return Ok(());
        }
        let config = contents
            .get(TOKENIZER_CONFIG)
            .map_or(&b"{}"[..], |bytes| bytes);
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        if config.get("add_prefix_space").is_none_or(Value::is_null) {
            return Ok(());
        }
        let reason = "its tokenizer sets add_prefix_space, which needs tokenizer.model";
        Err(Rejection::refused(reason))
    }
}
