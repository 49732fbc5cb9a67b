//! What the validator and the eval-worker agree on: how a model directory is read and identified,
//! what is evaluated, and the protocol between the two. No threads, no network, no tensors.

pub mod config;
pub mod dtype;
pub mod fault;
pub mod generation;
pub mod hash;
pub mod header;
pub mod inventory;
pub mod layout;
pub mod loading;
pub mod norms;
pub mod path;
pub mod plan;
pub mod protocol;
pub mod python_json;
pub mod tokenizer_class;
pub mod tokens;

pub use config::{Architecture, Compatibility};
pub use dtype::{Attention, Dtype};
pub use fault::{Fault, MachineFault, MachineFaultKind, ModelFault, ModelFaultKind};
pub use hash::ContentHash;
pub use layout::Layout;
pub use plan::PackingPlan;
pub use tokens::{Conversation, Message, TokenizedSample};
