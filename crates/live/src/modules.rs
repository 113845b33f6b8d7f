//! The system calls that load and unload modules.

use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;

/// `O_NONBLOCK` of delete_module(2) on x86-64 (Linux, include/uapi/asm-generic/fcntl.h): fail rather than wait
/// for users.
const NONBLOCK: i32 = 0o4000;

/// What the kernel does with modules.
pub(crate) trait ModuleCalls {
    /// Loads a module from its file.
    fn insert(&self, file: &File) -> Result<(), Errno>;
    /// Unloads a module that nobody uses.
    fn remove(&self, name: &CStr) -> Result<(), Errno>;
}

/// The kernel that runs.
pub(crate) struct RunningKernel;

impl ModuleCalls for RunningKernel {
    fn insert(&self, file: &File) -> Result<(), Errno> {
        rustix::system::finit_module(file, c"", 0)
    }

    fn remove(&self, name: &CStr) -> Result<(), Errno> {
        rustix::system::delete_module(name, NONBLOCK)
    }
}
