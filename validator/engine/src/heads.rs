//! The shape of the attention of a model.

/// Shape of the attention of a model.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub queries: usize,
    /// Key and value heads; divides `queries`.
    pub keys: usize,
    pub dim: usize,
}
