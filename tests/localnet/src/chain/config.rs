//! What a local chain starts with: its port, its blocks, its subnets and their neurons.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One TAO (or one alpha) in rao, the unit of every balance and stake here.
pub const TAO: u64 = 1_000_000_000;

/// A chain to start with [`super::Chain::start`].
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// TCP port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// `Some`: a block each time this much wall clock has passed. `None`: a block for each
    /// extrinsic and for each [`super::Chain::produce_blocks`]. A block is always 12 s of chain
    /// time after the one before.
    pub block_time: Option<Duration>,
    /// Chain time of block 0, milliseconds since 1970; `None` takes the wall clock.
    pub genesis_time: Option<u64>,
    /// Part of block 0 unless it is 0: chains of one configuration are told apart by it, and their
    /// validators' locks too.
    pub chain_id: u64,
    /// Accounts which begin with 1,000 TAO. Setting weights or a commitment needs no balance.
    pub endowed: Vec<[u8; 32]>,
    /// The subnets that exist in block 0.
    pub subnets: Vec<SubnetConfig>,
    /// Stake in rao below which a hotkey may not set weights.
    pub stake_threshold: u64,
    /// Secret of the local drand beacon, reduced to a BLS12-381 scalar. Its public key, which
    /// clients must encrypt to, is [`super::Chain::beacon_public_key`].
    pub beacon_secret: [u8; 32],
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            port: 0,
            block_time: None,
            genesis_time: None,
            chain_id: 0,
            endowed: Vec::new(),
            subnets: Vec::new(),
            stake_threshold: 0,
            beacon_secret: *b"localnet beacon, known to anyone",
        }
    }
}

/// One subnet in block 0.
#[derive(Debug, Clone)]
pub struct SubnetConfig {
    /// Its number, from 1.
    pub netuid: u16,
    /// Blocks between two epochs; 0 means that none ever runs.
    pub tempo: u16,
    /// Hotkey of its owner, exempt from the stake threshold and the permit.
    pub owner_hotkey: Option<[u8; 32]>,
    pub hyperparameters: Hyperparameters,
    /// Its neurons; their place in the list is their uid.
    pub neurons: Vec<NeuronConfig>,
}

impl Default for SubnetConfig {
    fn default() -> Self {
        Self {
            netuid: 1,
            tempo: 360,
            owner_hotkey: None,
            hyperparameters: Hyperparameters::default(),
            neurons: Vec::new(),
        }
    }
}

/// The hyperparameters of a subnet, as [`Hyperparameter`] names them.
#[derive(Debug, Clone)]
pub struct Hyperparameters {
    /// Lowest `version_key` accepted with weights; 0 accepts any.
    pub weights_version: u64,
    /// Blocks between two weights of one neuron.
    pub weights_rate_limit: u64,
    /// Fewest weights in one vector.
    pub min_allowed_weights: u16,
    /// Largest share of one weight, out of 65535; 65535 is not a limit.
    pub max_weights_limit: u16,
    /// Blocks during which a new neuron is not replaced.
    pub immunity_period: u16,
    /// Blocks without weights after which a validator no longer counts.
    pub activity_cutoff: u16,
    pub max_uids: u16,
    /// Places for validators: the epoch gives permits to this many of the largest stakes.
    pub max_validators: u16,
    /// Stake-weighted majority that a weight needs, out of 65535.
    pub kappa: u16,
    /// Whether weights must be committed and revealed later.
    pub commit_reveal_weights_enabled: bool,
    /// Epochs between commit and reveal.
    pub commit_reveal_period: u64,
    /// Mechanisms of the subnet.
    pub mechanism_count: u8,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            weights_version: 0,
            weights_rate_limit: 100,
            min_allowed_weights: 1,
            max_weights_limit: u16::MAX,
            immunity_period: 4096,
            activity_cutoff: 5000,
            max_uids: 256,
            max_validators: 64,
            kappa: 32_767,
            commit_reveal_weights_enabled: false,
            commit_reveal_period: 1,
            mechanism_count: 1,
        }
    }
}

/// A hyperparameter by its name, to change one on a running chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hyperparameter {
    Tempo,
    WeightsVersion,
    WeightsRateLimit,
    MinAllowedWeights,
    MaxWeightsLimit,
    ImmunityPeriod,
    ActivityCutoff,
    MaxUids,
    MaxValidators,
    Kappa,
    CommitRevealWeightsEnabled,
    CommitRevealPeriod,
    MechanismCount,
    /// Of all subnets: stake in rao needed for weights.
    StakeThreshold,
    /// Of all subnets: the only accepted version of timelocked commits.
    CommitRevealVersion,
    /// Thousandths of the tempo after which a validator no longer counts; 0 goes by blocks.
    ActivityCutoffFactor,
    /// 1 lets the weights of the largest validator alone count.
    NullConsensus,
    /// The block at which the subnet's next epoch must run; 0 takes the order back.
    PendingEpochAt,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NeuronConfig {
    /// Its sr25519 public key.
    pub hotkey: [u8; 32],
    /// Public key of its owner.
    pub coldkey: [u8; 32],
    /// Alpha staked to it on this subnet, in rao.
    #[serde(default)]
    pub stake: u64,
    /// TAO staked to it on the root network, in rao.
    #[serde(default)]
    pub tao_stake: u64,
    /// Whether it may set weights before the first epoch gives the permits anew.
    #[serde(default)]
    pub validator_permit: bool,
}

impl NeuronConfig {
    /// A miner: no stake, no permit. It is its own owner.
    pub fn miner(hotkey: impl Into<[u8; 32]>) -> Self {
        let hotkey = hotkey.into();
        Self {
            hotkey,
            coldkey: hotkey,
            stake: 0,
            tao_stake: 0,
            validator_permit: false,
        }
    }

    /// A validator with a permit and this much alpha, in rao. It is its own owner.
    pub fn validator(hotkey: impl Into<[u8; 32]>, stake: u64) -> Self {
        Self {
            stake,
            validator_permit: true,
            ..Self::miner(hotkey)
        }
    }

    #[must_use]
    pub fn owned_by(self, coldkey: impl Into<[u8; 32]>) -> Self {
        Self {
            coldkey: coldkey.into(),
            ..self
        }
    }
}
