//! From measured rates to grades, and to how many models an hour they buy.

use serde::Serialize;
use subnet::Competition;

/// How good a number is for the largest models of the subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// More would hardly be noticed.
    A,
    B,
    C,
    /// Steps will wait for it.
    D,
}

impl Grade {
    /// Grades what is the better the larger it is, by the least values of A, B and C.
    pub(super) fn at_least(value: f64, least: [f64; 3]) -> Self {
        let grades = [Self::A, Self::B, Self::C];
        let found = grades
            .into_iter()
            .zip(least)
            .find(|(_, least)| value >= *least);
        found.map_or(Self::D, |(grade, _)| grade)
    }

    /// Grades what is the better the smaller it is, by the largest values of A, B and C.
    pub(super) fn at_most(value: f64, most: [f64; 3]) -> Self {
        Self::at_least(-value, most.map(|most| -most))
    }
}

/// What was measured, in bytes and operations a second, and bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) disk: Option<f64>,
    pub(super) hash: Option<f64>,
    pub(super) hub: Option<f64>,
    pub(super) products: Option<f64>,
    /// Where models are computed.
    pub(super) memory: Option<f64>,
}

/// How many of the largest models of a competition are dealt with in an hour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capacity {
    pub competition: String,
    pub parameters: u64,
    /// Evaluated, from the disk; none if a part was not measured.
    pub evaluated_per_hour: Option<f64>,
    pub evaluation_waits_for: &'static str,
    /// Downloaded and hashed.
    pub fetched_per_hour: Option<f64>,
    pub fetching_waits_for: &'static str,
    /// Whether the weights fit into the memory that they are computed in.
    pub fits: Option<bool>,
}

/// What is computed for each model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Of all samples, at their longest.
    pub(super) tokens: f64,
    /// Of a weight in memory.
    pub(super) weight_bytes: f64,
}

/// Of a weight on the disk and on the way: most models are in 16 bits.
const STORED_BYTES: f64 = 2.0;

/// Weights and what is computed beside them.
const MEMORY_SHARE: f64 = 1.1;

impl Rates {
    pub(super) fn capacity(&self, competition: &Competition, load: Load) -> Capacity {
        let parameters = competition.max_parameters as f64;
        let bytes = parameters * STORED_BYTES;
        // A multiplication and an addition for each weight and token. While a model computes, the next is read, and
        // while one arrives, it is hashed: the slower one counts.
        let (evaluated_per_hour, evaluation_waits_for) = slower(
            ("disk read", seconds(bytes, self.disk)),
            (
                "matrix products",
                seconds(2.0 * parameters * load.tokens, self.products),
            ),
        );
        let (fetched_per_hour, fetching_waits_for) = slower(
            ("download", seconds(bytes, self.hub)),
            ("sha256", seconds(bytes, self.hash)),
        );
        let needed = parameters * load.weight_bytes * MEMORY_SHARE;
        Capacity {
            competition: competition.id.to_string(),
            parameters: competition.max_parameters,
            evaluated_per_hour,
            evaluation_waits_for,
            fetched_per_hour,
            fetching_waits_for,
            fits: self.memory.map(|memory| memory >= needed),
        }
    }
}

fn seconds(amount: f64, rate: Option<f64>) -> Option<f64> {
    Some(amount / rate?)
}

type Part = (&'static str, Option<f64>);

/// Returns how often an hour has the slower of two parts, and which that is.
fn slower(a: Part, b: Part) -> (Option<f64>, &'static str) {
    match (a, b) {
        ((a, Some(first)), (_, Some(second))) if first >= second => (Some(3600.0 / first), a),
        ((_, Some(_)), (b, Some(second))) => (Some(3600.0 / second), b),
        ((a, None), _) => (None, a),
        (_, (b, None)) => (None, b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use subnet::Parameters;

    use super::*;

    const LOAD: Load = Load {
        tokens: 1e5,
        weight_bytes: 2.0,
    };

    fn largest() -> Competition {
        let parameters = Parameters::embedded();
        let all = parameters.schedules.iter().flat_map(|s| &s.competitions);
        let largest = all.max_by_key(|competition| competition.max_parameters);
        largest.unwrap().clone()
    }

    #[test]
    fn grades_begin_at_their_values() {
        let least = [100.0, 10.0, 1.0];
        let grades = [100.0, 99.0, 10.0, 1.0, 0.5, f64::NAN].map(|x| Grade::at_least(x, least));
        assert_eq!(
            grades,
            [Grade::A, Grade::B, Grade::B, Grade::C, Grade::D, Grade::D]
        );
        let most = [50.0, 200.0, 1000.0];
        let grades = [50.0, 51.0, 1000.0, 1001.0].map(|x| Grade::at_most(x, most));
        assert_eq!(grades, [Grade::A, Grade::B, Grade::C, Grade::D]);
    }

    #[test]
    fn an_hour_has_as_many_models_as_the_slower_part_lets_through() {
        let competition = largest();
        let parameters = competition.max_parameters as f64;
        let rates = Rates {
            disk: Some(2.0 * parameters / 10.0),
            products: Some(2.0 * parameters * LOAD.tokens / 20.0),
            hub: Some(2.0 * parameters / 60.0),
            hash: Some(2.0 * parameters / 6.0),
            memory: Some(parameters * 2.3),
        };
        let capacity = rates.capacity(&competition, LOAD);
        assert!((capacity.evaluated_per_hour.unwrap() - 180.0).abs() < 1e-6);
        assert_eq!(capacity.evaluation_waits_for, "matrix products");
        assert!((capacity.fetched_per_hour.unwrap() - 60.0).abs() < 1e-6);
        assert_eq!(capacity.fetching_waits_for, "download");
        assert_eq!(capacity.fits, Some(true));
        let small = Rates {
            memory: Some(parameters * 2.0),
            hub: None,
            ..rates
        };
        let capacity = small.capacity(&competition, LOAD);
        assert_eq!(capacity.fits, Some(false));
        assert_eq!(capacity.fetched_per_hour, None);
        assert_eq!(capacity.fetching_waits_for, "download");
    }

    proptest! {
        /// A better machine never does less.
        #[test]
        fn more_of_anything_is_never_fewer_models(
            rates in prop::array::uniform4(1.0e3_f64..1e15), which in 0..4_usize, more in 1.0_f64..100.0,
        ) {
            let of = |rates: [f64; 4]| Rates {
                disk: Some(rates[0]),
                hash: Some(rates[1]),
                hub: Some(rates[2]),
                products: Some(rates[3]),
                memory: None,
            };
            let mut better = rates;
            better[which] *= more;
            let (before, after) = (of(rates).capacity(&largest(), LOAD), of(better).capacity(&largest(), LOAD));
            prop_assert!(after.evaluated_per_hour >= before.evaluated_per_hour);
            prop_assert!(after.fetched_per_hour >= before.fetched_per_hour);
        }
    }
}
