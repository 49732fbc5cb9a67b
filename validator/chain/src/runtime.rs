//! One version of the chain's runtime: its metadata, what it has, what it asks of a transaction.

use std::sync::Arc;

use codec::Decode as _;
use scale_info::{PortableRegistry, TypeDef};
use subxt::{
    client::{OfflineClient, OfflineClientAtBlock},
    config::{
        Config, DefaultTransactionExtensions,
        substrate::{BlakeTwo256, H256, SubstrateHeader},
    },
    metadata::{ArcMetadata, Metadata},
    utils::{AccountId32, MultiAddress, MultiSignature},
};

use super::{
    decode::{self, Value},
    error::ChainError,
};
use subnet::Genesis;

/// Transaction extensions whose data we know how to fill in.
const KNOWN_EXTENSIONS: [&str; 8] = [
    "CheckNonZeroSender",
    "CheckSpecVersion",
    "CheckTxVersion",
    "CheckGenesis",
    "CheckMortality",
    "CheckNonce",
    "ChargeTransactionPayment",
    "CheckMetadataHash",
];

/// One version of the runtime, with its metadata.
#[derive(Debug)]
pub struct Runtime {
    spec_version: u32,
    transaction_version: u32,
    genesis: H256,
    metadata: ArcMetadata,
}

/// How subxt is to talk to Subtensor: the types of one runtime.
#[derive(Debug, Clone)]
pub(super) struct Subtensor(Arc<Runtime>);

impl Config for Subtensor {
    type AccountId = AccountId32;
    type Address = MultiAddress<AccountId32, ()>;
    type Signature = MultiSignature;
    type Header = SubstrateHeader<H256>;
    type TransactionExtensions = DefaultTransactionExtensions<Self>;
    type AssetId = u32;
    type Hasher = BlakeTwo256;

    fn genesis_hash(&self) -> Option<H256> {
        Some(self.0.genesis)
    }

    fn spec_and_transaction_version_for_block_number(&self, _block: u64) -> Option<(u32, u32)> {
        Some((self.0.spec_version, self.0.transaction_version))
    }

    fn metadata_for_spec_version(&self, _spec_version: u32) -> Option<ArcMetadata> {
        Some(Arc::clone(&self.0.metadata))
    }
}

/// A storage item's key and how its value is read.
#[derive(Debug)]
pub(super) struct StorageKey {
    pub(super) bytes: Vec<u8>,
    value_type: u32,
    default: Option<Vec<u8>>,
    item: String,
}

impl Runtime {
    /// Makes a runtime of the bytes that `Metadata_metadata_at_version` gives.
    pub fn new(
        spec_version: u32,
        transaction_version: u32,
        genesis: Genesis,
        metadata: &[u8],
    ) -> Result<Self, ChainError> {
        let metadata = Metadata::decode_from(metadata).map_err(|error| ChainError::Garbled {
            method: "Metadata_metadata_at_version",
            problem: error.to_string(),
        })?;
        let genesis = H256(genesis.0);
        Ok(Self {
            spec_version,
            transaction_version,
            genesis,
            metadata: Arc::new(metadata),
        })
    }

    /// Returns the version that rises with each upgrade.
    pub const fn spec_version(&self) -> u32 {
        self.spec_version
    }

    pub(super) const fn genesis(&self) -> Genesis {
        Genesis(self.genesis.0)
    }

    pub(super) const fn transaction_version(&self) -> u32 {
        self.transaction_version
    }

    pub(super) fn types(&self) -> &PortableRegistry {
        self.metadata.types()
    }

    /// Returns subxt's view of this runtime, which encodes calls and keys by its metadata.
    pub(super) fn encoder(self: &Arc<Self>, block: u64) -> OfflineClientAtBlock<Subtensor> {
        OfflineClient::new_with_config(Subtensor(Arc::clone(self)))
            .at_block(block)
            .expect("version and metadata are given for every block")
    }

    /// Returns whether there is such a storage item.
    pub fn has_storage(&self, pallet: &str, item: &str) -> bool {
        self.metadata
            .pallet_by_name(pallet)
            .and_then(|pallet| pallet.storage())
            .is_some_and(|storage| storage.entry_by_name(item).is_some())
    }

    /// Returns whether there is such a runtime API.
    pub fn has_api(&self, api: &str, method: &str) -> bool {
        self.metadata
            .runtime_api_trait_by_name(api)
            .is_some_and(|api| api.method_by_name(method).is_some())
    }

    /// Returns whether there is such a call.
    pub fn has_call(&self, pallet: &str, call: &str) -> bool {
        self.metadata
            .pallet_by_name(pallet)
            .is_some_and(|pallet| pallet.call_variant_by_name(call).is_some())
    }

    /// Returns the length of a block in milliseconds: 12 s unless the runtime says otherwise.
    pub fn block_millis(&self) -> u64 {
        self.metadata
            .pallet_by_name("Aura")
            .and_then(|pallet| pallet.constant_by_name("SlotDuration"))
            .and_then(|constant| u64::decode(&mut constant.value()).ok())
            .filter(|millis| (1..=600_000).contains(millis))
            .unwrap_or(12_000)
    }

