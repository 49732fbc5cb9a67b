//! Converts a SentencePiece model (`tokenizer.model`) as transformers does for the Llama and
//! Gemma families.

use std::collections::HashMap;

use model::Fault;
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders},
    models::{bpe::BPE, unigram::Unigram},
    normalizers::{NormalizerWrapper, Prepend, Replace, Sequence},
};

use super::{Vocabulary, refused};

/// How SentencePiece writes a space.
const SPACE: &str = "▁";

/// Gemma's vocabulary knows a tab by itself, not as a byte.
const TAB_BYTE: &str = "<0x09>";

/// Longer pieces are refused: finding their merges takes quadratic time.
const MAX_PIECE: usize = 512;

/// What matters of a `tokenizer.model`.
#[derive(Debug, Default, PartialEq)]
struct PieceModel {
    pieces: Vec<(String, f32)>,
    kind: u64,
    unknown: Option<String>,
    user_defined: Vec<String>,
}

/// Makes a tokenizer of the bytes of a `tokenizer.model`.
pub(super) fn convert(bytes: &[u8], gemma: bool) -> Result<Tokenizer, Fault> {
    let mut model = PieceModel::read(bytes)?;
    let mut special: Vec<String> = model
        .pieces
        .iter()
        .take(3)
        .map(|(piece, _)| piece.clone())
        .collect();
    if special.len() < 3 {
        return Err(refused("tokenizer.model has less than three pieces"));
    }
    model
        .pieces
        .iter_mut()
        .take(3)
        .for_each(|(_, score)| *score = 0.0);
    if gemma {
        special = ["<pad>", "<eos>", "<bos>"].map(str::to_owned).into();
        for (piece, name) in model.pieces.iter_mut().zip(&special) {
            piece.0.clone_from(name);
        }
        special.push("<unk>".to_owned());
        for (piece, _) in model
            .pieces
            .iter_mut()
            .filter(|(piece, _)| piece == TAB_BYTE)
        {
            "\t".clone_into(piece);
        }
    }
    let user_defined = std::mem::take(&mut model.user_defined);
    let is_bpe = model.kind == 2;
    let mut tokenizer = match model.kind {
        // Unset means the default, which is the first.
        0 | 1 => unigram(model)?,
        2 => bpe(model)?,
        _ => return Err(refused("tokenizer.model is neither BPE nor unigram")),
    };
    if is_bpe {
        let special = special
            .into_iter()
            .map(|token| AddedToken::from(token, true));
        tokenizer.add_special_tokens(special).map_err(refused)?;
    }
    if gemma {
        let tokens = user_defined
            .into_iter()
            .map(|token| AddedToken::from(token, false).normalized(false));
        tokenizer.add_tokens(tokens).map_err(refused)?;
    }
    let spaces = NormalizerWrapper::from(Replace::new(" ", SPACE).map_err(refused)?);
    let normalizers = if gemma {
        vec![spaces]
    } else {
        vec![Prepend::new(SPACE.to_owned()).into(), spaces]
    };
    tokenizer
        .with_normalizer(Some(Sequence::new(normalizers)))
        .map_err(refused)?;
    tokenizer.with_decoder(Some(Decoders::new(vec![
        Replace::new(SPACE, " ").map_err(refused)?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ])));
    Ok(tokenizer)
}

/// Returns the pieces of a `tokenizer.model` with their ids, and the merges they imply.
pub(super) fn words(bytes: &[u8]) -> Result<Vocabulary, Fault> {
    let model = PieceModel::read(bytes)?;
    let merges = merges(&model.pieces);
    let words = model.pieces.into_iter().zip(0..);
    Ok((words.map(|((piece, _), id)| (piece, id)).collect(), merges))
}

fn unigram(model: PieceModel) -> Result<Tokenizer, Fault> {
    let pieces = model
        .pieces
        .into_iter()
        .map(|(piece, score)| (piece, f64::from(score)));
    let unigram = Unigram::from(pieces.collect(), Some(0), true).map_err(refused)?;
    Ok(Tokenizer::new(unigram))
}

