//! The git remote: a bare repository with the project's own source, whose commits are signed.

mod serve;

use std::path::{Path, PathBuf};

use git2::{
    FileMode, ObjectType, Oid, Repository, RepositoryInitOptions, ResetType, Signature, Time,
    build::TreeUpdateBuilder,
};
use shared::{Exit, Failure, clock, file};
use ssh_key::{HashAlg, LineEnding, PrivateKey, private::Ed25519Keypair};

use crate::http::{Bound, Faults, Server};

/// The branch everything happens on.
pub const BRANCH: &str = "main";
const SIGNER: &str = "localnet@localhost";

/// Where the source comes from and where the remote goes.
#[derive(Debug, Clone)]
pub struct Origin {
    source: PathBuf,
    folder: PathBuf,
}

impl Origin {
    /// Takes the last commit of the checkout `source`; the remote will lie in `folder`.
    pub fn new(source: &Path, folder: &Path) -> Self {
        Self {
            source: source.to_owned(),
            folder: folder.to_owned(),
        }
    }
}

/// A running remote. Dropping it closes its port; the repository stays where it is.
pub struct Remote {
    /// Faults and traffic of the HTTP side.
    pub server: Server,
    path: PathBuf,
    key: PrivateKey,
    allowed_signers: PathBuf,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What a git operation failed at.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// libgit2 said no.
    #[error("git: could not {action}")]
    Git {
        action: &'static str,
        source: git2::Error,
    },
    /// A commit could not be signed.
    #[error("could not sign a commit")]
    Sign(#[source] ssh_key::Error),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] file::FileError),
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        Self::of(Exit::Machine, &error)
    }
}

fn git(action: &'static str) -> impl FnOnce(git2::Error) -> RemoteError {
    move |source| RemoteError::Git { action, source }
}

impl Remote {
    /// Makes the repository anew from the last commit of the source, and serves it on `port`.
    pub async fn start(port: u16, origin: Origin) -> Result<Self, Failure> {
        let bound = Bound::take(port, "the git remote").await?;
        let path = origin.folder.join("remote.git");
        let key = PrivateKey::from(
            Ed25519Keypair::from_seed(b"the one who signs for localnet..").clone(),
        );
        let allowed_signers = origin.folder.join("allowed_signers");
        let public = key.public_key().to_openssh().map_err(RemoteError::Sign)?;
        let line = format!("{SIGNER} namespaces=\"git\" {public}\n");
        file::write_atomic(&allowed_signers, line.as_bytes()).map_err(RemoteError::File)?;
        if path.exists() {
            std::fs::remove_dir_all(&path)
                .map_err(|error| RemoteError::File(file::FileError::on("remove", &path)(error)))?;
        }
        let server = bound.serve("git", serve::router(path.clone()), Faults::default());
        let remote = Self {
            server,
            path,
            key,
            allowed_signers,
        };
        remote.import(&origin.source)?;
        Ok(remote)
    }

    /// Returns the repository's `file://` URL.
    pub fn file_url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Returns the repository's HTTP URL.
    pub fn http_url(&self) -> String {
        format!("{}/remote.git", self.server.url())
    }

    /// Returns the bare repository's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file that lists who may sign, in git's `allowed_signers` format.
    pub fn allowed_signers(&self) -> &Path {
        &self.allowed_signers
    }

    /// Returns the newest commit of the branch.
    pub fn tip(&self) -> Result<String, RemoteError> {
        let repository = self.open()?;
        let tip = repository
            .refname_to_id(&branch())
            .map_err(git("find the branch"))?;
        Ok(tip.to_string())
    }

    /// Commits changed files onto the branch, signed; returns the new commit.
    pub fn push(&self, message: &str, files: &[(&str, &[u8])]) -> Result<String, RemoteError> {
        self.push_as(message, files, true)
    }

    /// Commits changed files onto the branch without a signature, as an intruder would.
    pub fn push_unsigned(
        &self,
        message: &str,
        files: &[(&str, &[u8])],
    ) -> Result<String, RemoteError> {
        self.push_as(message, files, false)
    }

    /// Makes the branch point to another commit: a force-push.
    pub fn reset(&self, commit: &str) -> Result<(), RemoteError> {
        let repository = self.open()?;
        let target = Oid::from_str(commit).map_err(git("read a commit's hash"))?;
        repository
            .reference(&branch(), target, true, "force-push")
            .map_err(git("move the branch"))?;
        Ok(())
    }

    /// Returns a file's text at the tip.
    pub fn read(&self, file: &str) -> Result<String, RemoteError> {
        let repository = self.open()?;
        let read = || {
            let tip = repository.find_commit(repository.refname_to_id(&branch())?)?;
            let entry = tip.tree()?.get_path(Path::new(file))?;
            let blob = repository.find_blob(entry.id())?;
            Ok(String::from_utf8_lossy(blob.content()).into_owned())
        };
        read().map_err(git("read a file at the tip"))
    }

