//! The keys of the release channel: made, read, and used to sign.

use std::{
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use shared::{causes::one_line, file};
use zipsign_api::{PUBLIC_KEY_LENGTH, SigningKey, sign::copy_and_sign_tar};

use crate::error::{Blame, Fault};

const MAX_KEY: u64 = 1 << 16;

pub(crate) fn public_key(path: &Path) -> Result<[u8; PUBLIC_KEY_LENGTH], Fault> {
    let config = |why: String| {
        Fault::new(
            Blame::Config,
            format!("release key {}: {why}", path.display()),
        )
    };
    let bytes = file::read_limited(path, MAX_KEY)
        .map_err(|error| config(one_line(&error)))?
        .ok_or_else(|| config("no such file".into()))?;
    bytes
        .try_into()
        .map_err(|_| config("not a public key of 32 bytes".into()))
}

pub(crate) fn signing_key(path: &Path) -> Result<SigningKey, Fault> {
    let config = |why: String| {
        Fault::new(
            Blame::Config,
            format!("signing key {}: {why}", path.display()),
        )
    };
    let bytes = file::read_limited(path, MAX_KEY)
        .map_err(|error| config(one_line(&error)))?
        .ok_or_else(|| config("no such file".into()))?;
    let pair = bytes
        .try_into()
        .map_err(|_| config("not a key pair of 64 bytes".into()))?;
    SigningKey::from_keypair_bytes(&pair).map_err(|error| config(error.to_string()))
}

/// Makes a key pair: `path` for signing, `path.pub` for `--release-key`.
pub(crate) fn new_key(path: &Path) -> Result<PathBuf, Fault> {
    if path.exists() {
        return Err(Fault::new(
            Blame::Config,
            format!("{} exists already", path.display()),
        ));
    }
    let key = SigningKey::from_bytes(&rand::random());
    file::write_atomic_private(path, &key.to_keypair_bytes())?;
    let public = path.with_added_extension("pub");
    file::write_atomic(&public, key.verifying_key().as_bytes())?;
    Ok(public)
}

/// Signs an archive in place and writes its checksum beside it.
pub(crate) fn sign(archive: &Path, key: &Path) -> Result<(), Fault> {
    let keys = zipsign_api::sign::read_signing_keys([File::open(key)])
        .map_err(|error| Fault::machine(&error))?;
    let name = archive.file_name().unwrap_or_default().as_encoded_bytes();
    let folder = archive
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    let mut signed = tempfile::NamedTempFile::new_in(folder)?;
    copy_and_sign_tar(
        &mut File::open(archive)?,
        signed.as_file_mut(),
        &keys,
        Some(name),
    )
    .map_err(|error| Fault::machine(&error))?;
    signed.as_file_mut().rewind()?;
    let mut bytes = Vec::new();
    signed.as_file_mut().read_to_end(&mut bytes)?;
    file::write_atomic(archive, &bytes)?;
    let line = format!(
        "{}  {}\n",
        hex::encode(Sha256::digest(&bytes)),
        String::from_utf8_lossy(name)
    );
    file::write_atomic(&archive.with_added_extension("sha256"), line.as_bytes())?;
    Ok(())
}
