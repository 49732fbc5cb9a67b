//! The wall around the environment: this program is started anew with what a worker may have of it.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use model::protocol::ENVIRONMENT;
use nix::unistd::execve;

/// Starts this program anew in this process, with the arguments it has and `more`, and with nothing in its
/// environment but what is in [`ENVIRONMENT`], `set` as given.
pub(super) fn restart(more: &[OsString], set: &[(&str, &OsStr)]) -> io::Error {
    let arguments = std::env::args_os().chain(more.iter().cloned());
    let kept = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        may_have(&name) && set.iter().all(|(set, _)| *set != name)
    });
    let set = set
        .iter()
        .map(|(name, value)| (OsString::from(name), value.to_os_string()));
    let variables = kept.chain(set).map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let strings = |strings: &mut dyn Iterator<Item = OsString>| -> io::Result<Vec<CString>> {
        let strings = strings.map(|string| CString::new(string.into_vec()));
        Ok(strings.collect::<Result<_, _>>()?)
    };
    let started = || -> io::Result<_> {
        let program = CString::new(std::env::current_exe()?.as_os_str().as_bytes())?;
        let arguments = strings(&mut arguments.into_iter())?;
        let variables = strings(&mut variables.into_iter())?;
        Ok(execve(&program, &arguments, &variables)?)
    };
    match started() {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// Returns whether a worker may have a variable.
pub(super) fn may_have(name: &str) -> bool {
    // What the simulated driver is told.
    ENVIRONMENT.contains(&name) || cfg!(feature = "cudasim") && name.starts_with("CUDASIM_")
}

/// Says what is in the environment that should not be.
pub(super) fn verify() -> Result<String, String> {
    let mut names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    match names.find(|name| !may_have(name)) {
        None => Ok("the variables of a list".to_owned()),
        Some(name) => Err(format!("{name} is in it")),
    }
}
