//! The boot image: a real-mode header, a stub that unpacks, and the packed kernel in it.
//!
//! Source: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". `payload_offset` and
//! `payload_length` are there since boot protocol 2.08 (Linux 2.6.26).

use crate::error::KernelError;
use crate::le;
use crate::unpack::Packing;

/// Number of real-mode sectors less the boot sector, one byte.
const SETUP_SECTS: usize = 0x1f1;
/// `0xAA55`.
const BOOT_FLAG: usize = 0x1fe;
/// The magic `HdrS`.
const HEADER: usize = 0x202;
/// The boot protocol's version, major in the high byte.
const VERSION: usize = 0x206;
/// Since protocol 2.12.
const XLOADFLAGS: usize = 0x236;
/// The image has the 64-bit entry point: it is for x86-64.
const XLF_KERNEL_64: u16 = 1;
/// Offset of the packed kernel from the start of the protected-mode code, in bytes.
const PAYLOAD_OFFSET: usize = 0x248;
/// Its length in bytes.
const PAYLOAD_LENGTH: usize = 0x24c;
/// `setup_sects` of 0 means this, "for backwards compatibility".
const DEFAULT_SETUP_SECTS: usize = 4;
/// Bytes in a sector.
const SECTOR: usize = 512;

/// Whether the bytes begin with a boot header.
pub(super) fn detect(bytes: &[u8]) -> bool {
    le::u16_at(bytes, BOOT_FLAG) == Some(0xaa55) && bytes.get(HEADER..HEADER + 4) == Some(b"HdrS")
}

/// The ELF kernel that a boot image holds.
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, KernelError> {
    let payload = payload(bytes)?;
    let packing = Packing::detect(payload).ok_or_else(|| {
        let first = payload.get(..4).unwrap_or(payload);
        KernelError::Image(format!("its payload is packed in an unknown way (it begins with {first:02x?})"))
    })?;
    packing.unpack(payload).map_err(KernelError::Image)
}

fn payload(bytes: &[u8]) -> Result<&[u8], KernelError> {
    let version = le::u16_at(bytes, VERSION).ok_or_else(truncated)?;
    if version < 0x208 {
        return Err(KernelError::Image(format!(
            "boot protocol {version:#x} does not tell where its payload is"
        )));
    }
    let flags = le::u16_at(bytes, XLOADFLAGS).ok_or_else(truncated)?;
    if version >= 0x20c && flags & XLF_KERNEL_64 == 0 {
        return Err(KernelError::Architecture("32-bit x86".into()));
    }
    let sectors = match bytes.get(SETUP_SECTS) {
        Some(0) | None => DEFAULT_SETUP_SECTS,
        Some(&sectors) => usize::from(sectors),
    };
    let offset = le::u32_at(bytes, PAYLOAD_OFFSET).ok_or_else(truncated)? as usize;
    let length = le::u32_at(bytes, PAYLOAD_LENGTH).ok_or_else(truncated)? as usize;
    let start = (sectors + 1) * SECTOR + offset;
    bytes.get(start..start + length).ok_or_else(truncated)
}

fn truncated() -> KernelError {
    KernelError::Image("the file ends before its payload does".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[SETUP_SECTS] = 1;
        bytes[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
        bytes[HEADER..HEADER + 4].copy_from_slice(b"HdrS");
        bytes[VERSION..VERSION + 2].copy_from_slice(&[0x0f, 0x02]);
        bytes[XLOADFLAGS] = 1;
        bytes
    }

    #[test]
    fn the_payload_is_counted_from_the_protected_mode_code() {
        let mut bytes = header();
        bytes[PAYLOAD_OFFSET] = 8;
        bytes[PAYLOAD_LENGTH] = 3;
        bytes.resize(1024, 0);
        bytes.extend_from_slice(b"12345678abc.....");
        assert!(detect(&bytes));
        assert_eq!(payload(&bytes).unwrap(), b"abc");
    }

    #[test]
    fn a_payload_beyond_the_end_is_an_error() {
        let mut bytes = header();
        bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 8].fill(0xff);
        assert!(matches!(payload(&bytes), Err(KernelError::Image(_))));
    }

    #[test]
    fn a_32_bit_image_is_another_architecture() {
        let mut bytes = header();
        bytes[XLOADFLAGS] = 0;
        assert!(matches!(payload(&bytes), Err(KernelError::Architecture(_))));
    }

    #[test]
    fn an_unknown_packing_shows_its_first_bytes() {
        let mut bytes = header();
        bytes[PAYLOAD_LENGTH] = 4;
        bytes.resize(1024, 0);
        bytes.extend_from_slice(&[0x89, b'L', b'Z', b'O']);
        let text = unpack(&bytes).unwrap_err().to_string();
        assert!(text.contains("[89, 4c, 5a, 4f]"), "{text}");
    }
}