    /// Returns the key of a storage item.
    pub(super) fn storage_key(
        self: &Arc<Self>,
        pallet: &str,
        item: &str,
        keys: Vec<subxt::dynamic::Value>,
    ) -> Result<StorageKey, ChainError> {
        let name = format!("{pallet}.{item}");
        let entry = self
            .metadata
            .pallet_by_name(pallet)
            .and_then(|pallet| pallet.storage())
            .and_then(|storage| storage.entry_by_name(item))
            .ok_or_else(|| self.missing(format!("storage item {name}")))?;
        let address = subxt::dynamic::storage::<Vec<subxt::dynamic::Value>, subxt::dynamic::Value>(
            pallet, item,
        );
        let bytes = self
            .encoder(0)
            .storage()
            .entry(address)
            .and_then(|entry| entry.fetch_key(keys))
            .map_err(|error| self.encode_error(name.clone(), &error))?;
        let default = entry.default_value().map(<[u8]>::to_vec);
        Ok(StorageKey {
            bytes,
            value_type: entry.value_ty(),
            default,
            item: name,
        })
    }

    /// Decodes what is stored under a key, or its default; `None` where neither exists.
    pub(super) fn storage_value(
        &self,
        key: &StorageKey,
        stored: Option<&[u8]>,
    ) -> Result<Option<Value>, ChainError> {
        let Some(bytes) = stored.or(key.default.as_deref()) else {
            return Ok(None);
        };
        self.decoded(key.item.clone(), bytes, key.value_type)
            .map(Some)
    }

    /// Encodes the arguments of a runtime API; returns its method name and the bytes.
    pub(super) fn api_call(
        self: &Arc<Self>,
        api: &str,
        method: &str,
        arguments: Vec<subxt::dynamic::Value>,
    ) -> Result<(String, Vec<u8>), ChainError> {
        let name = format!("{api}.{method}");
        if !self.has_api(api, method) {
            return Err(self.missing(format!("runtime API {name}")));
        }
        let payload = subxt::dynamic::runtime_api_call::<_, ()>(api, method, arguments);
        let bytes = self
            .encoder(0)
            .runtime_apis()
            .encode_args(payload)
            .map_err(|error| self.encode_error(name, &error))?;
        Ok((format!("{api}_{method}"), bytes))
    }

    /// Decodes the answer of a runtime API.
    pub fn api_answer(&self, api: &str, method: &str, bytes: &[u8]) -> Result<Value, ChainError> {
        let item = format!("{api}.{method}");
        let output = self
            .api_output(api, method)
            .ok_or_else(|| self.missing(format!("runtime API {item}")))?;
        self.decoded(item, bytes, output)
    }

    /// Returns the type of a runtime API's answer.
    pub(super) fn api_output(&self, api: &str, method: &str) -> Option<u32> {
        let api = self.metadata.runtime_api_trait_by_name(api)?;
        Some(api.method_by_name(method)?.output_ty())
    }

    /// Decodes bytes of a type by its id.
    fn decoded(&self, item: String, bytes: &[u8], id: u32) -> Result<Value, ChainError> {
        decode::decode(bytes, id, self.types()).map_err(|source| self.decode_error(item, source))
    }

    pub(super) fn decode_error(
        &self,
        item: impl Into<String>,
        source: decode::DecodeError,
    ) -> ChainError {
        ChainError::Decode {
            item: item.into(),
            spec_version: self.spec_version,
            source,
        }
    }

    pub(super) fn encode_error(&self, item: String, error: &dyn std::error::Error) -> ChainError {
        let problem = shared::causes::one_line(error);
        ChainError::Encode {
            item,
            spec_version: self.spec_version,
            problem,
        }
    }

    pub(super) fn missing(&self, item: String) -> ChainError {
        ChainError::Missing {
            item,
            spec_version: self.spec_version,
        }
    }

    /// Returns the name of an error of a pallet.
    pub(super) fn module_error(&self, pallet: u8, error: u8) -> Option<String> {
        let pallet = self.metadata.pallet_by_error_index(pallet)?;
        Some(pallet.error_variant_by_index(error)?.name.clone())
    }

    /// Refuses a runtime whose transactions carry data we know nothing of: signing blindly would
    /// at best be a bad signature.
    pub fn check_extensions(&self) -> Result<(), ChainError> {
        let unknown = self
            .metadata
            .extrinsic()
            .transaction_extensions_to_use_for_encoding()
            .filter(|extension| !KNOWN_EXTENSIONS.contains(&extension.identifier()))
            .find(|extension| {
                !self.is_empty(extension.extra_ty(), 16)
                    || !self.is_empty(extension.additional_ty(), 16)
            });
        match unknown {
            None => Ok(()),
            Some(extension) => Err(ChainError::Encode {
                item: format!("transaction extension {}", extension.identifier()),
                spec_version: self.spec_version,
                problem: "it carries data this version knows nothing of; update the validator"
                    .into(),
            }),
        }
    }

    /// Returns whether a type has no bytes.
    fn is_empty(&self, id: u32, depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else {
            return false;
        };
        match self.types().resolve(id).map(|ty| &ty.type_def) {
            Some(TypeDef::Composite(composite)) => composite
                .fields
                .iter()
                .all(|field| self.is_empty(field.ty.id, depth)),
            Some(TypeDef::Tuple(tuple)) => tuple
                .fields
                .iter()
                .all(|field| self.is_empty(field.id, depth)),
            Some(TypeDef::Array(array)) => {
                array.len == 0 || self.is_empty(array.type_param.id, depth)
            }
            _ => false,
        }
    }
}
