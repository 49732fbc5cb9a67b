//! The chain's rhythm: the block of the last consensus before a given one.

use subnet::BlockNumber;

/// Returns the last block of the form `start + k * tempo` strictly before `block`; it may lie
/// before `start`. `None` if the tempo is 0.
pub fn nearest_tempo(start: i64, tempo: i64, block: i64) -> Option<i64> {
    let before = block.checked_sub(1)?;
    let since = before.checked_sub(start)?.checked_rem_euclid(tempo)?;
    before.checked_sub(since)
}

/// Returns the block of the consensus that holds at `now`: commitments from it on are new to us.
/// `None` if the tempo is 0 or the subnet is younger than that.
pub fn last_consensus(
    subnet_start: BlockNumber,
    tempo: u64,
    now: BlockNumber,
) -> Option<BlockNumber> {
    let [start, tempo, now] = [subnet_start, tempo, now].map(|n| i64::try_from(n).ok());
    let (start, tempo, now) = (start?, tempo?, now?);
    let block = nearest_tempo(start, tempo, now.checked_sub(tempo)?)?;
    BlockNumber::try_from(block).ok()
}
