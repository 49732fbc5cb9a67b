//! Which subnet is meant: netuids are evicted and given to others.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BlockNumber, Genesis, Hotkey, Netuid};

/// The subnet a file was made for. What is absent may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubnetIdentity {
    /// First block of its chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis: Option<Genesis>,
    /// Block at which the subnet was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<BlockNumber>,
    /// Block at which it was registered at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_by: Option<BlockNumber>,
    /// Coldkey of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Hotkey>,
}

/// A subnet as the chain has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSubnet {
    pub netuid: Netuid,
    pub genesis: Genesis,
    /// Block at which the netuid was last given to a subnet, where the chain tells.
    pub registered_at: Option<BlockNumber>,
    pub owner: Option<Hotkey>,
}

/// The netuid is another subnet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "netuid {netuid} belongs to somebody else: {found}; the subnet that is meant: {meant}",
    netuid = .found.netuid
)]
pub struct ForeignSubnet {
    pub found: FoundSubnet,
    pub meant: SubnetIdentity,
}

impl FoundSubnet {
    /// Returns what may be asked of it from now on: that it stays the same.
    pub fn pin(&self) -> SubnetIdentity {
        SubnetIdentity {
            genesis: Some(self.genesis),
            registered_at: self.registered_at,
            registered_by: None,
            owner: self.owner,
        }
    }
}

impl SubnetIdentity {
    /// Refuses another subnet. What the chain does not tell is taken for right.
    pub fn check(&self, found: &FoundSubnet) -> Result<(), Box<ForeignSubnet>> {
        let registered = found.registered_at;
        let same = self.genesis.is_none_or(|genesis| genesis == found.genesis)
            && agree(self.registered_at, registered, |meant, found| {
                meant == found
            })
            && agree(self.registered_by, registered, |meant, found| {
                found <= meant
            })
            && agree(self.owner, found.owner, |meant, found| meant == found);
        if same {
            return Ok(());
        }
        Err(Box::new(ForeignSubnet {
            found: *found,
            meant: self.clone(),
        }))
    }
}

fn agree<T>(meant: Option<T>, found: Option<T>, same: impl FnOnce(T, T) -> bool) -> bool {
    meant
        .zip(found)
        .is_none_or(|(meant, found)| same(meant, found))
}

impl fmt::Display for FoundSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pin().fmt(f)
    }
}

impl fmt::Display for SubnetIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.owner.map(|owner| format!("owner {owner}")),
            self.registered_at
                .map(|block| format!("registered at block {block}")),
            self.registered_by
                .map(|block| format!("registered by block {block}")),
            self.genesis
                .map(|genesis| format!("chain {:.10}..", genesis.to_string())),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: FoundSubnet = FoundSubnet {
        netuid: Netuid(6),
        genesis: Genesis([1; 32]),
        registered_at: Some(500),
        owner: Some(Hotkey([7; 32])),
    };

    #[test]
    fn a_netuid_that_changed_hands_is_not_the_subnet_that_is_meant() {
        assert_eq!(SubnetIdentity::default().check(&FOUND), Ok(()));
        assert_eq!(FOUND.pin().check(&FOUND), Ok(()));
        let by = |block| SubnetIdentity {
            registered_by: Some(block),
            ..SubnetIdentity::default()
        };
        assert_eq!(by(500).check(&FOUND), Ok(()));
        assert!(by(499).check(&FOUND).is_err());
        for other in [
            FoundSubnet {
                genesis: Genesis([2; 32]),
                ..FOUND
            },
            FoundSubnet {
                registered_at: Some(501),
                ..FOUND
            },
            FoundSubnet {
                owner: Some(Hotkey([8; 32])),
                ..FOUND
            },
        ] {
            assert!(FOUND.pin().check(&other).is_err(), "{other}");
        }
        let older_runtime = FoundSubnet {
            registered_at: None,
            owner: None,
            ..FOUND
        };
        assert_eq!(FOUND.pin().check(&older_runtime), Ok(()));
        insta::assert_snapshot!(by(499).check(&FOUND).unwrap_err(), @"netuid 6 belongs to somebody else: owner 5CDvHBym6RLoxTdX9MS1acpaDbNxaFagqM5LpBiFGjWT6o1n, registered at block 500, chain 0x01010101..; the subnet that is meant: registered by block 499");
    }
}
