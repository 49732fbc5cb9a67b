use std::io::Write;

use model::norms::FileNorms;
use proptest::prelude::*;

use super::*;

/// A file of three tensors of different dtypes, none of them aligned, and an empty one.
fn odd_file() -> (Vec<u8>, Header) {
    let json = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F64","shape":[3],"data_offsets":[0,24]},
        "empty":{"dtype":"F32","shape":[0,5],"data_offsets":[24,24]},
        "b":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},
        "c":{"dtype":"F32","shape":[2,2],"data_offsets":[34,50]}}"#;
    let mut file = start_of(json);
    file.extend([1.5_f64, -2.25, 1e30].iter().flat_map(|x| x.to_le_bytes()));
    file.extend(
        [1.0_f32, 2.0, 3.0, 4.0, 5.0]
            .iter()
            .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()),
    );
    file.extend(
        [6.0_f32, 7.0, 8.0, f32::INFINITY]
            .iter()
            .flat_map(|x| x.to_le_bytes()),
    );
    let header = Header::parse(json.as_bytes(), file.len() as u64).unwrap();
    (file, header)
}

fn start_of(json: &str) -> Vec<u8> {
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.as_bytes());
    file
}

proptest! {
    #[test]
    fn elements_arrive_whole_and_once_whatever_the_blocks(block in 1_u64..400) {
        let (file, header) = odd_file();
        let mut asked = Vec::new();
        let blocks = cut_by(block, &header, |name, elements| {
            asked.push((name.to_owned(), elements.clone()));
            Some((name.to_owned(), elements.start))
        });
        prop_assert_eq!(blocks.len() as u64, header.file_bytes().div_ceil(block));
        let mut found: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for (number, pieces) in blocks.into_iter().enumerate() {
            let bytes = &file[number * block as usize..];
            for piece in pieces {
                prop_assert!(piece.bytes.start < block as usize);
                prop_assert!(piece.bytes.end <= block as usize + BEYOND);
                let (name, first) = piece.place.unwrap();
                let values = found.entry(name).or_default();
                prop_assert_eq!(values.len(), first);
                values.resize(first + piece.bytes.len() / piece.dtype.bytes() as usize, 0.0);
                convert(piece.dtype, &bytes[piece.bytes], &mut values[first..]);
            }
        }
        prop_assert_eq!(&found["a"], &[1.5, -2.25, 1e30]);
        prop_assert_eq!(&found["b"], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        prop_assert_eq!(&found["c"], &[6.0, 7.0, 8.0, f32::INFINITY]);
        prop_assert_eq!(found.len(), 3, "nothing is asked of an empty one: {:?}", asked);
    }
}

/// Keeps what it is given, in the order of the file.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<usize, Vec<u8>>>);

impl Destination for Kept {
    type Buffer = Vec<u8>;
    type Place = usize;

    fn buffer(&self) -> Result<Vec<u8>, Fault> {
        Ok(vec![0xee; BLOCK + BEYOND])
    }

    fn writable<'a>(&self, buffer: &'a mut Vec<u8>) -> Result<&'a mut [u8], Fault> {
        Ok(buffer)
    }

    fn bytes<'a>(&self, buffer: &'a Vec<u8>) -> Result<&'a [u8], Fault> {
        Ok(buffer)
    }

    fn put(
        &self,
        buffer: &mut Vec<u8>,
        pieces: Vec<(Dtype, Range<usize>, usize)>,
    ) -> Result<(), Fault> {
        for (_, bytes, place) in pieces {
            if place == usize::MAX {
                return Err(Fault::machine(MachineFaultKind::Device, "no room"));
            }
            lock(&self.0).insert(place, buffer[bytes].to_vec());
        }
        Ok(())
    }
}

/// A file of several blocks whose numbers begin at an odd byte, with a projection in the middle.
fn large_file() -> (tempfile::NamedTempFile, Vec<u8>, Header) {
    const NUMBERS: usize = 3 << 20;
    let bytes = NUMBERS * 4;
    let json = format!(
        r#"{{"x":{{"dtype":"F16","shape":[1],"data_offsets":[0,2]}},
        "model.layers.0.mlp.up_proj.weight":{{"dtype":"F32","shape":[{NUMBERS}],"data_offsets":[2,{}]}}}}"#,
        bytes + 2
    );
    let odd = if json.len().is_multiple_of(2) {
        " "
    } else {
        ""
    };
    let mut content = start_of(&(json + odd));
    let header_bytes = content.len() - 8;
    content.extend([0, 0x3c]);
    content.extend((0..NUMBERS).flat_map(|i| (i as f32).to_le_bytes()));
    let header = Header::parse(&content[8..8 + header_bytes], content.len() as u64).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&content).unwrap();
    (file, content, header)
}

fn source<'a>(file: &'a File, header: &'a Header, no_room: bool) -> Source<'a, usize> {
    let blocks = cut(header, |name, elements| {
        let first = usize::from(name != "x") + elements.start;
        Some(if no_room { usize::MAX } else { first })
    });
    Source {
        file,
        header,
        blocks,
    }
}

#[test]
fn many_readers_find_what_one_pass_finds() {
    let (file, content, header) = large_file();
    let mut norms = FileNorms::new(&header);
    norms.update(&content);
    let norms: Vec<_> = norms.finish().unwrap().iter().collect();
    for threads in [1, 2, 5, 9] {
        let kept = Kept::default();
        let sources = (0..3)
            .map(|_| source(file.as_file(), &header, false))
            .collect();
        let told = std::sync::atomic::AtomicU64::new(0);
        let tell = |bytes| {
            told.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        let streamed = read(sources, &kept, threads, &tell).unwrap();
        assert_eq!(told.into_inner(), 3 * content.len() as u64);
        assert_eq!(streamed.len(), 3);
        for streamed in streamed {
            assert_eq!(streamed.bytes, content.len() as u64);
            assert_eq!(streamed.digest, <[u8; 32]>::from(Sha256::digest(&content)));
            let found: Vec<_> = streamed.norms.iter().collect();
            assert_eq!((found[0].0, found[0].1), (norms[0].0, norms[0].1));
            assert!((found[0].2 / norms[0].2 - 1.0).abs() < 1e-12);
        }
        let kept: Vec<u8> = kept
            .0
            .into_inner()
            .unwrap()
            .into_values()
            .flatten()
            .collect();
        assert!(kept == content[header.data_start() as usize..]);
    }
}

#[test]
fn a_failure_ends_all_threads_and_is_the_machines() {
    let (file, _, header) = large_file();
    let no_room = vec![source(file.as_file(), &header, true)];
    let fault = read(no_room, &Kept::default(), 4, &|_| ()).unwrap_err();
    assert!(fault.to_string().contains("no room"), "{fault}");
    // Cut off, or grown, since its header was read.
    for bytes in [header.file_bytes() - 1, header.file_bytes() + 1] {
        file.as_file().set_len(bytes).unwrap();
        let changed = vec![source(file.as_file(), &header, false)];
        let fault = read(changed, &Kept::default(), 4, &|_| ()).unwrap_err();
        assert!(fault.to_string().contains("changed its length"), "{fault}");
    }
}
