//! Sliding windows: which layers have one, and how far it reaches.

use super::{Architecture, Compatibility, ConfigError, Window, fields::Fields};

/// Reads the window of a model.
pub(super) fn window(
    fields: &Fields,
    architecture: Architecture,
    compatibility: Compatibility,
    layers: usize,
) -> Result<Option<Window>, ConfigError> {
    let current = compatibility == Compatibility::Current;
    let null = fields.is_written_null("sliding_window");
    let layers = match architecture {
        Architecture::Llama | Architecture::StableLm | Architecture::Gemma => return Ok(None),
        Architecture::Phi3 if !fields.is_written("sliding_window") => return Ok(None),
        Architecture::Mistral | Architecture::Phi3 => vec![true; layers],
        // transformers 4.40 masks all layers of Qwen2 by `sliding_window`, even when
        // `use_sliding_window` is off.
        Architecture::Qwen2 if !current => vec![true; layers],
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let on = fields.flag("use_sliding_window", false)? && !null;
            let full = fields.size_or_zero("max_window_layers", 28, usize::MAX)?;
            let layers = layer_types(fields, layers, |layer| on && layer >= full)?;
            if !on && layers.contains(&true) {
                return Err(fields.wrong("layer_types", "full_attention without a window"));
            }
            layers
        }
        Architecture::Gemma2 => {
            if null {
                return Err(fields.wrong("sliding_window", "a whole number"));
            }
            layer_types(fields, layers, |layer| layer.is_multiple_of(2))?
        }
    };
    if null || !layers.contains(&true) {
        return Ok(None);
    }
    let size = fields.size("sliding_window", 4096, usize::MAX)?;
    // In 4.40 a token sees `size` tokens before itself; today it sees `size` with itself.
    Ok(Some(Window {
        left: if current { size - 1 } else { size },
        layers,
    }))
}

/// Returns which layers have a window, by `layer_types` or by default.
fn layer_types(
    fields: &Fields,
    layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ConfigError> {
    if fields.is_null("layer_types") {
        return Ok((0..layers).map(default).collect());
    }
    let kinds = fields.strings("layer_types")?;
    let windows: Option<Vec<bool>> = kinds
        .iter()
        .map(|kind| match kind.as_str() {
            "sliding_attention" => Some(true),
            "full_attention" => Some(false),
            _ => None,
        })
        .collect();
    windows
        .filter(|windows| windows.len() == layers)
        .ok_or_else(|| {
            let expected = "full_attention or sliding_attention for each layer";
            fields.wrong("layer_types", expected)
        })
}
