//! `dev_*`: what no real node answers: blocks on demand, neurons, and trouble.
//!
//! Arguments are positional. Accounts are SS58 addresses or `0x` and 64 hexadecimal digits, stake
//! is in rao, `netuid` and `uid` are numbers.
//!
//! | method | arguments | answer |
//! |---|---|---|
//! | `dev_produceBlocks` | count | the best block's number |
//! | `dev_setBlockMode` | `"onDemand"`, `"manual"` or milliseconds | |
//! | `dev_setTime` | milliseconds since 1970, of the next block | |
//! | `dev_setFinalityLag` | blocks | |
//! | `dev_setLag` | blocks by which this node is behind | |
//! | `dev_fork` | blocks to take back, with all that was in them | the best block's number |
//! | `dev_discardStatesBefore` | block number | |
//! | `dev_register` | netuid, `{hotkey, coldkey?, stake?, taoStake?, validatorPermit?}` | uid |
//! | `dev_deregister` | netuid, uid | |
//! | `dev_setStake` | netuid, hotkey, alpha, TAO | |
//! | `dev_setPermit` | netuid, uid, bool | |
//! | `dev_setHyperparameter` | netuid, name (`weights_rate_limit`...), number | |
//! | `dev_upgrade` | `{specVersion?, newtypes?, unknownExtension?}` | |
//! | `dev_setSafeMode` | bool | |
//! | `dev_pauseBeacon` | bool | |
//! | `dev_beaconPublicKey` | | hexadecimal, 96 bytes |
//! | `dev_stall` | list of methods; none is all | |
//! | `dev_cut` | milliseconds to refuse connections | |
//! | `dev_refuseHttp` | status, count | |
//! | `dev_failCalls` | `{method?, code, message, count}` | |
//! | `dev_answerCalls` | method, result, count | |
//! | `dev_failSubmissions` | `Custom` code, count | |
//! | `dev_clearFaults` | | |
//! | `dev_requests` | whether to reset | `{method: count}` |

use std::{sync::Arc, time::Duration};

use jsonrpsee::{
    RpcModule,
    core::RegisterMethodError,
    types::{ErrorCode, ErrorObjectOwned},
};
use serde::Deserialize;
use sp_core::crypto::Ss58Codec;

use super::{Answer, hex, internal, method};
use crate::chain::{
    BlockMode, ChainError, Hyperparameter, NeuronConfig, Stall, Upgrade, changes,
    node::Node,
    runtime::{AccountId, Runtime, newtype::NetUid, subtensor::Pallet as Subtensor},
    setup::{change_in, deregister},
};

