//! The runtime APIs, called by name through [`call`].

use sp_api::{decl_runtime_apis, impl_runtime_apis};
use sp_core::OpaqueMetadata;
use sp_inherents::{CheckInherentsResult, InherentData};
use sp_runtime::{
    AccountId32, ApplyExtrinsicResult, ExtrinsicInclusionMode,
    traits::{Block as BlockT, Get},
    transaction_validity::{TransactionSource, TransactionValidity},
};
use sp_version::RuntimeVersion;

use super::{
    Block, Executive, Extrinsic, Header, Runtime, RuntimeCall, System, TransactionPayment, Version,
    metadata,
    newtype::{MechId, NetUid},
    subtensor::{
        Pallet,
        metagraph::{Metagraph, SelectiveMetagraph},
        neurons::{NeuronInfo, NeuronInfoLite},
        parameters::{HyperparamEntry, SubnetHyperparams, SubnetHyperparamsV2},
    },
};

decl_runtime_apis! {
    /// Neurons with all their numbers.
    pub trait NeuronInfoRuntimeApi {
        fn get_neurons(netuid: NetUid) -> Vec<NeuronInfo>;
        fn get_neuron(netuid: NetUid, uid: u16) -> Option<NeuronInfo>;
        fn get_neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite>;
        fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite>;
    }

    pub trait SubnetInfoRuntimeApi {
        fn get_subnet_hyperparams(netuid: NetUid) -> Option<SubnetHyperparams>;
        fn get_subnet_hyperparams_v2(netuid: NetUid) -> Option<SubnetHyperparamsV2>;
        fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<HyperparamEntry>>;
        fn get_metagraph(netuid: NetUid) -> Option<Metagraph>;
        fn get_mechagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph>;
        fn get_selective_metagraph(
            netuid: NetUid,
            metagraph_indexes: Vec<u16>,
        ) -> Option<SelectiveMetagraph>;
        fn get_selective_mechagraph(
            netuid: NetUid,
            subid: MechId,
            metagraph_indexes: Vec<u16>,
        ) -> Option<SelectiveMetagraph>;
        fn get_next_epoch_start_block(netuid: NetUid) -> Option<u64>;
    }
}

