//! Chat samples: where they come from, which are drawn.
