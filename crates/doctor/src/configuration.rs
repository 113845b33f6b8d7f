//! The configuration of the running kernel.

use kmend_kernel::Packing;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A configuration is 150 to 300 KiB; more than this is not read, in bytes.
const LARGEST: u64 = 4 << 20;

/// `.config` of a kernel.
pub(crate) struct Configuration {
    /// The file that it was read from.
    pub(crate) file: String,
    text: String,
}

impl Configuration {
    /// The configuration of the kernel of this release that runs: what it carries itself (`CONFIG_IKCONFIG_PROC`), else the
    /// files in which distributions put it.
    pub(crate) fn of_running(root: &Path, release: &str) -> Option<Configuration> {
        let places = [
            "proc/config.gz".to_owned(),
            format!("boot/config-{release}"),
            format!("lib/modules/{release}/config"),
            format!("lib/modules/{release}/build/.config"),
        ];
        places.into_iter().find_map(|place| {
            let bytes = read_bytes(&root.join(&place))?;
            let plain = match Packing::detect(&bytes) {
                Some(packing) => packing.unpack(&bytes).ok()?,
                None => bytes,
            };
            let text = String::from_utf8_lossy(&plain).into_owned();
            text.contains("CONFIG_").then(|| Configuration { file: format!("/{place}"), text })
        })
    }

    /// What an option is set to, without quotes: `y`, `m`, a number or a text; `None` if it is not set.
    pub(crate) fn value<'a>(&'a self, option: &str) -> Option<&'a str> {
        let set = |line: &'a str| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('=');
        let value = self.text.lines().find_map(set)?.trim();
        Some(value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(value))
    }

    /// Whether it is built in.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.value(option) == Some("y")
    }
}

fn read_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The beginning of a file as text; `None` if it cannot be read.
pub(crate) fn read_some(path: &Path) -> Option<String> {
    read_bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
