//! Signing extrinsics in this process, as a wallet would.

use codec::Encode;
use sp_core::{Pair, sr25519};
use sp_runtime::{
    AccountId32, MultiAddress, MultiSignature, generic::Era,
    transaction_validity::TransactionValidityError,
};

use super::runtime::{
    Extrinsic, RuntimeCall, SignedPayload,
    extensions::{
        ChargeTransactionPaymentWrapper, CheckNonce, CheckShieldedTxValidity, DrandPriority,
        SubtensorTransactionExtension, SudoTransactionExtension, TransactionExtensions,
    },
};

/// Signs a call that never expires. Must run within a state, whose genesis and version it signs.
pub(super) fn sign(
    call: RuntimeCall,
    pair: &sr25519::Pair,
    nonce: u32,
) -> Result<Extrinsic, TransactionValidityError> {
    let extensions: TransactionExtensions = (
        (
            frame_system::CheckNonZeroSender::new(),
            frame_system::CheckSpecVersion::new(),
            frame_system::CheckTxVersion::new(),
            frame_system::CheckGenesis::new(),
            frame_system::CheckMortality::from(Era::Immortal),
            CheckNonce(nonce),
            frame_system::CheckWeight::new(),
        ),
        (
            ChargeTransactionPaymentWrapper(
                pallet_transaction_payment::ChargeTransactionPayment::from(0),
            ),
            SudoTransactionExtension,
            CheckShieldedTxValidity,
            SubtensorTransactionExtension,
            DrandPriority,
        ),
        frame_metadata_hash_extension::CheckMetadataHash::new(false),
    );
    let payload = SignedPayload::new(call, extensions)?;
    let signature = payload.using_encoded(|payload| pair.sign(payload));
    let (call, extensions, _) = payload.deconstruct();
    Ok(Extrinsic::new_signed(
        call,
        MultiAddress::Id(AccountId32::new(pair.public().0)),
        MultiSignature::Sr25519(signature),
        extensions,
    ))
}
