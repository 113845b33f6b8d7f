//! A kernel from the command line, for the crate's examples.

use kmend_compile::Target;
use std::path::PathBuf;

/// How the kernel is given.
pub const USAGE: &str = "RELEASE SOURCE CONFIG HEADERS COMPILER DERIVED";

/// Reads the six arguments of [`USAGE`]. The compiler that built the kernel is in its configuration.
pub fn read(arguments: &mut impl Iterator<Item = String>) -> Option<Target> {
    let release = arguments.next()?;
    let mut path = || arguments.next().map(PathBuf::from);
    let (source, config, headers) = (path()?, path()?, path()?);
    let text = std::fs::read_to_string(&config).ok()?;
    let compiler_text = text.lines().find_map(|line| line.strip_prefix("CONFIG_CC_VERSION_TEXT="))?;
    Some(Target {
        release,
        source,
        config,
        symvers: headers.join("Module.symvers"),
        headers: headers.is_dir().then_some(headers),
        compiler: arguments.next()?,
        compiler_text: compiler_text.trim_matches('"').to_owned(),
        derived: PathBuf::from(arguments.next()?),
    })
}
