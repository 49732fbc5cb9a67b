//! The wall around privileges: no capability, and none to be gained.

use nix::{errno::Errno, libc, sys::prctl};

/// Capabilities are two words of 32 bits in this version of the call.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// Nought is the caller.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up everything this thread may do beyond what its user may. Threads started later have no more.
pub(super) fn drop_all() -> Result<String, String> {
    let no = |errno: Errno| errno.to_string();
    prctl::set_no_new_privs().map_err(no)?;
    // From the set that bounds what a program may gain; refused to those who could gain none of it.
    for capability in 0.. {
        match option(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(errno) => return Err(no(errno)),
        }
    }
    option(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )
    .map_err(no)?;
    let header = CapabilityHeader {
        version: VERSION,
        pid: 0,
    };
    let none = [CapabilitySets::default(); 2];
    #[expect(unsafe_code, reason = "libc has no name for this call")]
    // SAFETY: the kernel reads a header and two sets, which live until it returns.
    let returned = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    Errno::result(returned).map_err(no)?;
    Ok("no capabilities, and none to be gained".to_owned())
}

fn option(option: libc::c_int, argument: libc::c_ulong) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "nix has no name for these options")]
    // SAFETY: the options used here take numbers only.
    let returned = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    Errno::result(returned).map(drop)
}
