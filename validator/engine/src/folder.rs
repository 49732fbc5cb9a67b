//! The folder of a model on disk, as the rule of which files count wants to see it.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use model::{
    Fault, MachineFaultKind, ModelFaultKind,
    layout::{LayoutError, ModelFiles},
};
use shared::file;

/// A folder with the files of a model.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a>(&'a Path);

impl<'a> Folder<'a> {
    /// Opens a folder.
    ///
    /// # Errors
    /// The machine's fault if it is not there.
    pub fn open(path: &'a Path) -> Result<Self, Fault> {
        if path.is_dir() {
            return Ok(Self(path));
        }
        let text = format_args!("{} is not a directory", path.display());
        Err(Fault::machine(MachineFaultKind::Storage, text))
    }

    /// Returns the place of a file in it.
    pub fn file(self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl ModelFiles for Folder<'_> {
    type Error = Fault;

    fn contains(&self, path: &str) -> bool {
        // Opening a pipe would wait for ever.
        self.file(path).is_file()
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Cow<'_, [u8]>, Fault> {
        match file::read_limited(&self.file(path), max_bytes) {
            Ok(Some(bytes)) => Ok(Cow::Owned(bytes)),
            Ok(None) => Err(Fault::model(
                ModelFaultKind::Config,
                format_args!("{path} is missing"),
            )),
            Err(error) if error.source.kind() == std::io::ErrorKind::FileTooLarge => {
                let text = format_args!("{path}: {}", error.source);
                Err(Fault::model(ModelFaultKind::Config, text))
            }
            Err(error) => {
                let text = format_args!("{error}: {}", error.source);
                Err(Fault::machine(MachineFaultKind::Storage, text))
            }
        }
    }
}

/// Says whose fault it is that a folder has no layout.
pub(crate) fn fault_of_layout(error: LayoutError<Fault>) -> Fault {
    match error {
        LayoutError::Read(fault) => fault,
        LayoutError::Config(defect) => Fault::model(ModelFaultKind::Config, defect),
        LayoutError::Weights(defect) => Fault::model(ModelFaultKind::Weights, defect),
    }
}
