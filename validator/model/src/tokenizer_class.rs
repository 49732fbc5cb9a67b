//! Tokenizer classes: which one a model directory means, and which files the Python validator
//! fetches (and so hashes) for it.

mod current;
mod versions;

use serde_json::Value;
pub use versions::newest_accepted;

use crate::{config::Compatibility, path::is_safe_path};

/// The class of tokenizer a model directory asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerClass {
    name: &'static str,
    tokenizer_json: String,
    row: &'static ClassRow,
    compatibility: Compatibility,
    /// Today's releases distrust the class that is named if the tokenizer works on bytes.
    by_file_if_byte_level: bool,
}

/// Why no tokenizer can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerClassError {
    /// The named class does not exist in the accepted generation of transformers.
    #[error("tokenizer class {0:?} is not known")]
    UnknownClass(String),
    /// No class is named, and the model type implies none.
    #[error("no tokenizer class is named, and model type {0:?} implies none")]
    UnknownModelType(String),
    /// A field has the wrong type.
    #[error("{field} of {file} is malformed")]
    Malformed {
        /// The file, such as `tokenizer_config.json`.
        file: &'static str,
        field: &'static str,
    },
    /// A versioned file name holds no version.
    #[error("{0:?} is not a version")]
    BadVersion(String),
    /// A file's name leads out of the model's folder.
    #[error("file name {0:?} is not allowed")]
    BadName(String),
}

/// In which order the common files are asked for, after the class's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyOrder {
    Fast,
    Slow,
}
use KeyOrder::{Fast, Slow};

type ClassRow = (KeyOrder, &'static [&'static str], &'static str);

/// Largest file of a tokenizer that is read; the largest in use take about 35 MB as JSON.
pub const MAX_VOCABULARY_BYTES: u64 = 64 << 20;

const TOKENIZER_JSON: &str = "tokenizer.json";
const CONFIG_JSON: &str = "config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Where today's releases look for templates besides the default one.
pub const MORE_TEMPLATES: &str = "additional_chat_templates";

const LAST: [&str; 2] = ["added_tokens.json", "special_tokens_map.json"];

