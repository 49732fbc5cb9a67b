//! Extrinsics that wait for a block, and why one may not.

use std::collections::{BTreeSet, HashMap};

use sp_core::H256;
use sp_runtime::transaction_validity::{
    InvalidTransaction, TransactionValidityError, UnknownTransaction, ValidTransaction,
};

use super::runtime::Extrinsic;

/// Why an extrinsic was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}{}", data.as_ref().map(|data| format!(": {data}")).unwrap_or_default())]
pub struct Rejected {
    /// JSON-RPC error code, as a Substrate node answers it.
    pub code: i32,
    pub message: String,
    pub data: Option<String>,
}

impl Rejected {
    fn new(code: i32, message: impl Into<String>, data: Option<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data,
        }
    }

    pub(super) fn bad_format(error: &codec::Error) -> Self {
        Self::new(1001, format!("Extrinsic has invalid format: {error}"), None)
    }

    pub(super) fn custom(code: u8) -> Self {
        Self::invalid(InvalidTransaction::Custom(code).into())
    }

    pub(super) fn invalid(error: TransactionValidityError) -> Self {
        match error {
            TransactionValidityError::Invalid(InvalidTransaction::Custom(code)) => Self::new(
                1010,
                "Invalid Transaction",
                Some(format!("Custom error: {code}")),
            ),
            TransactionValidityError::Invalid(kind) => {
                let kind: &'static str = kind.into();
                Self::new(1010, "Invalid Transaction", Some(kind.to_owned()))
            }
            TransactionValidityError::Unknown(UnknownTransaction::Custom(code)) => {
                let kind = format!("Custom unknown transaction validity: {code}");
                Self::new(1011, "Unknown Transaction Validity", Some(kind))
            }
            TransactionValidityError::Unknown(kind) => {
                let kind: &'static str = kind.into();
                Self::new(1011, "Unknown Transaction Validity", Some(kind.to_owned()))
            }
        }
    }

    fn banned() -> Self {
        Self::new(1012, "Transaction is temporarily banned", None)
    }

    fn already_imported(hash: H256) -> Self {
        Self::new(
            1013,
            "Transaction Already Imported",
            Some(format!("{hash:?}")),
        )
    }

    fn low_priority(old: u64, new: u64) -> Self {
        let data = "The transaction has too low priority to replace another transaction already \
                    in the pool.";
        Self::new(
            1014,
            format!("Priority is too low: ({old} vs {new})"),
            Some(data.to_owned()),
        )
    }
}

/// Where an extrinsic is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It waits for the next block.
    Ready,
    /// It waits for another extrinsic, as its nonce is not the next.
    Future,
    /// It is in the block of this number.
    InBlock(u32),
    /// Another with the same nonce and more priority took its place.
    Usurped(H256),
    /// It can no longer be valid.
    Invalid,
}

#[derive(Debug)]
struct Waiting {
    hash: H256,
    extrinsic: Extrinsic,
    validity: ValidTransaction,
}

/// The waiting extrinsics in order of arrival, and what became of all.
#[derive(Debug, Default)]
pub(super) struct Pool {
    waiting: Vec<Waiting>,
    statuses: HashMap<H256, Status>,
}

impl Pool {
    /// Refuses what is already here or was already in a block.
    pub(super) fn check_known(&self, hash: H256) -> Result<(), Rejected> {
        match self.statuses.get(&hash) {
            Some(Status::Ready | Status::Future) => Err(Rejected::already_imported(hash)),
            Some(Status::InBlock(_)) => Err(Rejected::banned()),
            _ => Ok(()),
        }
    }

    /// Takes a valid extrinsic, perhaps in place of one with the same nonce.
    pub(super) fn insert(
        &mut self,
        hash: H256,
        extrinsic: Extrinsic,
        validity: ValidTransaction,
    ) -> Result<(), Rejected> {
        let same = |waiting: &Waiting| waiting.validity.provides == validity.provides;
        if let Some(old) = self.waiting.iter().position(same) {
            let priority = self.waiting[old].validity.priority;
            if validity.priority <= priority {
                return Err(Rejected::low_priority(priority, validity.priority));
            }
            let old = self.waiting.remove(old);
            self.statuses.insert(old.hash, Status::Usurped(hash));
        }
        self.waiting.push(Waiting {
            hash,
            extrinsic,
            validity,
        });
        self.sort_out();
        Ok(())
    }

    /// Asks anew whether each waiting extrinsic is valid; drops those that are not.
    pub(super) fn revalidate(
        &mut self,
        mut validate: impl FnMut(&Extrinsic) -> Result<ValidTransaction, TransactionValidityError>,
    ) {
        let statuses = &mut self.statuses;
        self.waiting.retain_mut(|waiting| {
            if let Ok(validity) = validate(&waiting.extrinsic) {
                waiting.validity = validity;
                return true;
            }
            statuses.insert(waiting.hash, Status::Invalid);
            false
        });
        self.sort_out();
    }

    fn sort_out(&mut self) {
        let provided: BTreeSet<_> = self
            .waiting
            .iter()
            .flat_map(|waiting| &waiting.validity.provides)
            .collect();
        for waiting in &self.waiting {
            let ready = waiting
                .validity
                .requires
                .iter()
                .all(|tag| provided.contains(tag));
            let status = if ready { Status::Ready } else { Status::Future };
            self.statuses.insert(waiting.hash, status);
        }
    }

    /// Returns the ready extrinsics, those with more priority and then the older ones first.
    pub(super) fn ready(&self) -> Vec<(H256, Extrinsic)> {
        let mut ready: Vec<&Waiting> = self
            .waiting
            .iter()
            .filter(|waiting| self.statuses.get(&waiting.hash) == Some(&Status::Ready))
            .collect();
        ready.sort_by_key(|waiting| {
            (
                waiting.validity.requires.len(),
                std::cmp::Reverse(waiting.validity.priority),
            )
        });
        ready
            .into_iter()
            .map(|waiting| (waiting.hash, waiting.extrinsic.clone()))
            .collect()
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = &Extrinsic> {
        self.waiting.iter().map(|waiting| &waiting.extrinsic)
    }

    /// Notes that an extrinsic left the pool.
    pub(super) fn settle(&mut self, hash: H256, status: Status) {
        self.waiting.retain(|waiting| waiting.hash != hash);
        self.statuses.insert(hash, status);
    }

    /// Forgets an extrinsic: its block is gone.
    pub(super) fn forget(&mut self, hash: H256) {
        self.statuses.remove(&hash);
    }

    pub(super) fn status(&self, hash: H256) -> Option<Status> {
        self.statuses.get(&hash).copied()
    }
}
