//! The supply of the steps: a sample set for each, fetched ahead where that is possible.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, watch};

use super::{Fetcher, SampleSet};
use subnet::{BlockNumber, Fault};

/// Which sample set a step asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The seed of the draw.
    pub seed: u64,
    /// The block whose hash is the seed, if one is: all steps with this seed share one set.
    pub block: Option<BlockNumber>,
}

/// A sample set, and what went wrong on the way to it.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The samples, drawn and ordered.
    pub set: SampleSet,
    /// A sentence for each source that failed.
    pub trouble: Vec<String>,
    /// Records that could be used, of all sources.
    pub usable: u64,
    /// Records that could not.
    pub dropped: u64,
}

/// Gives steps their sample sets. Sources are asked by one caller at a time: a step that comes
/// while its set is being fetched waits for that and asks nobody.
#[derive(Debug)]
pub struct Supply {
    fetcher: Fetcher,
    count: usize,
    shelf: Mutex<Option<Held>>,
    taken: watch::Sender<Option<Order>>,
    next_random: AtomicU64,
}

/// A set that was fetched ahead, or that further steps may share.
#[derive(Debug)]
struct Held {
    order: Order,
    drawn: Drawn,
    since: Instant,
}

impl Supply {
    /// Makes a supply of sets of `count` samples; nothing is fetched yet.
    pub fn new(fetcher: Fetcher, count: usize) -> Self {
        Self {
            fetcher,
            count,
            shelf: Mutex::default(),
            taken: watch::Sender::default(),
            next_random: AtomicU64::new(rand::random()),
        }
    }

    /// Returns the order of the next step whose seed is random; the same until it is taken.
    pub fn random_order(&self) -> Order {
        Order {
            seed: self.next_random.load(Ordering::Relaxed),
            block: None,
        }
    }

    /// Fetches a set ahead of its step. A failure costs nothing: the step asks again itself.
    pub async fn prepare(&self, order: Order) {
        let mut shelf = self.shelf.lock().await;
        if self.held(shelf.as_ref(), order).is_some() {
            return;
        }
        match self.draw(order).await {
            Ok(drawn) => {
                let digest = &drawn.set.digest;
                tracing::info!(digest, block = order.block, "samples are fetched ahead");
                *shelf = hold(order, &drawn);
            }
            Err(fault) => tracing::info!(%fault, "no samples ahead of the next step"),
        }
    }

    /// Returns the set of an order: the one fetched ahead, or one fetched now.
    pub async fn take(&self, order: Order) -> Result<Drawn, Fault> {
        let mut shelf = self.shelf.lock().await;
        let drawn = if let Some(drawn) = self.held(shelf.as_ref(), order) {
            drawn
        } else {
            let drawn = self.draw(order).await?;
            *shelf = hold(order, &drawn);
            drawn
        };
        if order.block.is_none() {
            // The next step has other samples.
            *shelf = None;
            self.next_random.store(rand::random(), Ordering::Relaxed);
        }
        self.taken.send_replace(Some(order));
        Ok(drawn)
    }

    /// Returns a receiver that sees the order of each set that is taken.
    pub fn taken(&self) -> watch::Receiver<Option<Order>> {
        self.taken.subscribe()
    }

    async fn draw(&self, order: Order) -> Result<Drawn, Fault> {
        let pool = self.fetcher.fetch(self.count, order.seed).await;
        let reports = || pool.reports.iter();
        Ok(Drawn {
            usable: reports().map(|report| report.usable as u64).sum(),
            dropped: reports().flat_map(|report| report.dropped.0.values()).sum(),
            set: pool.draw(self.count, order.seed)?,
            trouble: pool.trouble(),
        })
    }

    fn held(&self, held: Option<&Held>, order: Order) -> Option<Drawn> {
        held.filter(|held| held.order == order && held.since.elapsed() <= self.max_age())
            .map(|held| held.drawn.clone())
    }

    fn max_age(&self) -> Duration {
        self.fetcher.max_age()
    }
}

/// Samples out of the cache are not held: the sources may be back for the next step.
fn hold(order: Order, drawn: &Drawn) -> Option<Held> {
    drawn.set.cached_age.is_none().then(|| Held {
        order,
        drawn: drawn.clone(),
        since: Instant::now(),
    })
}
