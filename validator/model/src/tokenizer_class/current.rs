//! Which class today's transformers loads a tokenizer with (`AutoTokenizer.from_pretrained` of 5).
//!
//! Most classes are no more than what `tokenizer.json` says. A few build the tokenizer anew from its
//! vocabulary, whatever the file says of the rest; the model's type may overrule the class that is named.

/// What stands for all that `tokenizer.json` fully describes.
pub(super) const BY_FILE: &str = "PreTrainedTokenizerFast";

/// Model types whose files name the wrong class (`MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`).
const MISNAMED: &str = "arctic camembertv2-base chatlm cohere_asr ernie4_5 ernie4_5_moe fuyu \
    h2ovl_chat hyperclovax hyperclovax_vision_v2 hyperclovax_vlm internlm2 internlm3 iquestcoder \
    jamba llava llava_next minicpm3 minicpmv minimax_m2 modernbert modernbert-decoder molmo molmo2 \
    nemotron nvfp4 opencua openvla paddleocr_vl phi3 phi3_v phimoe qwen2 qwen3_5 qwen3_5_moe \
    qwen3_5_moe_text qwen4_exp siglip2 smolvlm step3_vl vipllava";

/// The classes of model types of decoders (`TOKENIZER_MAPPING_NAMES`), without optional packages.
const OF_MODEL_TYPES: [(&str, &str); 10] = [
    (
        "GemmaTokenizer",
        "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma t5gemma shieldgemma2",
    ),
    (
        "Qwen2Tokenizer",
        "qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_asr qwen3_moe \
         qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe colqwen2 internvl ovis2",
    ),
    (
        "GPT2Tokenizer",
        "gpt2 gpt_neo gptj opt phi starcoder2 codegen dbrx jais2 blip-2 emu3",
    ),
    (
        "GPTNeoXTokenizer",
        "gpt_neox falcon_mamba mamba mamba2 mpt olmo olmoe rwkv xlstm",
    ),
    ("CohereTokenizer", "cohere cohere2 aya_vision"),
    ("CodeLlamaTokenizer", "code_llama"),
    ("LlamaTokenizer", "idefics idefics2"),
    (
        "Qwen3_5Tokenizer",
        "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp",
    ),
    ("T5Tokenizer", "mt5 t5 switch_transformers musicgen"),
    (
        "TokenizersBackend",
        "mistral mistral3 mixtral ministral ministral3 pixtral voxtral stablelm glm glm4 glm4_moe \
         granite granitemoe olmo2 olmo3 persimmon gpt_bigcode nystromformer",
    ),
];

/// Classes that exist besides those above, and work otherwise than by `tokenizer.json`.
const OTHERS: &str = "AlbertTokenizer BarthezTokenizer BartphoTokenizer BartTokenizer \
    BertGenerationTokenizer BertJapaneseTokenizer BertTokenizer BertweetTokenizer BigBirdTokenizer \
    BioGptTokenizer BlenderbotSmallTokenizer BlenderbotTokenizer ByT5Tokenizer CLIPTokenizer \
    CTRLTokenizer CamembertTokenizer CanineTokenizer ClvpTokenizer CodeGenTokenizer \
    ConvBertTokenizer CpmAntTokenizer CpmTokenizer DPRQuestionEncoderTokenizer DebertaTokenizer \
    DebertaV2Tokenizer DiaTokenizer DistilBertTokenizer ElectraTokenizer EsmTokenizer \
    EsmcTokenizer FNetTokenizer FSMTTokenizer FlaubertTokenizer FunnelTokenizer \
    GPTNeoXJapaneseTokenizer GPTSw3Tokenizer HerbertTokenizer LEDTokenizer LasrTokenizer \
    LayoutLMTokenizer LayoutLMv2Tokenizer LayoutLMv3Tokenizer LayoutXLMTokenizer \
    LongformerTokenizer LukeTokenizer LxmertTokenizer M2M100Tokenizer MBart50Tokenizer \
    MBartTokenizer MLukeTokenizer MPNetTokenizer MarianTokenizer MarkupLMTokenizer \
    MgpstrTokenizer MobileBertTokenizer MvpTokenizer MyT5Tokenizer NllbTokenizer NougatTokenizer \
    OpenAIGPTTokenizer PLBartTokenizer ParakeetTokenizer PegasusTokenizer PerceiverTokenizer \
    PhobertTokenizer ProphetNetTokenizer RagTokenizer ReformerTokenizer RemBertTokenizer \
    RoCBertTokenizer RoFormerTokenizer RobertaTokenizer SeamlessM4TTokenizer Siglip2Tokenizer \
    SiglipTokenizer Speech2TextTokenizer SpeechT5Tokenizer SplinterTokenizer SqueezeBertTokenizer \
    T5Tokenizer TapasTokenizer Tipsv2Tokenizer UdopTokenizer VideoPrismTokenizer VitsTokenizer \
    Wav2Vec2CTCTokenizer Wav2Vec2PhonemeCTCTokenizer WhisperTokenizer XGLMTokenizer \
    XLMRobertaTokenizer XLMTokenizer XLNetTokenizer";

fn lists(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == name)
}

/// Returns whether a model type's files are known to name the wrong class.
pub(super) fn is_misnamed(model_type: &str) -> bool {
    lists(MISNAMED, model_type)
}

fn of_model_type(model_type: &str) -> Option<&'static str> {
    let mut rows = OF_MODEL_TYPES.iter();
    rows.find(|(_, types)| lists(types, model_type))
        .map(|(class, _)| *class)
}

/// Returns the class of this name that exists, unless it is one of those described by the file.
fn own_class(name: &str) -> Option<&str> {
    let built = OF_MODEL_TYPES.iter().any(|(class, _)| *class == name);
    let own = (built && name != "TokenizersBackend") || lists(OTHERS, name);
    own.then_some(name)
}

/// Returns the class that loads the tokenizer, without `Fast`, or nothing if it is by the file.
pub(super) fn class<'a>(
    of_tokenizer: Option<&'a str>,
    of_model: Option<&'a str>,
    model_type: Option<&'a str>,
) -> Option<&'a str> {
    let plain = |name: &'a str| name.strip_suffix("Fast").unwrap_or(name);
    let registered = model_type.and_then(of_model_type);
    let Some(named) = of_tokenizer.or(of_model).map(plain) else {
        return registered.and_then(own_class);
    };
    match registered {
        Some(registered) if registered != named => {
            if registered == "TokenizersBackend" {
                return None;
            }
            own_class(if model_type.is_some_and(is_misnamed) {
                registered
            } else {
                named
            })
        }
        _ => own_class(named),
    }
}
