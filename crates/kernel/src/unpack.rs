//! Unpacking of kernel images and modules: the format by its first bytes, the output within bounds.
//!
//! The formats are those of the kernel's `KERNEL_*` choice but LZO (init/Kconfig), and for modules those of
//! `MODULE_COMPRESS_*`. Bytes after the packed data are ignored: the boot image has the unpacked size there
//! (scripts/Makefile.lib, `size_append`).

use crate::le;
use std::fmt;
use std::io::{self, Read};

/// No kernel is larger than this once unpacked, in bytes.
const LARGEST: usize = 1 << 30;
/// A kernel packs to a third or a tenth of its size. What claims to grow more than this is not one.
const LARGEST_RATIO: usize = 64;
/// What may be unpacked from even the smallest input, in bytes: padding between sections packs very well.
const ALLOWANCE: usize = 16 << 20;
/// Memory that the LZMA decoders may take for their window, in KiB. The kernel's own decoder for images
/// takes any; scripts/xz_wrap.sh asks for at most 128 MiB.
const LZMA_WINDOW_KIB: u32 = 144 << 10;
/// Largest window of a zstd frame, as a power of two: scripts/Makefile.lib packs with `zstd -22 --ultra`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Unpacked size of every block but the last in the LZ4 legacy format
/// (LZ4 Frame Format Description, "Legacy frame"), in bytes.
const LZ4_BLOCK: usize = 8 << 20;

/// A way in which an image or a module is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
    /// LZ4 in its legacy frame format, the only one that the kernel reads.
    Lz4,
    /// bzip2.
    Bzip2,
    /// LZMA alone.
    Lzma,
}

impl Packing {
    /// The packing by the first bytes (lib/decompress.c, `compressed_formats`).
    pub fn detect(bytes: &[u8]) -> Option<Packing> {
        const MAGIC: [(&[u8], Packing); 6] = [
            (&[0x1f, 0x8b], Packing::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Packing::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
            (&LZ4_MAGIC, Packing::Lz4),
            (b"BZh", Packing::Bzip2),
            (&[0x5d, 0, 0], Packing::Lzma),
        ];
        MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, packing)| packing)
    }

    /// The format's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Xz => "xz",
            Packing::Zstd => "zstd",
            Packing::Lz4 => "lz4",
            Packing::Bzip2 => "bzip2",
            Packing::Lzma => "lzma",
        }
    }

    /// The unpacked bytes; what stands behind the packed data is left aside.
    ///
    /// # Errors
    /// Damaged input, and output beyond 1 GiB or out of all proportion to the input; the text says which.
    pub fn unpack(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.member(bytes, limit(bytes))?.0)
    }

    /// The unpacked bytes of a file that is packed and nothing else: of every member, as `zcat`, `xzcat` and `zstdcat` give them.
    ///
    /// # Errors
    /// Those of [`Packing::unpack`], and bytes behind the packed data that are not such data. LZMA alone is refused: its decoder
    /// does not say where it ends, so that what stands behind it would be lost.
    pub fn unpack_whole(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let limit = limit(bytes);
        let mut unpacked = Vec::new();
        let mut rest = bytes;
        loop {
            let (member, behind) = self.member(rest, limit.saturating_sub(unpacked.len()))?;
            let behind =
                behind.ok_or_else(|| self.damaged("where such data end is not told: pack it with xz"))?;
            unpacked.extend(member);
            // Zeros fill the last block of a tape (gzip(1), xz(1)).
            if behind.iter().all(|&byte| byte == 0) {
                return Ok(unpacked);
            }
            if Packing::detect(behind) != Some(self) {
                return Err(self.damaged(format!("{} bytes of something else stand behind it", behind.len())));
            }
            rest = behind;
        }
    }

    /// The first member, and what is behind it; `None` where its decoder does not say where that begins.
    fn member(self, bytes: &[u8], limit: usize) -> Result<(Vec<u8>, Option<&[u8]>), String> {
        self.read_member(bytes, limit).map_err(|error| self.damaged(error))
    }

    fn read_member(self, bytes: &[u8], limit: usize) -> io::Result<(Vec<u8>, Option<&[u8]>)> {
        Ok(match self {
            Packing::Gzip => {
                let mut reader = flate2::bufread::GzDecoder::new(bytes);
                (read_within(&mut reader, limit)?, Some(reader.into_inner()))
            }
            Packing::Bzip2 => {
                let mut reader = bzip2::bufread::BzDecoder::new(bytes);
                (read_within(&mut reader, limit)?, Some(reader.into_inner()))
            }
            Packing::Xz => {
                let mut reader = lzma_rust2::XzReader::new_mem_limit(bytes, false, LZMA_WINDOW_KIB);
                (read_within(&mut reader, limit)?, Some(reader.into_inner()))
            }
            Packing::Zstd => {
                let mut reader = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
                reader.window_log_max(ZSTD_WINDOW_LOG)?;
                (read_within(&mut reader, limit)?, Some(reader.finish()))
            }
            Packing::Lzma => {
                let reader = lzma_rust2::LzmaReader::new_mem_limit(bytes, LZMA_WINDOW_KIB, None)?;
                (read_within(reader, limit)?, None)
            }
            // Its frames have no end: what follows are blocks or another frame.
            Packing::Lz4 => (unpack_lz4(bytes, limit)?, Some(&[])),
        })
    }

    fn damaged(self, why: impl fmt::Display) -> String {
        format!("{} data: {why}", self.name())
    }
}