/// Order of the common files, files of the class's own, and the classes that ask for them.
static CLASSES: [ClassRow; 33] = [
    (
        Fast,
        &[],
        "BloomTokenizerFast CohereTokenizerFast CpmTokenizerFast PreTrainedTokenizerFast",
    ),
    (
        Fast,
        &["sentencepiece.bpe.model"],
        "BarthezTokenizerFast CamembertTokenizerFast LayoutXLMTokenizerFast \
         MBart50TokenizerFast MBartTokenizerFast NllbTokenizerFast PLBartTokenizer \
         SeamlessM4TTokenizerFast XGLMTokenizerFast XLMRobertaTokenizerFast",
    ),
    (Fast, &["sentencepiece.model"], "RemBertTokenizerFast"),
    (
        Fast,
        &["spiece.model"],
        "AlbertTokenizerFast BigBirdTokenizerFast FNetTokenizerFast MT5TokenizerFast \
         PegasusTokenizerFast ReformerTokenizerFast T5TokenizerFast UdopTokenizer \
         UdopTokenizerFast XLNetTokenizerFast",
    ),
    (Fast, &["spm.model"], "DebertaV2TokenizerFast"),
    (
        Fast,
        &["tokenizer.model"],
        "CodeLlamaTokenizerFast GemmaTokenizerFast LlamaTokenizerFast",
    ),
    (
        Fast,
        &["vocab.json", "merges.txt"],
        "BartTokenizerFast CLIPTokenizerFast CodeGenTokenizerFast DebertaTokenizerFast \
         GPT2TokenizerFast GPTNeoXTokenizerFast HerbertTokenizerFast LEDTokenizerFast \
         LayoutLMv3TokenizerFast LongformerTokenizerFast MvpTokenizerFast \
         OpenAIGPTTokenizerFast Qwen2TokenizerFast RobertaTokenizerFast",
    ),
    (
        Fast,
        &["vocab.txt"],
        "BertTokenizerFast DPRQuestionEncoderTokenizer DPRQuestionEncoderTokenizerFast \
         DistilBertTokenizerFast ElectraTokenizerFast FunnelTokenizerFast \
         LayoutLMTokenizerFast LayoutLMv2TokenizerFast LxmertTokenizerFast MPNetTokenizerFast \
         MobileBertTokenizerFast RealmTokenizerFast RetriBertTokenizerFast \
         RoFormerTokenizerFast SqueezeBertTokenizerFast",
    ),
    (
        Slow,
        &[],
        "ByT5Tokenizer CanineTokenizer PerceiverTokenizer",
    ),
    (
        Slow,
        &["artists.json", "lyrics.json", "genres.json"],
        "JukeboxTokenizer",
    ),
    (
        Slow,
        &["prophetnet.tokenizer"],
        "ProphetNetTokenizer XLMProphetNetTokenizer",
    ),
    (
        Slow,
        &["sentencepiece.bpe.model"],
        "BarthezTokenizer CamembertTokenizer LayoutXLMTokenizer MBart50Tokenizer \
         MBartTokenizer NllbTokenizer SeamlessM4TTokenizer XGLMTokenizer XLMRobertaTokenizer",
    ),
    (
        Slow,
        &["sentencepiece.bpe.model", "dict.txt"],
        "BartphoTokenizer",
    ),
    (
        Slow,
        &["sentencepiece.bpe.model", "entity_vocab.json"],
        "MLukeTokenizer",
    ),
    (Slow, &["sentencepiece.model"], "RemBertTokenizer"),
    (
        Slow,
        &[
            "source.spm",
            "target.spm",
            "vocab.json",
            "target_vocab.json",
        ],
        "MarianTokenizer",
    ),
    (
        Slow,
        &["spiece.model"],
        "AlbertTokenizer BertGenerationTokenizer BigBirdTokenizer CpmTokenizer FNetTokenizer \
         GPTSw3Tokenizer MT5Tokenizer PegasusTokenizer ReformerTokenizer SiglipTokenizer \
         T5Tokenizer XLNetTokenizer",
    ),
    (Slow, &["spm.model"], "DebertaV2Tokenizer"),
    (Slow, &["spm_char.model"], "SpeechT5Tokenizer"),
    (
        Slow,
        &["tokenizer.model"],
        "CodeLlamaTokenizer GemmaTokenizer LlamaTokenizer",
    ),
    (
        Slow,
        &["vocab-src.json", "vocab-tgt.json", "merges.txt"],
        "FSMTTokenizer",
    ),
    (
        Slow,
        &["vocab.json"],
        "MgpstrTokenizer VitsTokenizer Wav2Vec2CTCTokenizer Wav2Vec2PhonemeCTCTokenizer",
    ),
    (
        Slow,
        &["vocab.json", "merges.txt"],
        "BartTokenizer BioGptTokenizer BlenderbotSmallTokenizer BlenderbotTokenizer \
         BlenderbotTokenizerFast CLIPTokenizer CTRLTokenizer ClvpTokenizer CodeGenTokenizer \
         DebertaTokenizer FlaubertTokenizer GPT2Tokenizer HerbertTokenizer LEDTokenizer \
         LayoutLMv3Tokenizer LongformerTokenizer MvpTokenizer OpenAIGPTTokenizer \
         Qwen2Tokenizer RobertaTokenizer Speech2Text2Tokenizer TapexTokenizer XLMTokenizer",
    ),
    (
        Slow,
        &["vocab.json", "merges.txt", "entity_vocab.json"],
        "LukeTokenizer",
    ),
    (
        Slow,
        &["vocab.json", "sentencepiece.bpe.model"],
        "M2M100Tokenizer Speech2TextTokenizer",
    ),
    (
        Slow,
        &["vocab.pkl", "vocab.bin", "vocab.txt"],
        "TransfoXLTokenizer",
    ),
    (
        Slow,
        &["vocab.txt"],
        "BertTokenizer ConvBertTokenizer ConvBertTokenizerFast CpmAntTokenizer \
         DistilBertTokenizer ElectraTokenizer EsmTokenizer FunnelTokenizer LayoutLMTokenizer \
         LayoutLMv2Tokenizer LxmertTokenizer MPNetTokenizer MobileBertTokenizer \
         RealmTokenizer RetriBertTokenizer RoFormerTokenizer SplinterTokenizer \
         SplinterTokenizerFast SqueezeBertTokenizer TapasTokenizer",
    ),
    (
        Slow,
        &["vocab.txt", "bpe.codes"],
        "BertweetTokenizer PhobertTokenizer",
    ),
    (
        Slow,
        &["vocab.txt", "emoji.json"],
        "GPTNeoXJapaneseTokenizer GPTSanJapaneseTokenizer",
    ),
    (
        Slow,
        &["vocab.txt", "sentencepiece.bpe.model"],
        "ErnieMTokenizer",
    ),
    (
        Slow,
        &["vocab.txt", "spiece.model"],
        "BertJapaneseTokenizer",
    ),
    (
        Slow,
        &["vocab.txt", "word_shape.json", "word_pronunciation.json"],
        "RoCBertTokenizer",
    ),
    (
        Fast,
        &["vocab.json", "merges.txt", "normalizer.json"],
        "WhisperTokenizer WhisperTokenizerFast",
    ),
];

impl TokenizerClass {
    /// Finds the class as transformers' `AutoTokenizer` does: the one named in
    /// `tokenizer_config.json`, else in `config.json`, else the one of the model type. The fast
    /// twin of a class is taken if there is one.
    pub fn resolve(
        tokenizer_config: Option<&Value>,
        config: &Value,
        compatibility: Compatibility,
    ) -> Result<Self, TokenizerClassError> {
        let of_tokenizer = class_field(tokenizer_config, TOKENIZER_CONFIG)?;
        let of_model = class_field(Some(config), CONFIG_JSON)?;
        let model_type = config["model_type"].as_str();
        let (name, row) = match (compatibility, of_tokenizer.or(of_model)) {
            (Compatibility::Current, _) => {
                let class = current::class(of_tokenizer, of_model, model_type);
                known_class(class.unwrap_or(current::BY_FILE))?
            }
            (Compatibility::V4_40, Some(name)) => known_class(name)?,
            (Compatibility::V4_40, None) => known_class(class_of_model_type(config)?)?,
        };
        Ok(Self {
            name,
            tokenizer_json: tokenizer_json_name(tokenizer_config)?,
            row,
            compatibility,
            by_file_if_byte_level: !model_type.is_some_and(current::is_misnamed),
        })
    }

