use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(architecture: Architecture, config: &Value) -> Result<DecoderSpec, ConfigError> {
    DecoderSpec::parse(
        config.to_string().as_bytes(),
        architecture,
        Compatibility::V4_40,
    )
}

fn parse_current(architecture: Architecture, config: &Value) -> Result<DecoderSpec, ConfigError> {
    DecoderSpec::parse(
        config.to_string().as_bytes(),
        architecture,
        Compatibility::Current,
    )
}

#[test]
fn silence_means_the_defaults_of_the_class() {
    let parameters = |architecture| parse(architecture, &json!({})).unwrap().parameters();
    assert_eq!(parameters(Architecture::Llama), 6_738_415_616);
    assert_eq!(parameters(Architecture::Mistral), 7_241_732_096);
    assert_eq!(parameters(Architecture::StableLm), 2_795_443_200);
    assert_eq!(parameters(Architecture::Gemma), 8_537_680_896);
}

#[test]
fn llama_3_8b_has_its_known_size() {
    let config = json!({
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "rope_theta": 500_000.0, "max_position_embeddings": 8192,
    });
    let spec = parse(Architecture::Llama, &config).unwrap();
    assert_eq!(spec.parameters(), 8_030_261_248);
    assert_eq!((spec.head_dim, spec.rotary.dims), (128, 128));
}

#[test]
fn what_is_too_new_for_4_40_is_accepted_only_by_the_current_release() {
    let llama3 = json!({ "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192 } });
    let error = parse(Architecture::Llama, &llama3).unwrap_err();
    assert_says(
        &error,
        "rope_scaling must be exactly {type, factor}, found 5 fields of type \"llama3\"",
    );
    assert_eq!(
        parse_current(Architecture::Llama, &llama3)
            .unwrap()
            .rotary
            .scaling,
        RotaryScaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0
        }
    );
    let parameters = json!({ "rope_parameters": { "rope_theta": 5e5, "rope_type": "default" } });
    let theta = |spec: DecoderSpec| format!("{}", spec.rotary.theta);
    assert_eq!(
        theta(parse_current(Architecture::Llama, &parameters).unwrap()),
        "500000"
    );
    // 4.40 does not know the field and goes on with its default.
    assert_eq!(
        theta(parse(Architecture::Llama, &parameters).unwrap()),
        "10000"
    );
}

fn assert_says(error: &ConfigError, text: &str) {
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn rope_scaling_of_4_40_is_as_strict_as_python() {
    let scaled = |scaling: Value| {
        parse(Architecture::Llama, &json!({ "rope_scaling": scaling })).map(|s| s.rotary.scaling)
    };
    assert_eq!(
        scaled(json!({"type": "linear", "factor": 2.0})),
        Ok(RotaryScaling::Linear { factor: 2.0 })
    );
    assert_eq!(
        scaled(json!({"type": "dynamic", "factor": 4.5})),
        Ok(RotaryScaling::Dynamic { factor: 4.5 })
    );
    assert_eq!(scaled(Value::Null), Ok(RotaryScaling::None));
    for refused in [
        json!({"type": "linear", "factor": 2}),
        json!({"type": "linear", "factor": 1.0}),
        json!({"type": "yarn", "factor": 2.0}),
        json!({"type": "linear", "factor": 2.0, "more": 1}),
        json!({"factor": 2.0}),
        json!({}),
        json!([]),
        json!(false),
    ] {
        scaled(refused).unwrap_err();
    }
    // Mistral, Gemma and Qwen2 of 4.40 do not look at it.
    let spec = parse(
        Architecture::Mistral,
        &json!({"rope_scaling": {"type": "yarn"}}),
    )
    .unwrap();
    assert_eq!(spec.rotary.scaling, RotaryScaling::None);
}

#[test]
fn gemma_means_the_approximation_unless_it_says_so_in_the_new_field() {
    let activation = |config: Value| parse(Architecture::Gemma, &config).unwrap().activation;
    assert_eq!(
        activation(json!({"hidden_act": "gelu"})),
        Activation::GeluTanh
    );
    assert_eq!(
        activation(json!({"hidden_activation": "gelu"})),
        Activation::Gelu
    );
    let both = json!({"hidden_act": "relu", "hidden_activation": null});
    assert_eq!(activation(both), Activation::GeluTanh);
}

#[test]
fn windows_count_as_their_release_does() {
    let mistral = json!({"sliding_window": 16});
    let left = |spec: DecoderSpec| spec.window.map(|window| window.left);
    assert_eq!(
        left(parse(Architecture::Mistral, &mistral).unwrap()),
        Some(16)
    );
    assert_eq!(
        left(parse_current(Architecture::Mistral, &mistral).unwrap()),
        Some(15)
    );
    let off = json!({"sliding_window": null});
    assert_eq!(left(parse(Architecture::Mistral, &off).unwrap()), None);
    let qwen = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 3,
        "num_hidden_layers": 5});
    let spec = parse_current(Architecture::Qwen2, &qwen).unwrap();
    assert_eq!((spec.window_of(2), spec.window_of(3)), (None, Some(7)));
    assert_eq!(
        parse(Architecture::Qwen2, &qwen).unwrap().window_of(0),
        Some(8)
    );
}

