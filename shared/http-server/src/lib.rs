//! The one door for HTTP that others ask of us: what both programs serve, and what neither may forget.
//!
//! Whoever connects may be a stranger who reads nothing, sends nothing or sends too much. So connections are counted,
//! heads are small and have a deadline, bodies are not read, and a connection ends after its answer. An answer that
//! goes on (server-sent events) has a longer deadline and holds no more than its newest message.

mod connection;
pub mod metrics;

pub use connection::{Answer, Asked, Door, Handler, Messages, listen};
