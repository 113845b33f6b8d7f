//! The cache's layout, and the kernels to build for: fetch, import, list, remove.
//!
//! ```text
//! CACHE/
//!   CACHEDIR.TAG                 backup programs leave the folder out
//!   kernels/RELEASE/             one kernel, complete or not there at all
//!     kernel.json                what it is and where its parts are; paths are relative to this folder
//!     boot/ lib/ usr/ source/    the unpacked packages and the kernel source (a fetched kernel)
//!     derived/                   what other stages derive from it and keep
//!   downloads/NAME.deb           complete, verified packages of a fetch that has not ended
//!   scratch/NAME/                work of a living process; the next one sweeps what the dead left
//!   userlands/NAME               images of systems for virtual machines
//!   locks/NAME                   empty files to hold `flock` on
//! ```
//!
//! A kernel is built up in `scratch` and renamed into `kernels`: whoever finds it there finds all of it,
//! and a process killed at any moment leaves nothing but scratch. This protects against killed processes,
//! not against a power failure: nothing is flushed to the disk before the rename, and what such a failure
//! damages, the match of the compiled original against the image finds.
//!
//! Architecture invariant: no other crate knows a path inside the cache; they ask a [`Kernel`] or a
//! [`Scratch`]. This crate reads no more of a kernel than its release and its compiler's name; the facts
//! of an image are the business of crate `kernel`. It prints nothing: [`Progress`] goes to the caller.

mod cache;
mod disk;
mod error;
mod facts;
mod fetch;
mod files;
mod import;
mod kernel;
mod lock;
mod progress;
mod scratch;

pub use cache::Cache;
pub use disk::free;
pub use error::{PackageVersion, StoreError};
pub use facts::{compiler_program, compiler_text};
pub use fetch::{Tools, fetch, fetch_with};
pub use import::{Import, import};
pub use kernel::{Kernel, Origin, sizes};
pub use lock::Lock;
pub use progress::{Progress, Stage};
pub use scratch::Scratch;
