//! How each release of transformers makes a model of a checkpoint: one rule for each, as data.
//!
//! Headers are all it takes to apply a rule, so what is accepted before a download is what loads
//! after it. 4.40: `PreTrainedModel._load_pretrained_model`. 5: `core_model_loading` and
//! `PreTrainedModel.tie_weights`.

use crate::config::Compatibility;

/// Name of the embedding, as decoders have it.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// Name of the head.
pub(crate) const HEAD: &str = "lm_head.weight";

/// What the names of a decoder without its head begin with.
const BASE: &str = "model";

/// How a release loads a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct LoadingRule {
    /// What `__metadata__` may call the format of a file; `None` if it may be anything or missing.
    pub formats: Option<&'static [&'static str]>,
    /// Words in the names of old checkpoints and what they are read as; the last that fits counts.
    pub renames: &'static [(&'static str, &'static str)],
    /// What becomes of names without `model.`.
    pub prefix: Prefix,
    /// What becomes of a model with one tensor for embedding and head, where files have two.
    pub tied: Tied,
    /// Whether the shape of a tensor counts that another of the same name replaces.
    pub checks_replaced: bool,
}

/// What becomes of names without `model.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// All names have it, or none: then the model has no head of its own.
    AllOrNone,
    /// Each name is taken with or without it, also where it is there once too often.
    EachName,
}

/// Which tensor a tied model takes where files have both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tied {
    /// The one that is loaded last fills both places: that of the later file, or the head's.
    LastLoaded,
    /// Each fills its own place, as if the model were not tied.
    Both,
}

static V4_40: LoadingRule = LoadingRule {
    formats: Some(&["pt", "mlx"]),
    renames: &[("gamma", "weight"), ("beta", "bias")],
    prefix: Prefix::AllOrNone,
    tied: Tied::LastLoaded,
    checks_replaced: true,
};

static CURRENT: LoadingRule = LoadingRule {
    formats: None,
    renames: &[],
    prefix: Prefix::EachName,
    tied: Tied::Both,
    checks_replaced: false,
};

impl Compatibility {
    /// Returns how the release loads a checkpoint.
    pub const fn loading(self) -> &'static LoadingRule {
        match self {
            Self::V4_40 => &V4_40,
            Self::Current => &CURRENT,
        }
    }
}

impl LoadingRule {
    /// Returns what a stored name is read as, if it is an old one.
    pub(crate) fn renamed(&self, name: &str) -> Option<String> {
        let (old, new) = self.renames.iter().rfind(|(old, _)| name.contains(old))?;
        Some(name.replace(old, new))
    }

    /// Returns whether names of a checkpoint say that it has a head, or could have one.
    pub(crate) fn has_prefix<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        self.prefix == Prefix::EachName || names.any(|name| name.starts_with(BASE))
    }

    /// Returns the decoder's name of a stored tensor; `known` says which there are.
    pub(crate) fn decoder_name(
        &self,
        name: &str,
        has_prefix: bool,
        known: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let name = self.renamed(name).unwrap_or_else(|| name.to_owned());
        if self.prefix == Prefix::EachName {
            // `re.sub("^model.", "", name)`, where the dot stands for any character.
            let mut rest = name.strip_prefix(BASE).unwrap_or_default().chars();
            let shorter = rest.next().map(|_| rest.as_str());
            if let Some(shorter) = shorter.filter(|shorter| known(shorter)) {
                return Some(shorter.to_owned());
            }
        }
        let longer = format!("{BASE}.{name}");
        match self.prefix {
            Prefix::EachName if known(&longer) => Some(longer),
            Prefix::AllOrNone if !has_prefix => Some(longer).filter(|name| known(name)),
            _ => Some(name).filter(|name| known(name)),
        }
    }
}