/// How many bytes may be unpacked of so many.
fn limit(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(LARGEST_RATIO).saturating_add(ALLOWANCE).min(LARGEST)
}

fn too_large(limit: usize) -> io::Error {
    io::Error::other(format!("more than {limit} bytes when unpacked"))
}

fn read_within(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() > limit { Err(too_large(limit)) } else { Ok(unpacked) }
}

/// `0x184C2102`, little-endian (lib/decompress_unlz4.c, `ARCHIVE_MAGICNUMBER`).
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A legacy frame: the magic, then blocks, each with its packed size before it. It has no end mark: fewer
/// bytes than a block needs, such as the boot image's appended size, end it.
fn unpack_lz4(bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let mut at = LZ4_MAGIC.len();
    while bytes.len().saturating_sub(at) > size_of::<u32>() {
        let Some(size) = le::u32_at(bytes, at) else { break };
        at += size_of::<u32>();
        if size.to_le_bytes() == LZ4_MAGIC {
            continue;
        }
        let block = bytes
            .get(at..at.saturating_add(size as usize))
            .ok_or_else(|| io::Error::other("a block reaches beyond the end"))?;
        at += block.len();
        unpack_lz4_block(block, &mut unpacked, limit)?;
    }
    Ok(unpacked)
}

fn unpack_lz4_block(block: &[u8], unpacked: &mut Vec<u8>, limit: usize) -> io::Result<()> {
    let start = unpacked.len();
    let room = LZ4_BLOCK.min(limit - start);
    // A block cannot grow more than this: a match's length byte stands for at most 255 bytes.
    let room = room.min(block.len().saturating_mul(255));
    unpacked.resize(start + room, 0);
    let target = unpacked.get_mut(start..).unwrap_or_default();
    let size = lz4_flex::block::decompress_into(block, target).map_err(|error| {
        if room < LZ4_BLOCK && start + room == limit { too_large(limit) } else { io::Error::other(error) }
    })?;
    unpacked.truncate(start + size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog, the quick brown fox jumps again";

    fn packed(packing: Packing, plain: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(plain).unwrap();
                writer.finish().unwrap()
            }
            Packing::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                writer.write_all(plain).unwrap();
                writer.finish().unwrap()
            }
            Packing::Zstd => zstd::encode_all(plain, 1).unwrap(),
            Packing::Lz4 => {
                let block = lz4_flex::block::compress(plain);
                [&LZ4_MAGIC[..], &u32::try_from(block.len()).unwrap().to_le_bytes(), &block].concat()
            }
            Packing::Bzip2 => {
                let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                writer.write_all(plain).unwrap();
                writer.finish().unwrap()
            }
            Packing::Lzma => {
                let options = lzma_rust2::LzmaOptions::with_preset(1);
                let mut writer = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
                writer.write_all(plain).unwrap();
                writer.finish().unwrap()
            }
        }
    }

    const ALL: [Packing; 6] =
        [Packing::Gzip, Packing::Xz, Packing::Zstd, Packing::Lz4, Packing::Bzip2, Packing::Lzma];

    #[test]
    fn every_format_is_detected_and_unpacked_with_a_size_after_it() {
        for packing in ALL {
            let mut bytes = packed(packing, TEXT);
            bytes.extend_from_slice(&u32::try_from(TEXT.len()).unwrap().to_le_bytes());
            assert_eq!(Packing::detect(&bytes), Some(packing));
            assert_eq!(packing.unpack(&bytes).as_deref(), Ok(TEXT), "{}", packing.name());
        }
    }

    #[test]
    fn every_member_of_a_packed_file_is_unpacked() {
        for packing in ALL.into_iter().filter(|packing| *packing != Packing::Lzma) {
            let both = [packed(packing, TEXT), packed(packing, b"more")].concat();
            assert_eq!(packing.unpack_whole(&both).unwrap(), [TEXT, b"more"].concat(), "{}", packing.name());
        }
        for packing in ALL {
            assert_eq!(packing.unpack_whole(&packed(packing, TEXT)).is_ok(), packing != Packing::Lzma);
            let other = [&packed(packing, TEXT)[..], b"words and words"].concat();
            assert!(packing.unpack_whole(&other).is_err(), "{}", packing.name());
        }
        let filled = [&packed(Packing::Gzip, TEXT)[..], &[0; 512]].concat();
        assert_eq!(Packing::Gzip.unpack_whole(&filled).as_deref(), Ok(TEXT));
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        for packing in ALL {
            let bytes = packed(packing, TEXT);
            let unpacked = packing.unpack(&bytes[..bytes.len() / 2]);
            assert!(unpacked.is_err(), "{} gave {unpacked:?}", packing.name());
        }
    }

    #[test]
    fn output_out_of_proportion_is_an_error() {
        let zeros = vec![0; 40 << 20];
        for packing in [Packing::Gzip, Packing::Zstd, Packing::Xz] {
            let error = packing.unpack(&packed(packing, &zeros)).unwrap_err();
            assert!(error.contains("when unpacked"), "{error}");
        }
    }

    #[test]
    fn an_lz4_output_beyond_the_limit_is_an_error() {
        let bytes = packed(Packing::Lz4, &[7; 4096]);
        let error = unpack_lz4(&bytes, 1000).unwrap_err();
        assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
    }
}
