//! The number types that models are computed in.

/// Evaluates an expression with `$number` as the type that a dtype names.
macro_rules! by_type {
    ($dtype:expr, $number:ident => $run:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $number = f32;
                $run
            }
            candle_core::DType::BF16 => {
                type $number = half::bf16;
                $run
            }
            candle_core::DType::F16 => {
                type $number = half::f16;
                $run
            }
            dtype => candle_core::bail!("nothing is computed in {dtype:?}"),
        }
    };
}
pub(crate) use by_type;
