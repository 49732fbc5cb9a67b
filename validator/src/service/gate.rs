//! What forbids evaluation and weights altogether: the netuid is another subnet's by now, or our
//! hotkey has no place on it.

use std::path::Path;

use shared::{Exit, Failure, file};

use chain::ChainSnapshot;
use subnet::{
    Hotkey, Uid,
    identity::{ForeignSubnet, FoundSubnet, SubnetIdentity},
};

/// The subnet of the first start, in the folder of the state.
const FILE: &str = "subnet-identity.json";

const MAX_BYTES: u64 = 1 << 16;

/// Knows which subnet and which hotkey are meant.
#[derive(Debug)]
pub(super) struct Gate {
    /// What the subnet file says.
    declared: SubnetIdentity,
    /// What the chain said at the first start.
    pinned: SubnetIdentity,
    hotkey: Hotkey,
    /// Without registration there is nothing to forbid: nobody sets weights.
    offline: bool,
}

/// Why nothing is evaluated and no weights are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hindrance {
    OtherSubnet(String),
    NotRegistered(String),
}

/// Returns the subnet of a snapshot.
pub(super) fn found(snapshot: &ChainSnapshot) -> FoundSubnet {
    FoundSubnet {
        netuid: snapshot.netuid,
        genesis: snapshot.genesis_hash,
        registered_at: snapshot.hyperparameters.registered_at,
        owner: snapshot.hyperparameters.owner,
    }
}

/// What to do about a netuid that is another subnet's than the file's.
pub(super) const REMEDY: &str = "the fine-tuning subnet of 2024 is no longer on finney: describe a \
    subnet of your own in a file (`validator competitions --json` shows one), with its netuid and, \
    under [identity], its owner, and give it with --subnet FILE";

impl Gate {
    /// Looks at the subnet of the first snapshot, and pins it where no earlier start did.
    pub(super) fn open(
        folder: &Path,
        declared: &SubnetIdentity,
        hotkey: Hotkey,
        offline: bool,
        snapshot: &ChainSnapshot,
    ) -> Result<Self, Failure> {
        let found = found(snapshot);
        if let Err(error) = declared.check(&found) {
            return Err(Failure::of(Exit::Config, &*error).hint(REMEDY));
        }
        let path = folder.join(FILE);
        let pinned = match read(&path)? {
            Some(pinned) => pinned,
            None => pin(&path, &found)?,
        };
        if let Err(error) = pinned.check(&found) {
            return Err(Failure::of(Exit::Config, &*error).hint(format_args!(
                "give this validator its own --state-dir; if the subnet is the same and only changed \
                 its owner, delete {}",
                path.display()
            )));
        }
        Ok(Self {
            declared: declared.clone(),
            pinned,
            hotkey,
            offline,
        })
    }

    /// Returns what stands in the way at a snapshot.
    pub(super) fn hindrance(&self, snapshot: &ChainSnapshot) -> Option<Hindrance> {
        let found = found(snapshot);
        let foreign = self
            .declared
            .check(&found)
            .and_then(|()| self.pinned.check(&found));
        if let Err(error) = foreign {
            return Some(Hindrance::OtherSubnet(refusal(&error)));
        }
        (self.uid(snapshot).is_none() && !self.offline).then(|| {
            Hindrance::NotRegistered(format!(
                "hotkey {} is not registered on subnet {} any more: nothing is evaluated and no \
                 weights are set until it is (btcli subnet register --netuid {})",
                self.hotkey, snapshot.netuid, snapshot.netuid
            ))
        })
    }

    /// Returns our uid at a snapshot.
    pub(super) fn uid(&self, snapshot: &ChainSnapshot) -> Option<Uid> {
        snapshot.neuron(&self.hotkey).map(|neuron| neuron.uid)
    }
}

fn refusal(error: &ForeignSubnet) -> String {
    format!("{error}; nothing is evaluated and no weights are set")
}

/// Returns what is known of the subnet that is meant: by its file, and by the first start.
pub(super) fn meant(
    folder: &Path,
    declared: &SubnetIdentity,
) -> Result<Vec<SubnetIdentity>, String> {
    let pinned = read(&folder.join(FILE)).map_err(|failure| failure.to_string())?;
    Ok([declared.clone()].into_iter().chain(pinned).collect())
}

fn read(path: &Path) -> Result<Option<SubnetIdentity>, Failure> {
    let bytes =
        file::read_limited(path, MAX_BYTES).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let path = path.display();
        Failure::new(
            Exit::BadInput,
            format_args!("{path} does not say which subnet is meant"),
        )
        .caused_by(&error)
        .hint("delete it, and the subnet of the next start is taken")
    })
}

fn pin(path: &Path, found: &FoundSubnet) -> Result<SubnetIdentity, Failure> {
    let pinned = found.pin();
    let bytes = serde_json::to_vec_pretty(&pinned).expect("an identity has no map with odd keys");
    file::write_atomic(path, &bytes).map_err(|error| Failure::of(Exit::Machine, &error))?;
    tracing::info!(netuid = %found.netuid, subnet = %found, "this subnet is meant from now on");
    Ok(pinned)
}
