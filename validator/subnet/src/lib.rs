//! Nouns and rules of the subnet: no I/O, no async.

pub mod commitment;
pub mod competition;
pub mod fault;
pub mod identity;
pub mod ids;
pub mod model_id;
pub mod parameters;
pub mod payload;
pub mod real;

pub use commitment::Commitment;
pub use competition::{Competition, CompetitionId, FixedTokenizer};
pub use fault::{Fault, FaultKind};
pub use identity::SubnetIdentity;
pub use ids::{BlockNumber, Genesis, Hotkey, Netuid, Uid};
pub use model_id::{ModelId, ModelIdError};
pub use parameters::Parameters;
pub use payload::CommitmentRules;
pub use real::Real;
