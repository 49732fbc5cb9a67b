//! Samples from files of this machine: a file, the `.jsonl` files of a folder, or a pattern.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::{harvest::Harvest, text::TextReader};
use subnet::Fault;

/// More files than this in a folder or pattern is a mistake.
const MAX_FILES: usize = 10_000;
/// What is read of all files together.
const MAX_BYTES: u64 = 1 << 30;

/// Reads the records of all files, in order of their names.
pub fn fetch(spec: &str) -> Result<Harvest, Fault> {
    let mut harvest = Harvest::default();
    let mut left = MAX_BYTES;
    for path in files(spec)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut reader = TextReader::onto(harvest, format!("jsonl:{name}"));
        let result = read(&path, &mut reader, &mut left);
        harvest = reader.finish();
        if let Err(error) = result {
            harvest.note(format_args!("{}: {error}", path.display()));
        }
    }
    Ok(harvest)
}

fn files(spec: &str) -> Result<Vec<PathBuf>, Fault> {
    let path = Path::new(spec);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let pattern = if path.is_dir() {
        format!("{}/**/*.jsonl", glob::Pattern::escape(spec))
    } else {
        spec.into()
    };
    let found = glob::glob(&pattern)
        .map_err(|error| Fault::config(format!("samples pattern {spec:?}: {error}")))?;
    let mut files: Vec<PathBuf> = found
        .filter_map(Result::ok)
        .filter(|path| path.is_file())
        .take(MAX_FILES)
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Fault::config(format!("no sample files at {spec:?}")));
    }
    Ok(files)
}

fn read(path: &Path, reader: &mut TextReader, left: &mut u64) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    loop {
        let chunk = file.fill_buf()?;
        let length = chunk.len();
        if length == 0 {
            return Ok(());
        }
        *left = left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::other(format!("stopped at {} MiB of samples", MAX_BYTES >> 20))
        })?;
        reader.push(chunk);
        file.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_a_folder_and_a_pattern_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            shared::file::write_atomic(&dir.path().join(name), text.as_bytes()).unwrap();
        };
        write("b.jsonl", "{\"prompt\":\"2\",\"response\":\"r\"}");
        write("a.jsonl", "{\"prompt\":\"1\",\"response\":\"r\"}\n");
        write(
            "sub/c.jsonl",
            "\n{\"prompt\":\"3\",\"response\":\"r\"}\n\u{1}\n",
        );
        write("d.txt", "{}");
        let count = |spec: &str| {
            fetch(&dir.path().join(spec).display().to_string()).map(|h| h.records.len())
        };
        assert_eq!(count(""), Ok(3));
        assert_eq!(count("a.jsonl"), Ok(1));
        assert_eq!(count("?.jsonl"), Ok(2));
        assert!(
            count("none*")
                .unwrap_err()
                .to_string()
                .contains("no sample files")
        );
    }
}
