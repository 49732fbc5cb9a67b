//! A network of its own for a test and all that it starts: loopback alone, which can be taken away.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
};

/// Moves this thread into a network namespace of its own. What it starts from now on, threads and processes, is in there,
/// too; other threads stay where they are.
pub fn enter() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    connect(true)
}

/// Takes the loopback device of this thread's network up or down (netdevice(7)).
pub fn connect(up: bool) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    let flags = if up { libc::IFF_UP } else { 0 };
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: i16::try_from(flags).map_err(io::Error::other)?,
        },
    };
    // Any socket of this network will do.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    #[expect(unsafe_code, reason = "nix is built without its ioctl")]
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(set)?;
    Ok(())
}
