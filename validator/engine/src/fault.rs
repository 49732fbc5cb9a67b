//! Turning the tensor library's errors into faults.

use model::{Fault, MachineFaultKind};

/// What the driver calls work that broke off on the device. A model may have provoked it, so the
/// device is tested before either is blamed.
const BROKEN_OFF: [&str; 8] = [
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
];

/// Says whose fault an error of the tensor library is.
///
/// Shapes and dtypes are checked before any tensor is made, so what is left is the device: lost,
/// out of memory, or its work broken off.
pub(crate) fn of_tensors(error: &candle_core::Error) -> Fault {
    let text = error.to_string();
    // A build with back-traces appends one to the text.
    let line = text.lines().next().unwrap_or_default();
    Fault::machine(kind(line), line)
}

fn kind(line: &str) -> MachineFaultKind {
    let says = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if says(&["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED"]) {
        MachineFaultKind::OutOfMemory
    } else if says(&BROKEN_OFF) {
        MachineFaultKind::Crashed
    } else if says(&["DriverError", "CublasError", "CurandError"]) {
        MachineFaultKind::Device
    } else {
        MachineFaultKind::Bug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_device_are_told_apart() {
        for (line, expected) in [
            (
                r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#,
                MachineFaultKind::OutOfMemory,
            ),
            (
                "CublasError(CUBLAS_STATUS_ALLOC_FAILED)",
                MachineFaultKind::OutOfMemory,
            ),
            (
                r#"DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered")"#,
                MachineFaultKind::Crashed,
            ),
            (
                r#"DriverError(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure")"#,
                MachineFaultKind::Crashed,
            ),
            (
                r#"DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered")"#,
                MachineFaultKind::Device,
            ),
            (
                "CublasError(CUBLAS_STATUS_NOT_INITIALIZED)",
                MachineFaultKind::Device,
            ),
            (
                "CurandError(CURAND_STATUS_INITIALIZATION_FAILED)",
                MachineFaultKind::Device,
            ),
            (
                "shape mismatch in matmul, lhs: [2, 3], rhs: [4, 5]",
                MachineFaultKind::Bug,
            ),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn only_the_first_line_is_kept() {
        let error = candle_core::Error::Msg("missing kernel\n   0: a back-trace".into());
        assert_eq!(
            of_tensors(&error),
            Fault::machine(MachineFaultKind::Bug, "missing kernel")
        );
    }
}
