//! The system calls that change something: they load and unload modules, and stop and continue processes.

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, CString};

/// `O_NONBLOCK` of delete_module(2) on x86-64 (Linux, include/uapi/asm-generic/fcntl.h): fail rather than wait
/// for users.
const NONBLOCK: i32 = 0o4000;

/// What the kernel does with modules and processes.
pub(crate) trait ModuleCalls {
    /// Loads a module, with its parameters as one text.
    fn insert(&self, module: &[u8], parameters: &str) -> Result<(), Errno>;
    /// Unloads a module that nobody uses.
    fn remove(&self, name: &CStr) -> Result<(), Errno>;
    /// Stops a process.
    fn stop(&self, pid: u32) -> Result<(), Errno>;
    /// Continues it.
    fn resume(&self, pid: u32) -> Result<(), Errno>;
}

/// The kernel that runs.
pub(crate) struct RunningKernel;

impl ModuleCalls for RunningKernel {
    /// The bytes and not their file: a file could be changed after it was checked.
    fn insert(&self, module: &[u8], parameters: &str) -> Result<(), Errno> {
        let parameters = CString::new(parameters).map_err(|_| Errno::INVAL)?;
        rustix::system::init_module(module, &parameters)
    }

    fn remove(&self, name: &CStr) -> Result<(), Errno> {
        rustix::system::delete_module(name, NONBLOCK)
    }
    fn stop(&self, pid: u32) -> Result<(), Errno> {
        send(pid, Signal::STOP)
    }

    fn resume(&self, pid: u32) -> Result<(), Errno> {
        send(pid, Signal::CONT)
    }
}

fn send(pid: u32, signal: Signal) -> Result<(), Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    rustix::process::kill_process(pid, signal)
}
