//! Who is asked, and who next: the hub, else its mirrors in turn.
//!
//! What a mirror sends or lacks is never a verdict against a model. A refusal that rests on a mirror
//! is put off; only bytes whose hash the hub's listing or the commitment gave may speak, and those are
//! judged where they lie, after their hash was compared.

use hub::{Hub, Origin, OriginTrouble};
use subnet::FaultKind;

use super::rejection::{Judged, Rejection};

/// The origins of one thing, asked until one serves it.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    hub: &'a Hub,
    /// Whether the hub itself listed what is asked for.
    listed_by_hub: bool,
    left: std::vec::IntoIter<Origin>,
    failed: Vec<(Origin, Rejection)>,
}

impl<'a> Tries<'a> {
    /// Asks for what the listing of `listed_by` names. What no hash vouches for is asked of the hub
    /// alone.
    pub(super) fn new(hub: &'a Hub, listed_by: Origin, has_hash: bool) -> Self {
        let mut left = hub.origins();
        if !has_hash {
            left.retain(|origin| !origin.is_mirror());
        }
        Self {
            hub,
            listed_by_hub: !listed_by.is_mirror(),
            left: left.into_iter(),
            failed: Vec::new(),
        }
    }

    /// Returns who is to be asked now.
    pub(super) fn next(&mut self) -> Option<Origin> {
        self.left.next()
    }

    pub(super) fn served(&self, origin: Origin) {
        if origin.is_mirror() {
            tracing::debug!(mirror = self.name(origin), "a mirror of the hub served");
        }
        self.hub.note_served(origin);
    }

    /// Notes why an origin did not serve; an error is final.
    pub(super) fn failed(&mut self, origin: Origin, rejection: Rejection) -> Judged<()> {
        let trouble = match &rejection {
            Rejection::Refused { .. } if !origin.is_mirror() && self.listed_by_hub => {
                return Err(rejection);
            }
            Rejection::Retry { fault, .. } if fault.kind == FaultKind::Machine => {
                return Err(rejection);
            }
            Rejection::Refused { .. } => OriginTrouble::Lacks,
            Rejection::Retry { .. } => OriginTrouble::Away,
        };
        self.note(origin, trouble, rejection);
        Ok(())
    }

    /// Notes that an origin sent something else than the hash says.
    pub(super) fn sent_other_bytes(&mut self, origin: Origin, reason: String) {
        // If a mirror named the hash, nobody knows who of the two is wrong.
        let trouble = if self.listed_by_hub {
            OriginTrouble::OtherBytes
        } else {
            OriginTrouble::Lacks
        };
        self.note(origin, trouble, Rejection::outside(reason));
    }

    fn note(&mut self, origin: Origin, trouble: OriginTrouble, rejection: Rejection) {
        let problem = rejection.to_string();
        if self.left.len() > 0 {
            let origin = self.name(origin);
            tracing::warn!(origin, problem, "asking another origin");
        }
        self.hub.note_trouble(origin, trouble, &problem);
        self.failed.push((origin, rejection));
    }

    /// Returns why nobody served: what the hub said, and what became of the mirrors.
    pub(super) fn rejection(self) -> Rejection {
        let alone = self.failed.len() == 1;
        let (mirrors, hub): (Vec<_>, Vec<_>) = self
            .failed
            .into_iter()
            .partition(|(origin, _)| origin.is_mirror());
        let first = hub.into_iter().next().map(|(_, rejection)| rejection);
        if let Some(rejection @ Rejection::Retry { .. }) = first.clone()
            && alone
        {
            return rejection;
        }
        let after = first.as_ref().and_then(Rejection::after);
        let reasons = first.into_iter().chain(mirrors.into_iter().map(|(_, r)| r));
        let reasons: Vec<String> = reasons.map(|rejection| rejection.to_string()).collect();
        Rejection::outside(reasons.join("; ")).with_pause(after)
    }

    fn name(&self, origin: Origin) -> String {
        self.hub.address(origin)
    }
}
