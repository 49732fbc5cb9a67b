//! The local drand beacon: a key pair of our own, with the rounds and signatures of quicknet.

use ark_ec::PrimeGroup;
use ark_ff::PrimeField;
use ark_serialize::CanonicalSerialize;
use frame_support::{BoundedVec, traits::Get};
use sp_io::hashing::sha2_256;
use timelock::{
    engines::{EngineBLS, drand::TinyBLS381},
    ibe::fullident::Identity,
};

use super::runtime::drand::{BeaconConfiguration, Metadata, Pulse, Quicknet};

type Scalar = <TinyBLS381 as EngineBLS>::Scalar;
type PublicKey = <TinyBLS381 as EngineBLS>::PublicKeyGroup;

/// A beacon that can sign any round.
pub(super) struct Beacon {
    secret: Scalar,
}

impl std::fmt::Debug for Beacon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beacon").finish_non_exhaustive()
    }
}

impl Beacon {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            secret: Scalar::from_be_bytes_mod_order(secret),
        }
    }

    /// Returns the public key: a compressed point of G2, 96 bytes.
    pub(super) fn public_key(&self) -> Vec<u8> {
        compressed(&(PublicKey::generator() * self.secret))
    }

    /// Returns a round's pulse. What is signed is the SHA-256 of its number, big-endian.
    pub(super) fn pulse(&self, round: u64) -> Pulse {
        let identity = Identity::new(b"", &sha2_256(&round.to_be_bytes()));
        let signature = compressed(&identity.extract::<TinyBLS381>(self.secret).0);
        Pulse {
            round,
            randomness: sha2_256(&signature).to_vec().try_into().unwrap_or_default(),
            signature: signature.try_into().unwrap_or_default(),
        }
    }

    pub(super) fn configuration(&self) -> BeaconConfiguration {
        BeaconConfiguration {
            public_key: self.public_key().try_into().unwrap_or_default(),
            hash: BoundedVec::default(),
            group_hash: BoundedVec::default(),
            metadata: Metadata {
                beacon_id: b"localnet".to_vec().try_into().unwrap_or_default(),
            },
            ..Quicknet::get()
        }
    }
}

fn compressed(point: &impl CanonicalSerialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(point.compressed_size());
    // Writing to a vector fails only without memory.
    if let Err(error) = point.serialize_compressed(&mut bytes) {
        tracing::error!(%error, "a point does not serialize");
    }
    bytes
}