fn bpe(model: PieceModel) -> Result<Tokenizer, Fault> {
    let merges = merges(&model.pieces);
    let vocabulary: Vec<(String, u32)> = model
        .pieces
        .into_iter()
        .zip(0..)
        .map(|((piece, _), id)| (piece, id))
        .collect();
    let bpe = BPE::builder()
        .vocab_and_merges(
            vocabulary
                .into_iter()
                .collect::<tokenizers::models::bpe::Vocab>(),
            merges,
        )
        .unk_token(model.unknown.unwrap_or_else(|| "<unk>".to_owned()))
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(refused)?;
    Ok(Tokenizer::new(bpe))
}

/// Returns the merges that a vocabulary implies: each piece from any two others, pieces of high
/// score first, then by the ids of the parts.
fn merges(pieces: &[(String, f32)]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = pieces
        .iter()
        .enumerate()
        .map(|(id, (piece, _))| (piece.as_str(), id))
        .collect();
    let mut merges = Vec::new();
    for (id, (piece, score)) in pieces.iter().enumerate() {
        // Of pieces that occur twice, the last counts.
        if ids.get(piece.as_str()) != Some(&id) {
            continue;
        }
        let mut parts: Vec<(usize, usize, &str, &str)> = piece
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = piece.split_at(at);
                Some((*ids.get(left)?, *ids.get(right)?, left, right))
            })
            .collect();
        parts.sort_unstable();
        merges.extend(
            parts
                .into_iter()
                .map(|(_, _, left, right)| (*score, left, right)),
        );
    }
    merges.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    merges
        .into_iter()
        .map(|(_, left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}

impl PieceModel {
    fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let model = Self::parse(bytes)
            .ok_or_else(|| refused("tokenizer.model is not a SentencePiece model"))?;
        let too_long = |(piece, _): &(String, f32)| piece.len() > MAX_PIECE;
        if model.pieces.iter().any(too_long) {
            return Err(refused(
                "tokenizer.model has a piece of more than 512 bytes",
            ));
        }
        Ok(model)
    }

    /// Parses the protocol buffer; `None` if it is none.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut model = Self::default();
        for field in ProtoFields(bytes) {
            match field? {
                (1, Content::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Content::Bytes(spec)) => model.parse_trainer_spec(spec)?,
                _ => {}
            }
        }
        Some(model)
    }

    fn parse_trainer_spec(&mut self, spec: &[u8]) -> Option<()> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        for field in ProtoFields(spec) {
            match field? {
                (3, Content::Number(kind)) => self.kind = kind,
                (31, Content::Bytes(symbol)) => self.user_defined.push(text(symbol)?),
                (45, Content::Bytes(piece)) => self.unknown = Some(text(piece)?),
                _ => {}
            }
        }
        Some(())
    }
}

fn parse_piece(bytes: &[u8]) -> Option<(String, f32)> {
    let (mut piece, mut score) = (String::new(), 0.0);
    for field in ProtoFields(bytes) {
        match field? {
            (1, Content::Bytes(text)) => piece = String::from_utf8(text.to_vec()).ok()?,
            (2, Content::Four(bits)) => score = f32::from_le_bytes(bits),
            _ => {}
        }
    }
    Some((piece, score))
}

/// The content of a field of a protocol buffer.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

/// The fields of a protocol buffer: number and content, `None` where it is malformed.
struct ProtoFields<'a>(&'a [u8]);

impl<'a> Iterator for ProtoFields<'a> {
    type Item = Option<(u64, Content<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> ProtoFields<'a> {
    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let key = self.number()?;
        let content = match key & 7 {
            0 => Content::Number(self.number()?),
            1 => self.take(8).map(|_| Content::Eight)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Four(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((key >> 3, content))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn merges_come_by_score_then_by_the_ids_of_their_parts() {
        let pieces = ["a", "b", "c", "ab", "bc", "abc"]
            .into_iter()
            .zip([0.0, 0.0, 0.0, -2.0, -1.0, -3.0])
            .map(|(piece, score)| (piece.to_owned(), score))
            .collect::<Vec<_>>();
        let merges: Vec<String> = merges(&pieces)
            .into_iter()
            .map(|(left, right)| format!("{left}+{right}"))
            .collect();
        assert_eq!(merges, ["b+c", "a+b", "a+bc", "ab+c"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_model_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = PieceModel::parse(&bytes);
            let _ = convert(&bytes, false);
        }
    }
}
