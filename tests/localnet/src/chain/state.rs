//! The archive of states: the trie nodes of every block, kept for good.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use sp_core::H256;
use sp_runtime::{StateVersion, traits::BlakeTwo256};
use sp_state_machine::{
    Backend, DBValue, Ext, OverlayedChanges, TrieBackend, TrieBackendBuilder, TrieBackendStorage,
};

/// All trie nodes by their hash. A block's state is reached through its root.
#[derive(Debug)]
pub(super) struct Archive {
    nodes: HashMap<H256, DBValue>,
}

/// The runtime panicked, which on a real chain would trap its code.
#[derive(Debug, thiserror::Error)]
#[error("Execution failed: the runtime trapped: {0}")]
pub(super) struct Trapped(String);

struct Nodes<'a>(&'a HashMap<H256, DBValue>);

impl TrieBackendStorage<BlakeTwo256> for Nodes<'_> {
    fn get(&self, key: &H256, _prefix: (&[u8], Option<u8>)) -> Result<Option<DBValue>, String> {
        Ok(self.0.get(key).cloned())
    }
}

impl Archive {
    /// Makes an archive that holds the empty state only, and returns that state's root.
    pub(super) fn new() -> (Self, H256) {
        let root = sp_trie::empty_trie_root::<sp_trie::LayoutV1<BlakeTwo256>>();
        (
            Self {
                nodes: HashMap::from([(root, vec![0])]),
            },
            root,
        )
    }

    fn backend(&self, root: H256) -> TrieBackend<Nodes<'_>, BlakeTwo256> {
        TrieBackendBuilder::new(Nodes(&self.nodes), root).build()
    }

    /// Runs runtime code on a state without changing the archive.
    pub(super) fn read<R>(&self, root: H256, code: impl FnOnce() -> R) -> Result<R, Trapped> {
        run(&self.backend(root), &mut OverlayedChanges::default(), code)
    }

    /// Runs runtime code on a state and keeps the state it leaves. Returns that state's root.
    pub(super) fn write<R>(
        &mut self,
        root: H256,
        code: impl FnOnce() -> R,
    ) -> Result<(R, H256), Trapped> {
        let mut overlay = OverlayedChanges::default();
        let backend = self.backend(root);
        let result = run(&backend, &mut overlay, code)?;
        let changes = overlay
            .drain_storage_changes(&backend, StateVersion::V1)
            .map_err(Trapped)?;
        drop(backend);
        let mut transaction = changes.transaction;
        for (key, (node, references)) in transaction.drain() {
            if references > 0 {
                // Nodes are never removed, so the hash alone tells them apart.
                let hash = H256::from_slice(&key[key.len() - 32..]);
                self.nodes.insert(hash, node);
            }
        }
        Ok((result, changes.transaction_storage_root))
    }

    /// Returns the value under a key.
    pub(super) fn value(&self, root: H256, key: &[u8]) -> Option<Vec<u8>> {
        self.backend(root).storage(key).ok().flatten()
    }

    /// Returns up to `count` keys with a prefix that come after `start`, in order.
    pub(super) fn keys(
        &self,
        root: H256,
        prefix: &[u8],
        start: Option<&[u8]>,
        count: usize,
    ) -> Vec<Vec<u8>> {
        let backend = self.backend(root);
        let mut keys = Vec::new();
        let mut last = start
            .filter(|start| *start >= prefix)
            .unwrap_or(prefix)
            .to_vec();
        if start.is_none_or(|start| start < prefix) && self.value(root, prefix).is_some() {
            keys.push(prefix.to_vec());
        }
        while keys.len() < count {
            let Ok(Some(key)) = backend.next_storage_key(&last) else {
                break;
            };
            if !key.starts_with(prefix) {
                break;
            }
            keys.push(key.clone());
            last = key;
        }
        keys
    }
}

fn run<R>(
    backend: &TrieBackend<Nodes<'_>, BlakeTwo256>,
    overlay: &mut OverlayedChanges<BlakeTwo256>,
    code: impl FnOnce() -> R,
) -> Result<R, Trapped> {
    let mut state = Ext::new(overlay, backend, None);
    catch_unwind(AssertUnwindSafe(|| {
        sp_externalities::set_and_run_with_externalities(&mut state, code)
    }))
    .map_err(|panic| Trapped(shared::task::panic_message(&*panic)))
}