    /// Returns the class to use once it is known whether `tokenizer.json` works on bytes.
    pub fn name_for(&self, byte_level: bool) -> &'static str {
        let distrusted = self.compatibility == Compatibility::Current
            && self.name == "LlamaTokenizerFast"
            && self.by_file_if_byte_level
            && byte_level;
        if distrusted {
            current::BY_FILE
        } else {
            self.name
        }
    }

    /// Returns the class's name, such as `LlamaTokenizerFast`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether the class is one that the `tokenizer.json` fully describes.
    pub fn is_fast(&self) -> bool {
        self.name.ends_with("Fast")
    }

    /// Returns the name of the file that takes the place of `tokenizer.json`; an older directory
    /// may offer several by version.
    pub fn tokenizer_json(&self) -> &str {
        &self.tokenizer_json
    }

    /// Returns the class's own vocabulary files.
    pub fn vocabulary_files(&self) -> &'static [&'static str] {
        self.row.1
    }

    /// Returns whether a file is one of the templates that today's releases read besides.
    pub fn reads_template(&self, path: &str) -> bool {
        let name = path.strip_prefix(MORE_TEMPLATES);
        let name = name.and_then(|name| name.strip_prefix('/')?.strip_suffix(".jinja"));
        self.compatibility == Compatibility::Current && name.is_some_and(|name| !name.contains('/'))
    }

    /// Returns every file asked for after `tokenizer_config.json`, in order. All are optional as
    /// files.
    pub fn files(&self) -> Vec<&str> {
        let json = self.tokenizer_json.as_str();
        let own = self.row.1.iter().copied();
        if self.compatibility == Compatibility::Current {
            let template = ["chat_template.jinja"];
            return own.chain([json]).chain(LAST).chain(template).collect();
        }
        // Whisper's vocabulary files list tokenizer.json themselves.
        if self.name.starts_with("Whisper") {
            let own = own.flat_map(|name| match name {
                "vocab.json" => vec![name, json],
                _ => vec![name],
            });
            return own.chain(LAST).collect();
        }
        match self.row.0 {
            Fast => own.chain([json]).chain(LAST).collect(),
            Slow => own.chain(LAST).chain([json]).collect(),
        }
    }
}

fn class_field<'a>(
    json: Option<&'a Value>,
    file: &'static str,
) -> Result<Option<&'a str>, TokenizerClassError> {
    match json.map(|json| &json["tokenizer_class"]) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(_) => Err(TokenizerClassError::Malformed {
            file,
            field: "tokenizer_class",
        }),
    }
}

fn known_class(name: &str) -> Result<(&'static str, &'static ClassRow), TokenizerClassError> {
    let fast = (!name.ends_with("Fast")).then(|| format!("{name}Fast"));
    fast.as_deref()
        .and_then(find)
        .or_else(|| find(name))
        .ok_or_else(|| TokenizerClassError::UnknownClass(name.to_owned()))
}

fn find(name: &str) -> Option<(&'static str, &'static ClassRow)> {
    CLASSES.iter().find_map(|row| {
        row.2
            .split_ascii_whitespace()
            .find(|known| *known == name)
            .map(|known| (known, row))
    })
}

fn class_of_model_type(config: &Value) -> Result<&'static str, TokenizerClassError> {
    let Some(model_type) = config["model_type"].as_str() else {
        return Err(TokenizerClassError::Malformed {
            file: CONFIG_JSON,
            field: "model_type",
        });
    };
    match model_type {
        "llama" | "mistral" | "mixtral" => Ok("LlamaTokenizerFast"),
        "gemma" => Ok("GemmaTokenizerFast"),
        "stablelm" | "gpt_neox" => Ok("GPTNeoXTokenizerFast"),
        "qwen2" => Ok("Qwen2TokenizerFast"),
        "gpt2" => Ok("GPT2TokenizerFast"),
        "phi" => Ok("CodeGenTokenizerFast"),
        other => Err(TokenizerClassError::UnknownModelType(other.to_owned())),
    }
}

fn tokenizer_json_name(config: Option<&Value>) -> Result<String, TokenizerClassError> {
    let Some(names) = config.and_then(|config| config.get("fast_tokenizer_files")) else {
        return Ok(TOKENIZER_JSON.to_owned());
    };
    let names = names
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(names) = names else {
        let field = "fast_tokenizer_files";
        return Err(TokenizerClassError::Malformed {
            file: TOKENIZER_CONFIG,
            field,
        });
    };
    let name = newest_accepted("tokenizer", names)?.unwrap_or(TOKENIZER_JSON);
    if is_safe_path(name) {
        Ok(name.to_owned())
    } else {
        Err(TokenizerClassError::BadName(name.to_owned()))
    }
}