impl_runtime_apis! {
    impl sp_api::Core<Block> for Runtime {
        fn version() -> RuntimeVersion {
            Version::get()
        }

        fn execute_block(block: <Block as BlockT>::LazyBlock) {
            Executive::execute_block(block);
        }

        fn initialize_block(header: &Header) -> ExtrinsicInclusionMode {
            Executive::initialize_block(header)
        }
    }

    impl sp_api::Metadata<Block> for Runtime {
        fn metadata() -> OpaqueMetadata {
            OpaqueMetadata::new(metadata::v14())
        }

        fn metadata_at_version(version: u32) -> Option<OpaqueMetadata> {
            metadata::at_version(version)
        }

        fn metadata_versions() -> Vec<u32> {
            metadata::VERSIONS.to_vec()
        }
    }

    impl sp_block_builder::BlockBuilder<Block> for Runtime {
        fn apply_extrinsic(extrinsic: Extrinsic) -> ApplyExtrinsicResult {
            Executive::apply_extrinsic(extrinsic)
        }

        fn finalize_block() -> Header {
            Executive::finalize_block()
        }

        fn inherent_extrinsics(data: InherentData) -> Vec<Extrinsic> {
            // The node makes the only one there is, the timestamp's, itself.
            drop(data);
            Vec::new()
        }

        fn check_inherents(
            block: <Block as BlockT>::LazyBlock,
            data: InherentData,
        ) -> CheckInherentsResult {
            // Every block here is our own.
            drop((block, data));
            CheckInherentsResult::new()
        }
    }

    impl sp_transaction_pool::runtime_api::TaggedTransactionQueue<Block> for Runtime {
        fn validate_transaction(
            source: TransactionSource,
            extrinsic: Extrinsic,
            block_hash: <Block as BlockT>::Hash,
        ) -> TransactionValidity {
            Executive::validate_transaction(source, extrinsic, block_hash)
        }
    }

    impl frame_system_rpc_runtime_api::AccountNonceApi<Block, AccountId32, u32> for Runtime {
        fn account_nonce(account: AccountId32) -> u32 {
            System::account_nonce(account)
        }
    }

    impl pallet_transaction_payment_rpc_runtime_api::TransactionPaymentApi<Block, u64> for Runtime {
        fn query_info(
            extrinsic: Extrinsic,
            length: u32,
        ) -> pallet_transaction_payment_rpc_runtime_api::RuntimeDispatchInfo<u64> {
            TransactionPayment::query_info(extrinsic, length)
        }

        fn query_fee_details(
            extrinsic: Extrinsic,
            length: u32,
        ) -> pallet_transaction_payment::FeeDetails<u64> {
            TransactionPayment::query_fee_details(extrinsic, length)
        }

        fn query_weight_to_fee(weight: frame_support::weights::Weight) -> u64 {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> u64 {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl pallet_transaction_payment_rpc_runtime_api::TransactionPaymentCallApi<Block, u64, RuntimeCall> for Runtime {
        fn query_call_info(
            call: RuntimeCall,
            length: u32,
        ) -> pallet_transaction_payment::RuntimeDispatchInfo<u64> {
            TransactionPayment::query_call_info(call, length)
        }

        fn query_call_fee_details(
            call: RuntimeCall,
            length: u32,
        ) -> pallet_transaction_payment::FeeDetails<u64> {
            TransactionPayment::query_call_fee_details(call, length)
        }

        fn query_weight_to_fee(weight: frame_support::weights::Weight) -> u64 {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> u64 {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl self::NeuronInfoRuntimeApi<Block> for Runtime {
        fn get_neurons(netuid: NetUid) -> Vec<NeuronInfo> {
            Pallet::<Runtime>::neurons(netuid)
        }

        fn get_neuron(netuid: NetUid, uid: u16) -> Option<NeuronInfo> {
            Pallet::<Runtime>::neuron(netuid, uid)
        }

        fn get_neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite> {
            Pallet::<Runtime>::neurons_lite(netuid)
        }

        fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite> {
            Pallet::<Runtime>::neuron_lite(netuid, uid)
        }
    }

    impl self::SubnetInfoRuntimeApi<Block> for Runtime {
        fn get_subnet_hyperparams(netuid: NetUid) -> Option<SubnetHyperparams> {
            Pallet::<Runtime>::hyperparameters(netuid)
        }

        fn get_subnet_hyperparams_v2(netuid: NetUid) -> Option<SubnetHyperparamsV2> {
            Pallet::<Runtime>::hyperparameters_v2(netuid)
        }

        fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<HyperparamEntry>> {
            Pallet::<Runtime>::hyperparameters_v3(netuid)
        }

        fn get_metagraph(netuid: NetUid) -> Option<Metagraph> {
            Pallet::<Runtime>::metagraph(netuid, MechId(0))
        }

        fn get_mechagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph> {
            Pallet::<Runtime>::metagraph(netuid, mecid)
        }

        fn get_selective_metagraph(
            netuid: NetUid,
            metagraph_indexes: Vec<u16>,
        ) -> Option<SelectiveMetagraph> {
            Pallet::<Runtime>::selective_metagraph(netuid, MechId(0), &metagraph_indexes)
        }

        fn get_selective_mechagraph(
            netuid: NetUid,
            subid: MechId,
            metagraph_indexes: Vec<u16>,
        ) -> Option<SelectiveMetagraph> {
            Pallet::<Runtime>::selective_metagraph(netuid, subid, &metagraph_indexes)
        }

        fn get_next_epoch_start_block(netuid: NetUid) -> Option<u64> {
            Pallet::<Runtime>::next_epoch_start(netuid)
        }
    }
}

/// Returns the list of runtime APIs with their versions.
pub fn supported() -> sp_version::ApisVec {
    RUNTIME_API_VERSIONS
}

/// Calls a runtime API by its name, `Trait_method`, with SCALE arguments; `None` if there is no
/// such API. Must run within a state. Panics on arguments that do not decode.
pub fn call(method: &str, arguments: &[u8]) -> Option<Vec<u8>> {
    api::dispatch(method, arguments)
}

/// Asks the runtime whether an extrinsic may enter the pool.
pub fn validate(extrinsic: Extrinsic, at: sp_core::H256) -> TransactionValidity {
    Executive::validate_transaction(TransactionSource::External, extrinsic, at)
}
