//! Whether a file has its end, judged from the container's structure alone.
//!
//! Decoders stop when they have all pixels, or fill in what is missing; neither proves that the file is whole.
//! Structures: ITU-T T.81 annex B (JPEG), the PNG specification, TIFF 6.0 and BigTIFF, RIFF (WebP).

use super::{ImageProblem, corrupt};

/// Whether the marker segments lead to an end-of-image marker.
pub(super) fn jpeg(bytes: &[u8]) -> bool {
    let mut position = 2;
    while let Some(found) = bytes.get(position..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff)) {
        position += found + 1;
        match bytes.get(position) {
            // End of image.
            Some(0xd9) => return true,
            // A stuffed zero or a restart marker of entropy-coded data, a mark without a segment, a fill byte.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => position += 1,
            Some(0xff) => {}
            // A segment with its length; the entropy-coded data after a start of scan are searched like the rest.
            Some(_) => match be16(bytes, position + 1) {
                Some(length @ 2..) => position += 1 + usize::from(length),
                _ => return false,
            },
            None => return false,
        }
    }
    false
}

/// Whether the chunks lead to a complete `IEND`.
pub(super) fn png(bytes: &[u8]) -> bool {
    png_chunks(bytes).any(|(kind, _)| kind == b"IEND")
}

/// The content of the first EXIF chunk, also behind the pixels, where the decoder does not look.
pub(super) fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    png_chunks(bytes).find(|(kind, _)| *kind == b"eXIf").map(|(_, content)| content)
}

/// Kind and content of the chunks that lie in the file.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = be32(rest, 0)? as usize;
        let chunk = (rest.get(4..8)?, rest.get(8..length.checked_add(8)?)?);
        rest = rest.get(length.checked_add(12)?..)?;
        Some(chunk)
    })
}

/// Whether the file is as long as the RIFF header says, and each of its chunks lies inside: the decoder takes their word for what it
/// has to allocate.
pub(super) fn webp(bytes: &[u8]) -> bool {
    let Some(end) = le32(bytes, 4).map(|size| u64::from(size) + 8).filter(|end| *end <= bytes.len() as u64) else {
        return false;
    };
    // A chunk is its name, its length, and so many bytes, padded to an even number.
    let mut position = 12_u64;
    while position + 8 <= end {
        let Some(length) = usize::try_from(position + 4).ok().and_then(|at| le32(bytes, at)) else { return false };
        position += 8 + u64::from(length);
        if position > bytes.len() as u64 {
            return false;
        }
        position += u64::from(length % 2);
    }
    true
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

/// Whether every strip or tile of the first picture of a TIFF file lies inside it.
///
/// # Errors
/// JPEG inside TIFF, which the decoder would read leniently, and tables that contradict each other.
pub(super) fn tiff(bytes: &[u8]) -> Result<bool, ImageProblem> {
    let file = Tiff {
        bytes,
        little_endian: bytes.first() == Some(&b'I'),
        big: bytes.get(2..4).is_some_and(|v| v.contains(&43)),
    };
    Ok(tiff_table(&file)?.is_some_and(|TiffTable { offsets, lengths }| {
        (0..offsets.count).all(|index| {
            let part = file.at(offsets, index).zip(file.at(lengths, index));
            part.and_then(|(offset, length)| offset.checked_add(length)).is_some_and(|end| end <= bytes.len() as u64)
        })
    }))
}

/// Where the first picture of a TIFF file has its data.
#[derive(Default)]
struct TiffTable {
    offsets: Values,
    lengths: Values,
}

/// Where the values of an entry stand, all inside the file: as numbers they may take many times its size.
#[derive(Clone, Copy, Default)]
struct Values {
    start: u64,
    length: u64,
    count: u64,
}

/// `None` where the file ends before its tables do.
fn tiff_table(file: &Tiff<'_>) -> Result<Option<TiffTable>, ImageProblem> {
    let mut table = TiffTable::default();
    let (Some(directory), pointer, count_bytes) = (
        if file.big { file.unsigned(8, 8) } else { file.unsigned(4, 4) },
        if file.big { 8 } else { 4 },
        if file.big { 8 } else { 2 },
    ) else {
        return Ok(None);
    };
    let Some(entries) = file.unsigned(directory, count_bytes) else { return Ok(None) };
    for entry in 0..entries {
        let at = directory.saturating_add(count_bytes).saturating_add(entry.saturating_mul(4 + 2 * pointer));
        let (Some(tag), Some(kind), Some(count)) = (
            file.unsigned(at, 2),
            file.unsigned(at.saturating_add(2), 2),
            file.unsigned(at.saturating_add(4), pointer),
        ) else {
            return Ok(None);
        };
        let value = at.saturating_add(4 + pointer);
        match tag {
            // Compression: both kinds of JPEG, in any type of integer; the decoder reads it only where there is one.
            259 => match file.values(kind, 1, value, pointer).and_then(|values| file.at(values, 0)) {
                Some(6 | 7) => {
                    return Err(ImageProblem::Unsupported {
                        what: "a TIFF file with JPEG compression, which cannot be checked for completeness; save it uncompressed or with LZW or Deflate".into(),
                    });
                }
                Some(_) => {}
                None => return Ok(None),
            },
            // Strip and tile offsets, strip and tile byte counts.
            273 | 324 | 279 | 325 => {
                let table = if matches!(tag, 273 | 324) { &mut table.offsets } else { &mut table.lengths };
                // Each is there once: the decoder might follow another than the one that is checked.
                if table.count > 0 {
                    return Err(corrupt("TIFF", "it has two tables of strips or tiles"));
                }
                let Some(values) = file.values(kind, count, value, pointer) else { return Ok(None) };
                *table = values;
            }
            _ => {}
        }
    }
    if table.offsets.count == 0 || table.offsets.count != table.lengths.count {
        return Err(corrupt("TIFF", "its table of strips or tiles is missing or incomplete"));
    }
    Ok(Some(table))
}

struct Tiff<'a> {
    bytes: &'a [u8],
    little_endian: bool,
    big: bool,
}

impl Tiff<'_> {
    fn unsigned(&self, at: u64, length: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let field = self.bytes.get(at..at.checked_add(usize::try_from(length).ok()?)?)?;
        let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.little_endian { field.iter().rev().fold(0, join) } else { field.iter().fold(0, join) })
    }

    /// The values of an entry, which stand in the entry itself where they fit.
    fn values(&self, kind: u64, count: u64, value: u64, pointer: u64) -> Option<Values> {
        let length = match kind {
            1 | 7 => 1,
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        let total = count.checked_mul(length)?;
        let start = if total <= pointer { value } else { self.unsigned(value, pointer)? };
        let inside = start.checked_add(total)? <= self.bytes.len() as u64;
        inside.then_some(Values { start, length, count })
    }

    /// One of the values.
    fn at(&self, values: Values, index: u64) -> Option<u64> {
        self.unsigned(values.start.checked_add(index.checked_mul(values.length)?)?, values.length)
    }
}
