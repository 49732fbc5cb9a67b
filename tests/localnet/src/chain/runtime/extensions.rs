//! What an extrinsic carries and must pass before it is put into a block.

use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::{dispatch::DispatchInfo, pallet_prelude::Weight};
use scale_info::{
    Type, TypeInfo,
    build::{FieldBuilder, Fields},
    form::MetaForm,
};
use sp_runtime::{
    AccountId32,
    traits::{
        AsSystemOriginSigner, DispatchInfoOf, DispatchOriginOf, Implication, PostDispatchInfoOf,
        TransactionExtension, TransactionExtensionMetadata, ValidateResult,
    },
    transaction_validity::{
        InvalidTransaction, TransactionLongevity, TransactionSource, TransactionValidityError,
        ValidTransaction,
    },
};

use super::{
    Runtime, RuntimeCall, drand,
    newtype::{MechId, NetUid},
    subtensor,
};

/// Present in the state when the metadata shows `DrandPriority` as carrying a number: a stand-in
/// for a transaction extension of the future that a client does not know.
pub const SHOW_UNKNOWN_EXTENSION: &[u8] = b":localnet:unknown-extension";

/// All extensions, in Bittensor's order and nesting.
pub type TransactionExtensions = (
    (
        frame_system::CheckNonZeroSender<Runtime>,
        frame_system::CheckSpecVersion<Runtime>,
        frame_system::CheckTxVersion<Runtime>,
        frame_system::CheckGenesis<Runtime>,
        frame_system::CheckMortality<Runtime>,
        CheckNonce,
        frame_system::CheckWeight<Runtime>,
    ),
    (
        ChargeTransactionPaymentWrapper,
        SudoTransactionExtension,
        CheckShieldedTxValidity,
        SubtensorTransactionExtension,
        DrandPriority,
    ),
    frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
);

