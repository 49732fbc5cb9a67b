//! Teams of threads: whole parts of the work side by side, each on threads of its own.
//!
//! Threads that share every single operation spend much of a small model's time waiting for each
//! other; those with whole packs to themselves don't.

use std::sync::{Mutex, PoisonError};

use candle_core::{Error, Result};

/// Works on all parts; each of `teams` teams takes the next part when it is done with one.
///
/// The threads of this process are divided among the teams: what `work` does in parallel stays
/// within its team. `init` makes what a team, known by its number, keeps from part to part. After an error no new
/// part is begun.
pub(crate) fn share<T: Sync, S>(
    parts: &[T],
    teams: usize,
    init: impl Fn(usize) -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<()> {
    let threads = threads();
    let teams = teams.min(parts.len()).max(1);
    let queue = Mutex::new(parts.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let team = |number| {
        let mut state = init(number);
        while let Some(part) = next() {
            work(&mut state, part).inspect_err(|_| while next().is_some() {})?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let size = |number| (threads / teams + usize::from(number < threads % teams)).max(1);
        let teams: Vec<_> = (0..teams)
            .map(|number| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(size(number));
                let pool = pool.build().map_err(Error::wrap)?;
                let team = &team;
                Ok(scope.spawn(move || pool.install(|| team(number))))
            })
            .collect::<Result<_>>()?;
        teams.into_iter().try_for_each(|team| match team.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Returns how many threads compute: one a core, unless fewer were asked for.
pub(crate) fn threads() -> usize {
    rayon::current_num_threads().min(candle_core::utils::get_num_threads())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_part_is_done_once() {
        let parts: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
        for teams in [0, 1, 2, 100] {
            let work = |(): &mut (), part: &AtomicUsize| {
                part.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            share(&parts, teams, |_| (), work).unwrap();
        }
        assert!(parts.into_iter().all(|part| part.into_inner() == 4));
        share(&[] as &[usize], 2, |_| (), |(), _| Ok(())).unwrap();
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let work = |(): &mut (), _: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(Error::msg("no more"))
        };
        share(&[0; 50], 2, |_| (), work).unwrap_err();
        assert!(begun.into_inner() <= 2);
    }
}
