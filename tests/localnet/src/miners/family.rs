//! The two model families of the subnet's competitions, each with a tiny shape and a tokenizer.

use serde_json::{Value, json};

/// A family of models, which is also a competition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Competition `l3`.
    Llama,
    /// Competition `s1`.
    StableLm,
}

/// The shape of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
}

impl Shape {
    /// Returns the width of a head.
    pub const fn head_width(&self) -> usize {
        self.hidden / self.heads
    }
}

impl Family {
    pub const ALL: [Self; 2] = [Self::Llama, Self::StableLm];

    /// Returns the id of its competition.
    pub const fn competition(self) -> &'static str {
        match self {
            Self::Llama => "l3",
            Self::StableLm => "s1",
        }
    }

    /// Returns the most parameters a model of the competition may have.
    pub const fn max_parameters(self) -> u64 {
        match self {
            Self::Llama => 8 << 30,
            Self::StableLm => 2 << 30,
        }
    }

    /// Returns the repository of the tokenizer which its competition prescribes.
    pub const fn tokenizer_repository(self) -> &'static str {
        match self {
            Self::Llama => "NousResearch/Meta-Llama-3-8B-Instruct",
            Self::StableLm => "stabilityai/stablelm-2-zephyr-1_6b",
        }
    }

    /// Returns a word for repository names.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::StableLm => "stablelm",
        }
    }

    /// Returns the shape of the tiny model that learns in seconds.
    pub const fn tiny(self, vocabulary: usize) -> Shape {
        let kv_heads = match self {
            Self::Llama => 2,
            Self::StableLm => 4,
        };
        Shape {
            hidden: 64,
            intermediate: 160,
            layers: 2,
            heads: 4,
            kv_heads,
            vocabulary,
        }
    }

    /// Returns the base of the rotary positions.
    pub const fn rope_theta(self) -> f64 {
        match self {
            Self::Llama => 500_000.0,
            Self::StableLm => 10_000.0,
        }
    }

    /// Returns how many dimensions of a head are rotated.
    pub const fn rotary_width(self, head_width: usize) -> usize {
        match self {
            Self::Llama => head_width,
            Self::StableLm => head_width / 4,
        }
    }

    /// Returns whether it has layer norms with bias and biases at q, k and v; the other has root
    /// mean square norms and no biases.
    pub const fn has_biases(self) -> bool {
        matches!(self, Self::StableLm)
    }

    /// Returns `config.json` as transformers 4.40 writes it.
    pub fn config(self, shape: &Shape, begin: u32, end: u32) -> Value {
        let common = json!({
            "attention_dropout": 0.0,
            "bos_token_id": begin,
            "eos_token_id": end,
            "hidden_act": "silu",
            "hidden_size": shape.hidden,
            "initializer_range": 0.02,
            "intermediate_size": shape.intermediate,
            "max_position_embeddings": 2048,
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "num_key_value_heads": shape.kv_heads,
            "rope_scaling": null,
            "rope_theta": self.rope_theta(),
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.40.0",
            "use_cache": true,
            "vocab_size": shape.vocabulary,
        });
        let own = match self {
            Self::Llama => json!({
                "architectures": ["LlamaForCausalLM"],
                "attention_bias": false,
                "model_type": "llama",
                "pretraining_tp": 1,
                "rms_norm_eps": 1e-5,
            }),
            Self::StableLm => json!({
                "architectures": ["StableLmForCausalLM"],
                "hidden_dropout": 0.0,
                "layer_norm_eps": 1e-5,
                "model_type": "stablelm",
                "partial_rotary_factor": 0.25,
                "qk_layernorm": false,
                "use_parallel_residual": false,
                "use_qkv_bias": true,
            }),
        };
        match (common, own) {
            (Value::Object(mut all), Value::Object(own)) => {
                all.extend(own);
                Value::Object(all)
            }
            (common, _) => common,
        }
    }

    /// Returns every tensor's name and dimensions.
    pub fn tensors(self, shape: &Shape) -> Vec<(String, Vec<usize>)> {
        let Shape {
            hidden,
            intermediate,
            vocabulary,
            ..
        } = *shape;
        let kv = shape.kv_heads * shape.head_width();
        let mut all = vec![(
            "model.embed_tokens.weight".to_owned(),
            vec![vocabulary, hidden],
        )];
        for layer in 0..shape.layers {
            let mut add = |name: &str, dimensions: &[usize]| {
                all.push((format!("model.layers.{layer}.{name}"), dimensions.to_vec()));
            };
            add("self_attn.q_proj.weight", &[hidden, hidden]);
            add("self_attn.k_proj.weight", &[kv, hidden]);
            add("self_attn.v_proj.weight", &[kv, hidden]);
            add("self_attn.o_proj.weight", &[hidden, hidden]);
            add("mlp.gate_proj.weight", &[intermediate, hidden]);
            add("mlp.up_proj.weight", &[intermediate, hidden]);
            add("mlp.down_proj.weight", &[hidden, intermediate]);
            add("input_layernorm.weight", &[hidden]);
            add("post_attention_layernorm.weight", &[hidden]);
            if self.has_biases() {
                add("self_attn.q_proj.bias", &[hidden]);
                add("self_attn.k_proj.bias", &[kv]);
                add("self_attn.v_proj.bias", &[kv]);
                add("input_layernorm.bias", &[hidden]);
                add("post_attention_layernorm.bias", &[hidden]);
            }
        }
        all.push(("model.norm.weight".to_owned(), vec![hidden]));
        if self.has_biases() {
            all.push(("model.norm.bias".to_owned(), vec![hidden]));
        }
        all.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
        all
    }
}
