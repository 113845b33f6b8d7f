//! The consistency engine: a kernel module that switches patches by any model.
//!
//! Its C lies in `engine/` and travels inside of this crate. [`keep`] makes the module for a kernel of the cache, once; a
//! [`Workshop`] makes also modules that use it.

mod build;
mod error;
mod kept;
mod sources;

pub use build::Workshop;
pub use error::EngineError;
pub use kept::{Kept, build, keep};
pub use kmend_link::ENGINE;
pub use sources::{interface_header, interface_id, models, redirects, stopping_models};
