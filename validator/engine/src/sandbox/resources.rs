//! The wall around resources: memory, files, threads, core dumps.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::memory::most_of_host;

/// Open files at the same time; a model has at most a few dozen shards.
const MAX_FILES: u64 = 1024;

/// Bytes of the largest file that can be made: the driver's cache has files of megabytes, and shared memory
/// that has a name is a file.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Threads, where they are counted for this process alone: those of pools and drivers are hundreds.
const MAX_THREADS: u64 = 4096;

/// `counted`: whether threads are counted for this process alone, as in a user namespace of its own.
pub(super) fn limit(memory: Option<u64>, counted: bool) -> Result<String, String> {
    let memory = memory.or_else(most_of_host);
    let memory = memory.ok_or_else(|| "the size of memory is not known".to_owned())?;
    let limit = |resource, most: u64| {
        let (_, hard) = getrlimit(resource).map_err(|errno| errno.to_string())?;
        let most = most.min(hard);
        setrlimit(resource, most, most).map_err(|errno| errno.to_string())
    };
    shared::process::no_core_dumps().map_err(|errno| errno.to_string())?;
    limit(Resource::RLIMIT_NOFILE, MAX_FILES)?;
    limit(Resource::RLIMIT_FSIZE, MAX_FILE_BYTES)?;
    limit(Resource::RLIMIT_MSGQUEUE, 0)?;
    // Not the address space: a GPU driver reserves terabytes of it.
    limit(Resource::RLIMIT_DATA, memory)?;
    if counted {
        limit(Resource::RLIMIT_NPROC, MAX_THREADS)?;
    }
    Ok(format!(
        "{} MiB of memory, {MAX_FILES} files, no core dumps",
        memory >> 20
    ))
}
