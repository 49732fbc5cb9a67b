//! What the driver of a GPU needs at the moment: see [`crate::sandbox`].

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gpu {
    /// There is none, or it is not used.
    None,
    /// The driver starts: it names threads, listens on its socket, compiles kernels.
    Starting,
    /// The device is open, the kernels are loaded.
    Running,
}