    /// Clones the remote as an operator does, or brings an earlier clone to the remote's tip;
    /// updates come from its `file://` URL.
    pub fn clone_to(&self, folder: &Path) -> Result<(), RemoteError> {
        let url = self.file_url();
        let bring = || {
            let clone = match Repository::open(folder) {
                Ok(clone) => {
                    clone.remote_set_url("origin", &url)?;
                    clone.find_remote("origin")?.fetch(&[BRANCH], None, None)?;
                    clone
                }
                Err(_) => Repository::clone(&url, folder)?,
            };
            let tip = clone.revparse_single(&format!("refs/remotes/origin/{BRANCH}"))?;
            clone.reset(&tip, ResetType::Hard, None)
        };
        bring().map_err(git("clone the remote"))
    }

    fn open(&self) -> Result<Repository, RemoteError> {
        Repository::open_bare(&self.path).map_err(git("open the remote"))
    }

    /// Copies the files of the source's last commit; its history stays behind.
    fn import(&self, source: &Path) -> Result<(), Failure> {
        let source = Repository::discover(source).map_err(|error| {
            Failure::of(Exit::Config, &error)
                .because(format_args!("{} is in no git repository", source.display()))
                .hint("run localnet in a checkout of the project, or name one with --source")
        })?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).initial_head(BRANCH);
        let repository =
            Repository::init_opts(&self.path, &options).map_err(git("make the remote"))?;
        let copy = || {
            let head = source.head()?.peel_to_commit()?;
            copy_tree(&source, &repository, head.tree_id())?;
            Ok((head.tree_id(), head.time()))
        };
        // With the time of the original, the same source is the same commit in every remote.
        let (tree, time) = copy().map_err(git("copy the source"))?;
        self.commit(&repository, "Import the project", tree, time, true)?;
        Ok(())
    }

    fn push_as(
        &self,
        message: &str,
        files: &[(&str, &[u8])],
        signed: bool,
    ) -> Result<String, RemoteError> {
        let repository = self.open()?;
        let update = || {
            let tip = repository.find_commit(repository.refname_to_id(&branch())?)?;
            let mut builder = TreeUpdateBuilder::new();
            for (path, bytes) in files {
                builder.upsert(*path, repository.blob(bytes)?, FileMode::Blob);
            }
            builder.create_updated(&repository, &tip.tree()?)
        };
        let tree = update().map_err(git("change files"))?;
        let seconds = i64::try_from(clock::unix_seconds()).unwrap_or(0);
        self.commit(&repository, message, tree, Time::new(seconds, 0), signed)
    }

    fn commit(
        &self,
        repository: &Repository,
        message: &str,
        tree: Oid,
        time: Time,
        signed: bool,
    ) -> Result<String, RemoteError> {
        let buffer = || {
            let author = Signature::new("localnet", SIGNER, &time)?;
            let parent = repository.refname_to_id(&branch()).ok();
            let parent = parent.map(|id| repository.find_commit(id)).transpose()?;
            let parents: Vec<_> = parent.iter().collect();
            let tree = repository.find_tree(tree)?;
            let message = format!("{message}\n");
            repository.commit_create_buffer(&author, &author, &message, &tree, &parents)
        };
        let buffer = buffer().map_err(git("write a commit"))?;
        let text = buffer.as_str().unwrap_or_default();
        let id = if signed {
            let signature = self
                .key
                .sign("git", HashAlg::Sha512, text.as_bytes())
                .and_then(|signature| signature.to_pem(LineEnding::LF))
                .map_err(RemoteError::Sign)?;
            repository.commit_signed(text, signature.trim_end(), None)
        } else {
            repository
                .odb()
                .and_then(|odb| odb.write(ObjectType::Commit, text.as_bytes()))
        };
        let id = id.map_err(git("write a commit"))?;
        repository
            .reference(&branch(), id, true, "push")
            .map_err(git("move the branch"))?;
        Ok(id.to_string())
    }
}

fn branch() -> String {
    format!("refs/heads/{BRANCH}")
}

fn copy_tree(from: &Repository, to: &Repository, id: Oid) -> Result<(), git2::Error> {
    let (from_odb, to_odb) = (from.odb()?, to.odb()?);
    for entry in &from.find_tree(id)? {
        match entry.kind() {
            Some(ObjectType::Tree) => copy_tree(from, to, entry.id())?,
            Some(ObjectType::Blob) => {
                to_odb.write(ObjectType::Blob, from_odb.read(entry.id())?.data())?;
            }
            // A submodule's commit lies in another repository.
            _ => {}
        }
    }
    to_odb.write(ObjectType::Tree, from_odb.read(id)?.data())?;
    Ok(())
}
