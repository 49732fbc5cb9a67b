//! Turning the tensor library's errors into faults.

use model::{Fault, MachineFaultKind};

/// Says whose fault an error of the tensor library is.
///
/// Shapes and dtypes are checked before any tensor is made, so what is left is the device: lost,
/// or out of memory.
pub(crate) fn of_tensors(error: &candle_core::Error) -> Fault {
    let text = error.to_string();
    // A build with back-traces appends one to the text.
    let line = text.lines().next().unwrap_or_default();
    let kind = if line.contains("OUT_OF_MEMORY") || line.contains("out of memory") {
        MachineFaultKind::OutOfMemory
    } else if line.contains("DriverError") || line.contains("CUBLAS") {
        MachineFaultKind::Device
    } else {
        MachineFaultKind::Bug
    };
    Fault::machine(kind, line)
}
