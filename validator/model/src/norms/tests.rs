use proptest::prelude::*;
use serde_json::json;

use super::*;

fn norms(values: &[(usize, Projection, f64)]) -> ProjectionNorms {
    ProjectionNorms(
        values
            .iter()
            .map(|&(layer, p, norm)| ((layer, p), norm))
            .collect(),
    )
}

#[test]
fn names_lead_to_projections() {
    let of = Projection::of_tensor;
    assert_eq!(
        of("model.layers.11.self_attn.q_proj.weight"),
        Some((11, Projection::Q))
    );
    assert_eq!(
        of("model.layers.0.mlp.down_proj.weight"),
        Some((0, Projection::Down))
    );
    for other in [
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.q_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.+1.self_attn.q_proj.weight",
        "model.layers.01.self_attn.q_proj.weight",
        "lm_head.weight",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn one_projection_everywhere_is_too_much_three_layers_of_four_are_not() {
    let limits = NormLimits::default();
    let large = |layers: usize| {
        let values: Vec<_> = (0..layers)
            .map(|layer| (layer, Projection::Up, 201.0))
            .collect();
        norms(&values).judge(4, Dtype::F32, &limits)
    };
    assert_eq!(large(4), NormVerdict::Soft { share: 1.0 / 6.0 });
    assert_eq!(large(3), NormVerdict::Accepted { share: 0.125 });
}

#[test]
fn rounding_decides_at_the_edge() {
    let limits = NormLimits::default();
    let edge = norms(&[(0, Projection::Q, 1001.5)]);
    assert!(!edge.judge(4, Dtype::F32, &limits).accepted());
    assert!(edge.judge(4, Dtype::Bf16, &limits).accepted());
    let soft = norms(&[(0, Projection::Q, 200.3)]);
    assert!(!soft.judge(1, Dtype::F16, &limits).accepted());
    assert!(soft.judge(1, Dtype::Bf16, &limits).accepted());
}

#[test]
fn nan_passes_and_infinity_does_not() {
    let judge =
        |norm| norms(&[(0, Projection::K, norm)]).judge(1, Dtype::Bf16, &NormLimits::default());
    assert!(judge(f64::NAN).accepted());
    assert!(!judge(f64::INFINITY).accepted());
    // Too large for an f16, so infinite once rounded.
    let norm = norms(&[(0, Projection::K, 70_000.0)]);
    assert!(!norm.judge(1, Dtype::F16, &NormLimits::default()).accepted());
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_norms(
        values in proptest::collection::vec(-2.0_f32..2.0, 24),
        cuts in proptest::collection::vec(0_usize..400, 0..8),
    ) {
        let header = json!({
            "__metadata__": {"format": "pt"},
            "model.layers.0.self_attn.q_proj.weight":
                {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
            "model.layers.0.mlp.gate_proj.weight":
                {"dtype": "F32", "shape": [4], "data_offsets": [32, 48]},
            "model.layers.0.mlp.up_proj.weight":
                {"dtype": "F32", "shape": [12], "data_offsets": [48, 96]},
        }).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let header = Header::parse(header.as_bytes(), file.len() as u64).unwrap();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % file.len()).collect();
        cuts.push(file.len());
        cuts.sort_unstable();
        let mut streamed = FileNorms::new(&header);
        let mut from = 0;
        for cut in cuts {
            streamed.update(&file[from..cut]);
            from = cut;
        }
        let norms = streamed.finish().unwrap();
        let found: Vec<_> = norms.rounded(Dtype::F32).collect();
        let norm = |values: &[f32]| -> f64 {
            values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
        };
        prop_assert_eq!(found.len(), 2);
        for ((_, _, found), expected) in found.iter().zip([norm(&values[..8]), norm(&values[12..])]) {
            prop_assert!((found - expected).abs() < 1e-6);
        }
    }
}
