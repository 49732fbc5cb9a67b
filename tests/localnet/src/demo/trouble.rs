//! Trouble to rehearse: what is set while the demo runs, and how it was survived.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    Localnet,
    chain::{CallError, Stall},
    http::{Fault, Faults, Rule},
};

/// Requests that meet an HTTP fault before it passes.
const TIMES: u32 = 4;
/// How long a chain stalls or refuses connections.
pub const CHAIN_TROUBLE: Duration = Duration::from_secs(6);

/// Who is in trouble, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// An HTTP service commits a fault a few times.
    Service(Service, Fault),
    /// The chain answers nothing for a while.
    ChainStall,
    /// The chain drops all connections and refuses new ones for a while.
    ChainCut,
    /// The chain answers some calls with "too many requests".
    ChainBusy,
}

/// An HTTP service of the subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Hub,
    Cdn,
    Feed,
}

/// A name that is not a trouble.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is not a trouble known here: hub-FAULT, cdn-FAULT or feed-FAULT, where FAULT is one of \
     {faults}; or chain-stall, chain-cut, chain-429",
    faults = Fault::ALL.map(|(_, name)| name).join(", ")
)]
pub struct UnknownTrouble(String);

impl FromStr for Trouble {
    type Err = UnknownTrouble;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownTrouble(name.to_owned());
        match name {
            "chain-stall" => return Ok(Self::ChainStall),
            "chain-cut" => return Ok(Self::ChainCut),
            "chain-429" => return Ok(Self::ChainBusy),
            _ => {}
        }
        let (service, fault) = name.split_once('-').ok_or_else(unknown)?;
        let service = match service {
            "hub" => Service::Hub,
            "cdn" => Service::Cdn,
            "feed" => Service::Feed,
            _ => return Err(unknown()),
        };
        Ok(Self::Service(
            service,
            fault.parse().map_err(|_| unknown())?,
        ))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service, fault) => {
                let service = match service {
                    Service::Hub => "hub",
                    Service::Cdn => "cdn",
                    Service::Feed => "feed",
                };
                write!(f, "{service}-{}", fault.name())
            }
            Self::ChainStall => f.write_str("chain-stall"),
            Self::ChainCut => f.write_str("chain-cut"),
            Self::ChainBusy => f.write_str("chain-429"),
        }
    }
}

impl Service {
    fn faults(self, subnet: &Localnet) -> &Faults {
        match self {
            Self::Hub => &subnet.hub.api.faults,
            Self::Cdn => &subnet.hub.cdn.faults,
            Self::Feed => &subnet.feed.server.faults,
        }
    }
}

impl Trouble {
    /// Whether it is for the chain, whose trouble comes later than that of hub and samples.
    pub const fn is_of_chain(self) -> bool {
        !matches!(self, Self::Service(..))
    }

    pub fn set(self, subnet: &Localnet) {
        match self {
            Self::Service(service, fault) => {
                service.faults(subnet).add(Rule::always(fault).times(TIMES));
            }
            Self::ChainStall => subnet.chain.stall(Stall::Everything),
            Self::ChainCut => subnet.chain.cut(CHAIN_TROUBLE),
            Self::ChainBusy => subnet.chain.fail_calls(CallError {
                method: None,
                code: -32_005,
                message: "too many requests".to_owned(),
                count: TIMES,
            }),
        }
    }

    /// Ends what would not end by itself, [`CHAIN_TROUBLE`] later.
    pub fn end(self, subnet: &Localnet) {
        if self == Self::ChainStall {
            subnet.chain.stall(Stall::Nothing);
        }
    }

    /// Says what happened. The demo has come to its end, so all of it was survived.
    pub(super) fn report(self, subnet: &Localnet) -> String {
        match self {
            Self::Service(service, _) => {
                let met = service.faults(subnet).met();
                format!("{self}: {met} requests met it; every model was judged nonetheless")
            }
            Self::ChainStall | Self::ChainCut => format!(
                "{self}: {} s without the chain; the weights were set afterwards",
                CHAIN_TROUBLE.as_secs()
            ),
            Self::ChainBusy => {
                format!("{self}: {TIMES} calls were refused; the weights were set nonetheless")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in [
            "hub-429",
            "cdn-cut",
            "feed-html",
            "chain-stall",
            "chain-cut",
            "chain-429",
        ] {
            assert_eq!(name.parse::<Trouble>().unwrap().to_string(), name);
        }
        let error = "hub-flood".parse::<Trouble>().unwrap_err().to_string();
        assert!(error.contains("redirect-loop"), "{error}");
    }
}
