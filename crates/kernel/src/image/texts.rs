//! Texts in the image: the version banner, the build id, the configuration.

use crate::le;
use std::io::Read;

/// How every banner begins (init/version.c, `linux_banner`).
const BANNER: &[u8] = b"Linux version ";
/// Longest banner, in bytes; the real ones take some 250.
const LONGEST_BANNER: usize = 4096;
/// Around the packed configuration (kernel/configs.c).
const CONFIG_START: &[u8] = b"IKCFG_ST";
/// A configuration takes 120 to 300 KiB; more than this is none, in bytes.
const LARGEST_CONFIG: u64 = 8 << 20;
/// Note type of a build id, of the owner `GNU`.
const NT_GNU_BUILD_ID: u32 = 3;

/// The banner in a section, without its line end: the format strings that look like it go on with `%`.
pub(super) fn banner(section: &[u8]) -> Option<&str> {
    let mut rest = section;
    loop {
        let at = le::find(rest, BANNER)?;
        rest = rest.get(at..)?;
        if rest.get(BANNER.len()).is_some_and(u8::is_ascii_digit) {
            return le::str_at(rest.get(..LONGEST_BANNER).unwrap_or(rest), 0).map(str::trim_end);
        }
        rest = rest.get(BANNER.len()..)?;
    }
}

/// The release, as `uname -r` prints it.
pub(super) fn release(banner: &str) -> Option<&str> {
    banner.split_whitespace().nth(2)
}

/// The build id in a section of notes (ELF gABI, "Note Section"), such as /sys/kernel/notes shows that of the running
/// kernel.
pub fn build_id(notes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let name_size = le::u32_at(notes, at)? as usize;
        let size = le::u32_at(notes, at + 4)? as usize;
        let kind = le::u32_at(notes, at + 8)?;
        let name_at = at + 12;
        let contents_at = name_at + name_size.next_multiple_of(4);
        if kind == NT_GNU_BUILD_ID && notes.get(name_at..name_at + name_size) == Some(b"GNU\0") {
            return notes.get(contents_at..contents_at + size);
        }
        at = contents_at + size.next_multiple_of(4);
    }
}

/// The configuration in a section (`CONFIG_IKCONFIG`).
pub(super) fn config(section: &[u8]) -> Option<String> {
    let packed = section.get(le::find(section, CONFIG_START)? + CONFIG_START.len()..)?;
    let mut config = String::new();
    flate2::bufread::GzDecoder::new(packed).take(LARGEST_CONFIG).read_to_string(&mut config).ok()?;
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_banner_is_not_its_format() {
        let section = b"..Linux version %s\0..Linux version 6.1.0-9-amd64 (a@b) (gcc) #1 SMP\n\0";
        let banner = banner(section).unwrap();
        assert_eq!(banner, "Linux version 6.1.0-9-amd64 (a@b) (gcc) #1 SMP");
        assert_eq!(release(banner), Some("6.1.0-9-amd64"));
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let mut notes = Vec::new();
        for (name, kind, contents) in [("Xen\0", 6u32, &b"abc"[..]), ("GNU\0", 3, &[1, 2, 3, 4])] {
            notes.extend_from_slice(&4u32.to_le_bytes());
            notes.extend_from_slice(&u32::try_from(contents.len()).unwrap().to_le_bytes());
            notes.extend_from_slice(&kind.to_le_bytes());
            notes.extend_from_slice(name.as_bytes());
            notes.extend_from_slice(contents);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id(&notes), Some(&[1, 2, 3, 4][..]));
        assert_eq!(build_id(&notes[..notes.len() - 1]), None);
    }

    #[test]
    fn the_configuration_is_unpacked() {
        let mut writer = flate2::write::GzEncoder::new(b"..IKCFG_ST".to_vec(), flate2::Compression::fast());
        writer.write_all(b"CONFIG_LIVEPATCH=y\n").unwrap();
        let mut section = writer.finish().unwrap();
        section.extend_from_slice(b"IKCFG_ED..");
        assert_eq!(config(&section).as_deref(), Some("CONFIG_LIVEPATCH=y\n"));
        assert_eq!(config(b"IKCFG_STnot packed"), None);
    }
}