#[test]
fn refusals_name_the_field() {
    let refusal = |config: Value| parse(Architecture::Llama, &config).unwrap_err().to_string();
    for (config, text) in [
        (
            json!({"num_attention_heads": 1 << 20}),
            "num_attention_heads is 1048576",
        ),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "num_hidden_layers is 1000000000",
        ),
        (json!({"hidden_size": 0}), "hidden_size is 0"),
        (json!({"hidden_size": -4096}), "hidden_size is -4096"),
        (json!({"vocab_size": "many"}), "vocab_size is \"many\""),
        (json!({"hidden_size": null}), "hidden_size is null"),
        (json!({"num_attention_heads": 30}), "not divisible by 30"),
        (json!({"num_key_value_heads": 5}), "can't share 5"),
        (json!({"hidden_act": "swiglu"}), "hidden_act is \"swiglu\""),
        (json!({"rms_norm_eps": "tiny"}), "rms_norm_eps is \"tiny\""),
        (json!({"rope_theta": 0.0}), "rope_theta is 0.0"),
        (
            json!({"pretraining_tp": 2, "vocab_size": 97}),
            "pretraining_tp is 2",
        ),
        (json!({"quantization_config": {"bits": 4}}), "quantized"),
        // Products of these with a pack's tokens are beyond 32 bits.
        (json!({"intermediate_size": 1 << 18}), "intermediate_size"),
        (json!({"hidden_size": 1 << 18}), "hidden_size"),
        (json!([1]), "not a JSON object"),
    ] {
        let error = refusal(config);
        assert!(error.contains(text), "{error:?} does not name {text:?}");
    }
}

#[test]
fn the_largest_sizes_can_be_counted() {
    let config = json!({"hidden_size": 1 << 17, "intermediate_size": 1 << 17,
        "vocab_size": 1 << 22, "num_hidden_layers": 1 << 10, "num_attention_heads": 1 << 10,
        "num_key_value_heads": 1 << 10, "head_dim": 1 << 7, "qk_layernorm": true});
    for architecture in Architecture::ALL {
        let spec = parse_current(architecture, &config).unwrap();
        assert!(spec.parameters() > 1 << 45, "{architecture}");
    }
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes: Vec<u8>) {
        for architecture in Architecture::ALL {
            let _ = DecoderSpec::parse(&bytes, architecture, Compatibility::Current);
        }
    }

    #[test]
    fn whatever_is_accepted_can_be_counted(
        numbers in proptest::collection::vec(any::<i64>(), 6),
        small in proptest::collection::vec(0_u16..70, 6),
        pick in any::<[bool; 6]>(),
        factor in any::<f64>(),
    ) {
        let names = ["hidden_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "sliding_window"];
        let mut config = json!({"partial_rotary_factor": factor, "qk_layernorm": pick[0]});
        for (i, name) in names.into_iter().enumerate() {
            config[name] = if pick[i] { json!(small[i]) } else { json!(numbers[i]) };
        }
        for architecture in Architecture::ALL {
            for compatibility in [Compatibility::V4_40, Compatibility::Current] {
                let text = config.to_string();
                if let Ok(spec) = DecoderSpec::parse(text.as_bytes(), architecture, compatibility) {
                    prop_assert!(spec.parameters() > 0);
                    prop_assert!(spec.rotary.dims <= spec.head_dim);
                    prop_assert_eq!(spec.heads % spec.kv_heads, 0);
                }
            }
        }
    }
}
