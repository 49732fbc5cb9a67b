//! Training: next-token prediction on the responses of our samples, for seconds on a CPU.

use candle_core::{Device, Result, Tensor};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use rand::{SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{network::Network, vocabulary::Encoded};

/// Conversations per step: so few that candle runs each operation on one thread. From 65,536
/// elements on it spreads them over threads that wait for each other by spinning, which on a busy
/// machine takes ten times as long as the work.
const BATCH: usize = 2;
const LEARNING_RATE: f64 = 3e-3;

/// A training run that can be stopped, looked at and continued.
#[derive(Debug)]
pub struct Training {
    /// The network as trained so far.
    pub network: Network,
    optimizer: AdamW,
    random: ChaCha8Rng,
}

impl Training {
    /// Starts to train a network; the seed decides the order of the conversations.
    pub fn new(network: Network, seed: u64) -> Result<Self> {
        let parameters = ParamsAdamW {
            lr: LEARNING_RATE,
            weight_decay: 0.0,
            ..ParamsAdamW::default()
        };
        let optimizer = AdamW::new(network.weights.values().cloned().collect(), parameters)?;
        Ok(Self {
            network,
            optimizer,
            random: ChaCha8Rng::seed_from_u64(seed),
        })
    }

    /// Takes `steps` optimizer steps; returns the mean loss of the last one. `tick` is called
    /// after each step.
    pub fn run(
        &mut self,
        conversations: &[Encoded],
        steps: usize,
        mut tick: impl FnMut(),
    ) -> Result<f32> {
        let mut last = f32::NAN;
        for _ in 0..steps {
            let chosen: Vec<&Encoded> = conversations
                .choose_multiple(&mut self.random, BATCH)
                .collect();
            let loss = loss(&self.network, &chosen)?;
            self.optimizer.backward_step(&loss)?;
            last = loss.to_scalar()?;
            tick();
        }
        Ok(last)
    }
}

/// Returns the mean loss over all response tokens of these conversations, as a scalar tensor.
pub fn loss(network: &Network, conversations: &[&Encoded]) -> Result<Tensor> {
    let length = conversations
        .iter()
        .map(|one| one.ids.len())
        .max()
        .unwrap_or(1);
    let mut ids: Vec<u32> = Vec::with_capacity(conversations.len() * length);
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (index, one) in conversations.iter().enumerate() {
        // Padding stands to the right, where no real position looks.
        ids.extend(&one.ids);
        ids.resize((index + 1) * length, 0);
        for position in one.prompt_length.max(1)..one.ids.len() {
            rows.push((index * length + position - 1) as u32);
            targets.push(one.ids[position]);
        }
    }
    let count = rows.len();
    let ids = Tensor::from_vec(ids, (conversations.len(), length), &Device::Cpu)?;
    let rows = Tensor::from_vec(rows, count, &Device::Cpu)?;
    let targets = Tensor::from_vec(targets, count, &Device::Cpu)?;
    candle_nn::loss::cross_entropy(&network.logits(&ids, &rows)?, &targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        miners::{family::Family, vocabulary::Vocabulary},
        samples,
    };

    #[test]
    fn more_steps_predict_better() {
        let conversations = samples::generate(1, 300);
        for family in Family::ALL {
            let vocabulary = Vocabulary::train(family, &conversations).unwrap();
            let encode = |conversations: &[samples::Conversation]| -> Vec<Encoded> {
                conversations
                    .iter()
                    .map(|one| vocabulary.encode(one).unwrap())
                    .collect()
            };
            let encoded = encode(&conversations);
            let unseen = encode(&samples::generate(2, 12));
            let unseen: Vec<&Encoded> = unseen.iter().collect();
            let network = Network::random(family, family.tiny(vocabulary.size()), 1).unwrap();
            let mut training = Training::new(network, 1).unwrap();
            let judge = |training: &Training| -> f32 {
                let loss = |few| {
                    loss(&training.network, few)
                        .unwrap()
                        .to_scalar::<f32>()
                        .unwrap()
                };
                unseen.chunks(2).map(loss).sum::<f32>() / 6.0
            };
            let fresh = judge(&training);
            training.run(&encoded, 30, || {}).unwrap();
            let trained = judge(&training);
            training.run(&encoded, 60, || {}).unwrap();
            let better = judge(&training);
            assert!(fresh - trained > 0.5, "{family:?}: {fresh} -> {trained}");
            assert!(trained - better > 0.3, "{family:?}: {trained} -> {better}");
        }
    }
}
