//! Where models are made: trained once for a seed, kept on disk, varied by role.

use std::{
    fs,
    path::{Path, PathBuf},
};

use half::bf16;
use model::ContentHash;
use shared::file::{self, FileError};

use super::{
    Family, MinerError, Role,
    checkpoint::{self, Values},
    network::Network,
    training::Training,
    vocabulary::{Encoded, Vocabulary},
};
use crate::{hub::Content, samples};

/// Optimizer steps of the good model, and of the better one from there on.
const STEPS: [usize; 2] = [70, 110];
/// Conversations to train on, and the distance of their seed from that of the feed.
const CONVERSATIONS: usize = 400;
const TRAINING_SEED: u64 = 0x7261_696e;
/// Raised whenever the same seed would make other models.
const GENERATION: u32 = 2;

/// A model folder and, for a model too large to lie in it, its weights.
#[derive(Debug, Clone)]
pub struct Model {
    pub family: Family,
    pub folder: PathBuf,
    giant: Option<Content>,
}

impl Model {
    /// Returns the files as the hub takes them.
    pub fn files(&self) -> Result<Vec<(String, Content)>, MinerError> {
        let failed = |error| MinerError::Folder(self.folder.clone(), error);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let content = if name.ends_with(".safetensors") {
                Content::from_disk(path)?
            } else {
                Content::from(fs::read(&path).map_err(failed)?)
            };
            files.push((name, content));
        }
        files.extend(
            self.giant
                .iter()
                .map(|weights| (WEIGHTS.to_owned(), weights.clone())),
        );
        Ok(files)
    }

    /// Returns the content hash, as a validator would find it.
    pub fn hash(&self) -> Result<ContentHash, MinerError> {
        let digests = self.files()?.into_iter().map(|(name, content)| {
            let mut digest = [0; 32];
            // The hex was written by us and has 64 digits.
            let _ = hex::decode_to_slice(content.sha256(), &mut digest);
            (name, digest)
        });
        Ok(ContentHash::of_files(digests))
    }
}

const WEIGHTS: &str = "model.safetensors";

/// Makes the models of one family.
#[derive(Debug)]
pub struct Workshop {
    family: Family,
    folder: PathBuf,
    vocabulary: Vocabulary,
}

impl Workshop {
    /// Opens the workshop of a family and a seed below `models`, and trains what is not yet there.
    /// `tick` is called after each step of [`Workshop::steps`].
    pub fn open(
        models: &Path,
        family: Family,
        seed: u64,
        mut tick: impl FnMut(),
    ) -> Result<Self, MinerError> {
        let conversations = samples::generate(seed ^ TRAINING_SEED, CONVERSATIONS);
        let vocabulary = Vocabulary::train(family, &conversations)?;
        let name = format!("{}-{seed}-{GENERATION}", family.word());
        let workshop = Self {
            family,
            folder: models.join(name),
            vocabulary,
        };
        if workshop.folder.join(Role::NanWeight.word()).is_dir() {
            (0..Self::steps()).for_each(|_| tick());
            return Ok(workshop);
        }
        let encoded = conversations
            .iter()
            .map(|conversation| workshop.vocabulary.encode(conversation))
            .collect::<Result<Vec<Encoded>, _>>()?;
        let shape = family.tiny(workshop.vocabulary.size());
        let mut training = Training::new(Network::random(family, shape, seed)?, seed)?;
        training.run(&encoded, STEPS[0], &mut tick)?;
        let good = checkpoint::tensors(&training.network)?;
        training.run(&encoded, STEPS[1], &mut tick)?;
        let better = checkpoint::tensors(&training.network)?;
        workshop.save(Role::Better, &training.network, &better)?;
        workshop.save(Role::Good, &training.network, &good)?;
        // Last of all the one whose presence says that all are there.
        for role in [Role::Liar, Role::MadNorms, Role::NanWeight] {
            workshop.save(role, &training.network, &spoiled(role, good.clone()))?;
        }
        Ok(workshop)
    }

    /// Returns the number of training steps.
    pub const fn steps() -> usize {
        STEPS[0] + STEPS[1]
    }

