//! Little-endian fields at an offset of untrusted bytes: `None` beyond the end, never a panic.

/// The `N` bytes at `offset`.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The 16-bit field at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

/// The 32-bit field at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

/// The signed 32-bit field at `offset`.
pub(crate) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    array(bytes, offset).map(i32::from_le_bytes)
}

/// The 64-bit field at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// The text from `offset` to the next NUL, if it is UTF-8.
pub(crate) fn str_at(bytes: &[u8], offset: usize) -> Option<&str> {
    let tail = bytes.get(offset..)?;
    let end = tail.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(tail.get(..end)?).ok()
}

/// Where `needle` first begins in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(step) = bytes.get(from..)?.iter().position(|&byte| byte == first) {
        let at = from + step;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_beyond_the_end_are_none() {
        assert_eq!(u32_at(&[1, 0, 0, 0], 0), Some(1));
        assert_eq!(u32_at(&[1, 0, 0, 0], 1), None);
        assert_eq!(u64_at(&[], usize::MAX), None);
        assert_eq!(i32_at(&[0xff; 4], 0), Some(-1));
        assert_eq!(u16_at(&[1, 2], 0), Some(0x201));
    }

    #[test]
    fn a_text_needs_its_terminator() {
        assert_eq!(str_at(b"ab\0cd", 0), Some("ab"));
        assert_eq!(str_at(b"ab\0cd", 3), None);
        assert_eq!(str_at(b"", 9), None);
    }

    #[test]
    fn finds_the_first_occurrence() {
        assert_eq!(find(b"aab aabc", b"aabc"), Some(4));
        assert_eq!(find(b"aab", b"aabc"), None);
        assert_eq!(find(b"aab", b""), None);
    }
}
