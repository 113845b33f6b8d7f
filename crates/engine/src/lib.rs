//! The consistency engine: a kernel module that switches patches by any model.
//!
//! Its C lies in `engine/` and travels inside of this crate. [`build`] makes the module for a kernel of the cache, and a
//! [`Workshop`] also modules that use it.

mod build;
mod error;

pub use build::{Workshop, build, module_name};
pub use error::EngineError;