    /// Returns the model of a role.
    pub fn model(&self, role: Role) -> Result<Model, MinerError> {
        let whose = match role {
            Role::Copy | Role::BoundCopy => Role::Good,
            _ => role,
        };
        let folder = self.folder.join(whose.word());
        let giant = match role {
            Role::TooLarge => {
                file::create_dir(&folder)?;
                Some(checkpoint::write_giant(
                    &folder,
                    self.family,
                    &self.vocabulary,
                )?)
            }
            _ => None,
        };
        Ok(Model {
            family: self.family,
            folder,
            giant,
        })
    }

    /// Returns the files of the tokenizer, for the repository that the competition prescribes.
    pub fn tokenizer_files(&self) -> Result<Vec<(String, Content)>, MinerError> {
        let files = self.model(Role::Good)?.files()?;
        let of_tokenizer = |name: &str| name.contains("token") || name == "config.json";
        Ok(files
            .into_iter()
            .filter(|(name, _)| of_tokenizer(name))
            .collect())
    }

    fn save(
        &self,
        role: Role,
        network: &Network,
        tensors: &[(String, Values)],
    ) -> Result<(), MinerError> {
        let folder = self.folder.join(role.word());
        let unfinished = self.folder.join(format!(".{}.unfinished", role.word()));
        checkpoint::write(&unfinished, network, tensors, &self.vocabulary)?;
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(FileError::on("remove", &folder))?;
        }
        Ok(fs::rename(&unfinished, &folder).map_err(FileError::on("rename", &unfinished))?)
    }
}

/// Spoils a model in the way of a role.
fn spoiled(role: Role, mut tensors: Vec<(String, Values)>) -> Vec<(String, Values)> {
    for (name, (_, values)) in &mut tensors {
        match role {
            Role::MadNorms if name.ends_with("layers.1.mlp.down_proj.weight") => {
                for value in values {
                    *value *= bf16::from_f32(400.0);
                }
            }
            Role::NanWeight if name.ends_with("layers.0.self_attn.q_proj.weight") => {
                values[0] = bf16::NAN;
            }
            Role::Liar if name == "lm_head.weight" => values[0] += bf16::from_f32(0.5),
            _ => {}
        }
    }
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_made_once_and_spoiled_by_role() {
        let dir = tempfile::tempdir().unwrap();
        let mut ticks = 0;
        let workshop = Workshop::open(dir.path(), Family::StableLm, 3, || ticks += 1).unwrap();
        assert_eq!(ticks, Workshop::steps());
        let hash = |role| workshop.model(role).unwrap().hash().unwrap();
        let good = hash(Role::Good);
        assert_eq!(
            good,
            ContentHash::of_directory(&workshop.folder.join("good")).unwrap()
        );
        assert_eq!(good, hash(Role::Copy));
        for other in [
            Role::Better,
            Role::Liar,
            Role::TooLarge,
            Role::MadNorms,
            Role::NanWeight,
        ] {
            assert_ne!(good, hash(other), "{other}");
        }
        let tensors = |role: Role| {
            let path = workshop.folder.join(role.word()).join(WEIGHTS);
            candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap()
        };
        let norm = |role| -> f32 {
            let tensor = &tensors(role)["model.layers.1.mlp.down_proj.weight"];
            let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
            tensor
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap()
                .sqrt()
                .unwrap()
                .to_scalar()
                .unwrap()
        };
        assert!(norm(Role::Good) < 100.0, "{}", norm(Role::Good));
        assert!(norm(Role::MadNorms) > 1000.0, "{}", norm(Role::MadNorms));

        let before = fs::metadata(workshop.folder.join("good"))
            .unwrap()
            .modified()
            .unwrap();
        let again = Workshop::open(dir.path(), Family::StableLm, 3, || ()).unwrap();
        let after = fs::metadata(again.folder.join("good"))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn the_giants_headers_exceed_their_limits() {
        let dir = tempfile::tempdir().unwrap();
        let conversations = samples::generate(1, 50);
        for family in Family::ALL {
            let vocabulary = Vocabulary::train(family, &conversations).unwrap();
            let weights = checkpoint::write_giant(dir.path(), family, &vocabulary).unwrap();
            let Content::Virtual { head, size, .. } = weights else {
                panic!("not virtual")
            };
            let header = model::header::Header::parse(&head[8..], size).unwrap();
            let parameters: u64 = header
                .tensors()
                .values()
                .map(model::header::TensorInfo::elements)
                .sum();
            assert!(parameters > family.max_parameters(), "{parameters}");
            assert!(size < 15 << 30, "{size}");
        }
    }
}