/// How long an answer has to leave before its connection is cut.
const ANSWER_TIME: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(untagged)]
enum Mode {
    Named(String),
    Milliseconds(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NeuronArgument {
    hotkey: String,
    coldkey: Option<String>,
    #[serde(default)]
    stake: u64,
    #[serde(default)]
    tao_stake: u64,
    #[serde(default)]
    validator_permit: bool,
}

impl NeuronArgument {
    fn read(&self) -> Answer<NeuronConfig> {
        let hotkey = account(&self.hotkey)?;
        let coldkey = self.coldkey.as_deref().map_or(Ok(hotkey), account)?;
        Ok(NeuronConfig {
            hotkey,
            coldkey,
            stake: self.stake,
            tao_stake: self.tao_stake,
            validator_permit: self.validator_permit,
        })
    }
}

fn account(text: &str) -> Answer<[u8; 32]> {
    let key = match text.strip_prefix("0x") {
        Some(digits) => hex::decode(digits)
            .ok()
            .and_then(|bytes| bytes.try_into().ok()),
        None => AccountId::from_ss58check(text).ok().map(Into::into),
    };
    key.ok_or_else(|| invalid(format!("`{text}` is not an account")))
}

fn invalid(text: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(ErrorCode::InvalidParams.code(), text, None::<()>)
}

impl From<ChainError> for ErrorObjectOwned {
    fn from(error: ChainError) -> Self {
        internal(error)
    }
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    blocks(module)?;
    subnets(module)?;
    faults(module)
}

fn blocks(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_async_method("dev_produceBlocks", |params, node, _| async move {
        let count: u32 = params.one()?;
        for _ in 0..count {
            node.produce(Vec::new()).map_err(internal)?;
            tokio::task::yield_now().await;
        }
        Ok::<_, ErrorObjectOwned>(node.ledger().best_number())
    })?;
    method(module, "dev_setBlockMode", |node, arguments| {
        let mode = match arguments.next()? {
            Mode::Milliseconds(time) => BlockMode::Every(Duration::from_millis(time)),
            Mode::Named(name) if name == "onDemand" => BlockMode::OnDemand,
            Mode::Named(name) if name == "manual" => BlockMode::Manual,
            Mode::Named(name) => return Err(invalid(format!("`{name}` is not a block mode"))),
        };
        node.mode.send_replace(mode);
        Ok(())
    })?;
    method(module, "dev_setTime", |node, arguments| {
        let time = arguments.next()?;
        node.ledger().set_next_time(time);
        Ok(())
    })?;
    method(module, "dev_setFinalityLag", |node, arguments| {
        node.set_finality_lag(arguments.next()?);
        Ok(())
    })?;
    method(module, "dev_setLag", |node, arguments| {
        node.set_lag(arguments.next()?);
        Ok(())
    })?;
    method(module, "dev_fork", |node, arguments| {
        node.fork(arguments.next()?).map_err(internal)?;
        Ok(node.ledger().best_number())
    })?;
    method(module, "dev_discardStatesBefore", |node, arguments| {
        let number = arguments.next()?;
        node.ledger().oldest_state = number;
        Ok(())
    })?;
    method(module, "dev_upgrade", |node, arguments| {
        let upgrade: Option<Upgrade> = arguments.optional()?;
        change_in(node, changes::upgrade(upgrade.unwrap_or_default()))?;
        Ok(())
    })?;
    method(module, "dev_setSafeMode", |node, arguments| {
        change_in(node, changes::safe_mode(arguments.next()?))?;
        Ok(())
    })?;
    method(module, "dev_pauseBeacon", |node, arguments| {
        let paused = arguments.next()?;
        node.ledger().beacon_paused = paused;
        Ok(())
    })?;
    method(module, "dev_beaconPublicKey", |node, _| {
        Ok(hex(node.ledger().beacon_public_key()))
    })
}

fn subnets(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    method(module, "dev_register", |node, arguments| {
        let netuid = NetUid(arguments.next()?);
        let neuron = arguments.next::<NeuronArgument>()?.read()?;
        let register = move || Subtensor::<Runtime>::register(netuid, &neuron);
        Ok(change_in(node, Box::new(register))?)
    })?;
    method(module, "dev_deregister", |node, arguments| {
        let (netuid, uid) = (arguments.next()?, arguments.next()?);
        change_in(node, Box::new(move || deregister(netuid, uid)))?;
        Ok(())
    })?;
    method(module, "dev_setStake", |node, arguments| {
        let netuid = NetUid(arguments.next()?);
        let hotkey = AccountId::new(account(&arguments.next::<String>()?)?);
        let (alpha, tao) = (arguments.next()?, arguments.next()?);
        let set = move || {
            Subtensor::<Runtime>::set_stake(netuid, &hotkey, alpha, tao);
            Ok(0)
        };
        change_in(node, Box::new(set))?;
        Ok(())
    })?;
    method(module, "dev_setPermit", |node, arguments| {
        let netuid = NetUid(arguments.next()?);
        let (uid, permit) = (arguments.next()?, arguments.next()?);
        let set = move || {
            Subtensor::<Runtime>::set_permit(netuid, uid, permit);
            Ok(0)
        };
        change_in(node, Box::new(set))?;
        Ok(())
    })?;
    method(module, "dev_setHyperparameter", |node, arguments| {
        let netuid = NetUid(arguments.next()?);
        let name: Hyperparameter = arguments.next()?;
        let value = arguments.next()?;
        let set = move || Subtensor::<Runtime>::set_hyperparameter(netuid, name, value).map(|()| 0);
        change_in(node, Box::new(set))?;
        Ok(())
    })
}

fn faults(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    method(module, "dev_stall", |node, arguments| {
        node.faults.stall(match arguments.optional()? {
            Some(methods) => Stall::Methods(methods),
            None => Stall::Everything,
        });
        Ok(())
    })?;
    module.register_async_method("dev_cut", |params, node, _| async move {
        let refuse_for = Duration::from_millis(params.one()?);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            tokio::time::sleep(ANSWER_TIME).await;
            node.faults.cut(refuse_for);
        });
        tasks.detach_all();
        Ok::<_, ErrorObjectOwned>(())
    })?;
    method(module, "dev_refuseHttp", |node, arguments| {
        node.faults
            .refuse_http(arguments.next()?, arguments.next()?);
        Ok(())
    })?;
    method(module, "dev_failCalls", |node, arguments| {
        node.faults.fail_calls(arguments.next()?);
        Ok(())
    })?;
    method(module, "dev_answerCalls", |node, arguments| {
        let method: String = arguments.next()?;
        node.faults
            .answer_calls(&method, arguments.next()?, arguments.next()?);
        Ok(())
    })?;
    method(module, "dev_failSubmissions", |node, arguments| {
        node.faults
            .fail_submissions(arguments.next()?, arguments.next()?);
        Ok(())
    })?;
    method(module, "dev_clearFaults", |node, _| {
        node.faults.clear();
        Ok(())
    })?;
    method(module, "dev_requests", |node, arguments| {
        let requests = node.faults.requests();
        if arguments.optional()?.unwrap_or(false) {
            node.faults.reset_requests();
        }
        Ok(requests)
    })
}
