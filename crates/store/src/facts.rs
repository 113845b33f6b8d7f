//! The little that the store itself reads of a kernel: its release and its compiler.

use crate::error::StoreError;
use crate::files;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A release is `utsname.release`, at most 64 bytes and a NUL (`__NEW_UTS_LEN`, include/uapi/linux/utsname.h).
const LONGEST_RELEASE: usize = 64;

/// Whether a text is a kernel release that can name a folder of the cache.
pub(crate) fn check_release(release: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_~".contains(&byte);
    let good = !release.is_empty()
        && release.len() <= LONGEST_RELEASE
        && release.bytes().all(plain)
        && release.starts_with(|c: char| c.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(StoreError::Name(release.into())) }
}

/// The release that modules built in a headers folder carry in their vermagic.
///
/// `include/generated/utsrelease.h` is what the vermagic is made of. `include/config/kernel.release` is
/// not asked: Debian 12's headers of 6.1 have `6.1.192` there, for the release 6.1.0-56-cloud-amd64.
pub(crate) fn headers_release(headers: &Path) -> Result<Option<String>, StoreError> {
    let path = headers.join("include/generated/utsrelease.h");
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(&path)?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("#define UTS_RELEASE "))
        .map(|value| value.trim().trim_matches('"').to_owned()))
}

/// The release that a bzImage says it is of; `None` for a file of another kind.
///
/// Boot protocol 2.00 and later (Documentation/arch/x86/boot.rst): magic `HdrS` at 0x202, and at 0x20e the
/// offset, less 0x200, of a NUL-terminated text that begins with the release and a space.
pub(crate) fn image_release(image: &Path) -> Result<Option<String>, StoreError> {
    let mut file = File::open(image).map_err(StoreError::io("read", image))?;
    let mut header = Vec::new();
    file.by_ref().take(0x210).read_to_end(&mut header).map_err(StoreError::io("read", image))?;
    if header.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let offset = match header.get(0x20e..0x210) {
        Some(&[low, high]) if (low, high) != (0, 0) => u64::from(u16::from_le_bytes([low, high])) + 0x200,
        _ => return Ok(None),
    };
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(LONGEST_RELEASE as u64 + 1).read_to_end(&mut text))
        .map_err(StoreError::io("read", image))?;
    let end = text.iter().position(|&byte| byte == b' ' || byte == 0);
    Ok(end.and_then(|end| String::from_utf8(text[..end].to_vec()).ok()))
}

/// `CONFIG_CC_VERSION_TEXT`: the first line of the compiler's `--version` when the kernel was configured.
pub fn compiler_text(config: &Path) -> Result<Option<String>, StoreError> {
    let text = files::read_text(config)?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_CC_VERSION_TEXT="))
        .map(|value| value.trim().trim_matches('"').to_owned()))
}

/// The compiler's program: what Debian's headers set `CC` to, else as the configuration names it.
pub(crate) fn compiler(headers: &Path, compiler_text: &str) -> Result<String, StoreError> {
    let variables = headers.join(".kernelvariables");
    if variables.exists()
        && let Some(program) = compiler_variable(&files::read_text(&variables)?)
    {
        return Ok(program);
    }
    Ok(compiler_program(compiler_text))
}

/// `CC = $(if …) $(CROSS_COMPILE)gcc-12` names `gcc-12`.
fn compiler_variable(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim_end_matches([' ', ':', '?', '\t']) == "CC").then_some(value)
    })?;
    let program = value.rsplit([' ', '\t', ')']).next().unwrap_or_default();
    (!program.is_empty()).then(|| program.to_owned())
}

/// The program that prints this version text. GCC's begins with the name it was called by (for a cross
/// compiler's name, `x86_64-linux-gnu-gcc-12`); clang's has a vendor first and is called `clang-MAJOR`.
pub fn compiler_program(version_text: &str) -> String {
    if let Some((_, version)) = version_text.split_once("clang version ") {
        let major: String = version.chars().take_while(char::is_ascii_digit).collect();
        return if major.is_empty() { "clang".into() } else { format!("clang-{major}") };
    }
    version_text.split_whitespace().next().unwrap_or("gcc").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_plain_names() {
        for good in ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "7.0.0-rc1_x~y"] {
            assert!(check_release(good).is_ok(), "{good}");
        }
        let long = "6".repeat(65);
        for bad in ["", ".", "..", "../6.1", "6.1/..", ".hidden", "-x", "6.1 x", "6.1\n", "6.1\0", &long] {
            assert!(matches!(check_release(bad), Err(StoreError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_compiler_is_read_from_debian_s_variables() {
        let debian = "override ARCH = x86\nCCACHE = ccache\n\
                      CC = $(if $(DEBIAN_KERNEL_USE_CCACHE),$(CCACHE)) $(CROSS_COMPILE)gcc-12\n";
        assert_eq!(compiler_variable(debian).as_deref(), Some("gcc-12"));
        assert_eq!(compiler_variable("CC := gcc-13").as_deref(), Some("gcc-13"));
        assert_eq!(compiler_variable("CCACHE = ccache"), None);
        assert_eq!(compiler_variable("CC = "), None);
    }

    #[test]
    fn the_compiler_is_read_from_its_version_text() {
        assert_eq!(compiler_program("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"), "gcc-12");
        assert_eq!(
            compiler_program("x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0"),
            "x86_64-linux-gnu-gcc-12"
        );
        assert_eq!(compiler_program("Debian clang version 19.1.7 (3)"), "clang-19");
        assert_eq!(compiler_program(""), "gcc");
    }

    #[test]
    fn the_image_s_release_is_in_its_boot_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x300..0x314].copy_from_slice(b"6.1.0-56-cloud-amd64");
        image[0x314] = b' ';
        std::fs::write(&path, &image).unwrap();
        assert_eq!(image_release(&path).unwrap().as_deref(), Some("6.1.0-56-cloud-amd64"));

        // A text that does not end, an offset past the end, no offset, no header: nothing is known.
        image[0x300..].fill(b'x');
        std::fs::write(&path, &image).unwrap();
        assert_eq!(image_release(&path).unwrap(), None);
        std::fs::write(&path, &image[..0x250]).unwrap();
        assert_eq!(image_release(&path).unwrap(), None);
        image[0x20e..0x210].fill(0);
        std::fs::write(&path, &image).unwrap();
        assert_eq!(image_release(&path).unwrap(), None);
        std::fs::write(&path, b"\x7fELF").unwrap();
        assert_eq!(image_release(&path).unwrap(), None);
    }
}