/// Replay protection. Unlike FRAME's own it lets accounts without any balance make calls that
/// cost nothing.
#[derive(Encode, Decode, DecodeWithMemTracking, TypeInfo, Clone, Debug, PartialEq, Eq)]
pub struct CheckNonce(#[codec(compact)] pub u32);

impl TransactionExtension<RuntimeCall> for CheckNonce {
    const IDENTIFIER: &'static str = "CheckNonce";
    type Implicit = ();
    type Val = Option<AccountId32>;
    type Pre = ();

    fn weight(&self, _: &RuntimeCall) -> Weight {
        Weight::zero()
    }

    fn validate(
        &self,
        origin: DispatchOriginOf<RuntimeCall>,
        _call: &RuntimeCall,
        info: &DispatchInfoOf<RuntimeCall>,
        _length: usize,
        _implicit: (),
        _implication: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<Self::Val, RuntimeCall> {
        let Some(who) = origin.as_system_origin_signer().cloned() else {
            return Ok((ValidTransaction::default(), None, origin));
        };
        let account = frame_system::Account::<Runtime>::get(&who);
        let is_known = account.providers != 0 || account.sufficients != 0;
        if info.pays_fee == frame_support::dispatch::Pays::Yes && !is_known {
            return Err(InvalidTransaction::Payment.into());
        }
        if self.0 < account.nonce {
            return Err(InvalidTransaction::Stale.into());
        }
        let before = (account.nonce < self.0).then(|| (&who, self.0 - 1).encode());
        let validity = ValidTransaction {
            priority: 0,
            requires: before.into_iter().collect(),
            provides: vec![(&who, self.0).encode()],
            longevity: TransactionLongevity::MAX,
            propagate: true,
        };
        Ok((validity, Some(who), origin))
    }

    fn prepare(
        self,
        who: Self::Val,
        _origin: &DispatchOriginOf<RuntimeCall>,
        _call: &RuntimeCall,
        _info: &DispatchInfoOf<RuntimeCall>,
        _length: usize,
    ) -> Result<(), TransactionValidityError> {
        let Some(who) = who else { return Ok(()) };
        let nonce = frame_system::Account::<Runtime>::get(&who).nonce;
        if self.0 > nonce {
            return Err(InvalidTransaction::Future.into());
        }
        frame_system::Pallet::<Runtime>::inc_account_nonce(&who);
        Ok(())
    }

    fn post_dispatch_details(
        (): (),
        _info: &DispatchInfo,
        _post: &PostDispatchInfoOf<RuntimeCall>,
        _length: usize,
        _result: &sp_runtime::DispatchResult,
    ) -> Result<Weight, TransactionValidityError> {
        Ok(Weight::zero())
    }
}

type Charge = pallet_transaction_payment::ChargeTransactionPayment<Runtime>;

/// FRAME's charge for extrinsics, except that all have the same priority: tips buy none.
#[derive(Encode, Decode, DecodeWithMemTracking, TypeInfo, Clone, Debug, PartialEq, Eq)]
pub struct ChargeTransactionPaymentWrapper(pub Charge);

impl TransactionExtension<RuntimeCall> for ChargeTransactionPaymentWrapper {
    const IDENTIFIER: &'static str = "ChargeTransactionPayment";
    type Implicit = ();
    type Val = <Charge as TransactionExtension<RuntimeCall>>::Val;
    type Pre = <Charge as TransactionExtension<RuntimeCall>>::Pre;

    fn metadata() -> Vec<TransactionExtensionMetadata> {
        Charge::metadata()
    }

    fn weight(&self, call: &RuntimeCall) -> Weight {
        self.0.weight(call)
    }

    fn validate(
        &self,
        origin: DispatchOriginOf<RuntimeCall>,
        call: &RuntimeCall,
        info: &DispatchInfoOf<RuntimeCall>,
        length: usize,
        implicit: (),
        implication: &impl Implication,
        source: TransactionSource,
    ) -> ValidateResult<Self::Val, RuntimeCall> {
        let (validity, value, origin) =
            self.0
                .validate(origin, call, info, length, implicit, implication, source)?;
        Ok((
            ValidTransaction {
                priority: 1,
                ..validity
            },
            value,
            origin,
        ))
    }

    fn prepare(
        self,
        value: Self::Val,
        origin: &DispatchOriginOf<RuntimeCall>,
        call: &RuntimeCall,
        info: &DispatchInfoOf<RuntimeCall>,
        length: usize,
    ) -> Result<Self::Pre, TransactionValidityError> {
        self.0.prepare(value, origin, call, info, length)
    }

    fn post_dispatch_details(
        pre: Self::Pre,
        info: &DispatchInfo,
        post: &PostDispatchInfoOf<RuntimeCall>,
        length: usize,
        result: &sp_runtime::DispatchResult,
    ) -> Result<Weight, TransactionValidityError> {
        Charge::post_dispatch_details(pre, info, post, length, result)
    }
}

/// Declares an extension that carries nothing and only looks at the call.
macro_rules! extension {
    ($(#[$attribute:meta])* $name:ident, $check:expr) => {
        $(#[$attribute])*
        #[derive(
            Encode, Decode, DecodeWithMemTracking, Clone, Copy, Debug, Default, PartialEq, Eq,
        )]
        pub struct $name;

        impl TransactionExtension<RuntimeCall> for $name {
            const IDENTIFIER: &'static str = stringify!($name);
            type Implicit = ();
            type Val = ();
            type Pre = ();

            sp_runtime::impl_tx_ext_default!(RuntimeCall; weight prepare);

            fn validate(
                &self,
                origin: DispatchOriginOf<RuntimeCall>,
                call: &RuntimeCall,
                _info: &DispatchInfoOf<RuntimeCall>,
                _length: usize,
                _implicit: (),
                _implication: &impl Implication,
                _source: TransactionSource,
            ) -> ValidateResult<(), RuntimeCall> {
                let check: fn(Option<&AccountId32>, &RuntimeCall) -> Result<ValidTransaction, u8> =
                    $check;
                match check(origin.as_system_origin_signer(), call) {
                    Ok(validity) => Ok((validity, (), origin)),
                    Err(code) => Err(InvalidTransaction::Custom(code).into()),
                }
            }
        }
    };
}

extension!(
    /// Bittensor's rules for calls of its superuser, which this chain has not.
    #[derive(TypeInfo)]
    SudoTransactionExtension,
    |_, _| Ok(ValidTransaction::default())
);
extension!(
    /// Bittensor's rules for shielded extrinsics, which this chain has not.
    #[derive(TypeInfo)]
    CheckShieldedTxValidity,
    |_, _| Ok(ValidTransaction::default())
);
extension!(
    /// Refuses weights that would fail: the codes are Bittensor's `CustomTransactionError`.
    #[derive(TypeInfo)]
    SubtensorTransactionExtension,
    |who, call| match (who, call) {
        (Some(who), RuntimeCall::SubtensorModule(call)) => {
            check_weights(who, call).map(|()| ValidTransaction::default())
        }
        _ => Ok(ValidTransaction::default()),
    }
);
extension!(
    /// Bittensor's priority for its beacon's own extrinsics, of which there are none here.
    DrandPriority,
    |_, _| Ok(ValidTransaction::default())
);

impl TypeInfo for DrandPriority {
    type Identity = Self;

    fn type_info() -> Type {
        let unknown =
            sp_externalities::with_externalities(|s| s.storage(SHOW_UNKNOWN_EXTENSION).is_some());
        let named = Type::builder().path(scale_info::Path::new("DrandPriority", "drand_priority"));
        if unknown == Some(true) {
            named.composite(Fields::unnamed().field(FieldBuilder::<MetaForm, _>::ty::<u32>))
        } else {
            named.composite(Fields::unit())
        }
    }
}

const STAKE_AMOUNT_TOO_LOW: u8 = 1;
const RATE_LIMIT_EXCEEDED: u8 = 6;
const INVALID_REVEAL_ROUND: u8 = 15;

fn check_weights(who: &AccountId32, call: &subtensor::Call<Runtime>) -> Result<(), u8> {
    type Subtensor = subtensor::Pallet<Runtime>;
    use subtensor::Call;

    let (netuid, mecid, round) = match call {
        Call::set_weights { netuid, .. } => (*netuid, MechId(0), None),
        Call::set_mechanism_weights { netuid, mecid, .. } => (*netuid, *mecid, None),
        Call::commit_timelocked_weights {
            netuid,
            reveal_round,
            ..
        } => (*netuid, MechId(0), Some(*reveal_round)),
        Call::commit_timelocked_mechanism_weights {
            netuid,
            mecid,
            reveal_round,
            ..
        }
        | Call::commit_crv3_mechanism_weights {
            netuid,
            mecid,
            reveal_round,
            ..
        } => (*netuid, *mecid, Some(*reveal_round)),
        Call::__Ignore(..) => return Ok(()),
    };
    if !Subtensor::has_stake_for_weights(netuid, who) {
        return Err(STAKE_AMOUNT_TOO_LOW);
    }
    match round {
        Some(round) if round < drand::LastStoredRound::<Runtime>::get() => {
            Err(INVALID_REVEAL_ROUND)
        }
        None if !may_set_now(netuid, mecid, who) => Err(RATE_LIMIT_EXCEEDED),
        _ => Ok(()),
    }
}

/// The rate limit, unless weights must be committed first or the hotkey is not registered: both
/// are refused later, by name.
fn may_set_now(netuid: NetUid, mecid: MechId, who: &AccountId32) -> bool {
    type Subtensor = subtensor::Pallet<Runtime>;
    subtensor::CommitRevealWeightsEnabled::<Runtime>::get(netuid)
        || Subtensor::uid_of(netuid, who)
            .is_none_or(|uid| Subtensor::passes_rate_limit(netuid, netuid.index(mecid), uid))
}
