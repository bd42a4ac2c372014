//! Image files, byte by byte.

/// A PNG chunk with a right checksum.
pub(crate) fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat()
}

pub(crate) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The header chunk of a PNG file.
pub(crate) fn header(width: u32, height: u32, depth: u8, colour: u8) -> Vec<u8> {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&sides[..], &[depth, colour, 0, 0, 0]].concat())
}

/// A grey PNG of zeros with more chunks between header and pixels.
pub(crate) fn png(width: u32, height: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let pixels = zeros(u64::from(height) * (u64::from(width) + 1));
    [SIGNATURE, &header(width, height, 8, 0), &chunks.concat(), &chunk(b"IDAT", &pixels), &chunk(b"IEND", &[])].concat()
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(index as u32, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 });
    }
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)])
}

/// So many zeros in zlib's format (RFC 1950 and 1951), 159 to 1: a literal, and copies of 258 bytes from one byte before.
pub(crate) fn zeros(count: u64) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x78, 0x01], used: 0 };
    // One last block with fixed codes.
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    bits.code(0b0011_0000, 8);
    let mut left = count.saturating_sub(1);
    while left >= 258 {
        // Length 258 (code 285), distance 1 (code 0).
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
        left -= 258;
    }
    for _ in 0..left {
        bits.code(0b0011_0000, 8);
    }
    bits.code(0, 7);
    let mut bytes = bits.bytes;
    // Adler-32 of zeros: the sum stays 1 and is added up.
    bytes.extend((((count % 65_521) as u32) << 16 | 1).to_be_bytes());
    bytes
}

/// Bits, lowest first.
struct Bits {
    bytes: Vec<u8>,
    used: u8,
}

impl Bits {
    fn push(&mut self, value: u32, count: u8) {
        for index in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> index & 1) as u8) << self.used;
            self.used = (self.used + 1) % 8;
        }
    }

    /// A Huffman code, highest bit first.
    fn code(&mut self, value: u32, count: u8) {
        for index in (0..count).rev() {
            self.push(value >> index & 1, 1);
        }
    }
}

/// A classic little-endian TIFF file: `entries` of tag, type, count and value, then `rest`, which begins at [`tiff_data`].
pub(crate) fn tiff(entries: &[(u16, u16, u32, u32)], rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes.extend(rest);
    bytes
}

/// Where the data of a [`tiff`] of so many entries begin.
pub(crate) fn tiff_data(entries: usize) -> u32 {
    (8 + 2 + 12 * entries + 4) as u32
}

/// A RIFF chunk that claims a length.
pub(crate) fn riff(kind: &[u8; 4], claimed: u32, data: &[u8]) -> Vec<u8> {
    [&kind[..], &claimed.to_le_bytes(), data, if data.len() % 2 == 1 { &[0] } else { &[] }].concat()
}

/// A WebP file of chunks, with a right length.
pub(crate) fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [b"WEBP".to_vec(), chunks.concat()].concat();
    riff(b"RIFF", body.len() as u32, &body)
}

/// The header of an extended WebP file.
pub(crate) fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let sides = [&(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat();
    riff(b"VP8X", 10, &[&[flags, 0, 0, 0], &sides[..]].concat())
}

/// A bitmap header of 54 bytes, then the rest.
pub(crate) fn bmp(
    width: i32,
    height: i32,
    bits: u16,
    compression: u32,
    colours: u32,
    offset: u32,
    rest: &[u8],
) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    bytes.extend((54 + rest.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(offset.to_le_bytes());
    bytes.extend(40u32.to_le_bytes());
    bytes.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    bytes.extend([1u16.to_le_bytes(), bits.to_le_bytes()].concat());
    bytes.extend([compression, 0, 2835, 2835, colours, 0].map(u32::to_le_bytes).concat());
    bytes.extend(rest);
    bytes
}

/// A JPEG marker segment with its length.
pub(crate) fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    [&[0xff, marker][..], &(data.len() as u16 + 2).to_be_bytes(), data].concat()
}

/// A grey, progressive JPEG of one flat colour with so many scans: each is a run of empty blocks over the whole picture, 15 bits for up to
/// 32,767 blocks, so the file is small and every scan visits all blocks. For sides of 1024 and more.
pub(crate) fn scans(side: u16, count: usize) -> Vec<u8> {
    let blocks = usize::from(side).div_ceil(8).pow(2);
    let mut bytes = vec![0xff, 0xd8];
    bytes.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
    let sides = [side.to_be_bytes(), side.to_be_bytes()].concat();
    bytes.extend(segment(0xc2, &[&[8][..], &sides, &[1, 1, 0x11, 0]].concat()));
    // One code of one bit: a DC difference of 0; an end-of-band run of 14 more bits.
    let table = |class: u8, symbol: u8| segment(0xc4, &[&[class, 1][..], &[0; 15], &[symbol]].concat());
    bytes.extend([table(0x00, 0), table(0x10, 0xe0)].concat());
    bytes.extend(segment(0xda, &[1, 1, 0, 0, 0, 0]));
    bytes.extend(vec![0; blocks.div_ceil(8)]);
    for _ in 1..count {
        bytes.extend(segment(0xda, &[1, 1, 0x00, 1, 63, 0]));
        let mut bits = String::new();
        let runs = blocks.div_ceil((1 << 15) - 1);
        for run in 0..runs {
            let length = blocks * (run + 1) / runs - blocks * run / runs;
            bits += &format!("0{:014b}", length - (1 << 14));
        }
        bits += &"1".repeat((8 - bits.len() % 8) % 8);
        let byte = |bits: &[u8]| bits.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
        for byte in bits.as_bytes().chunks(8).map(byte) {
            bytes.push(byte);
            if byte == 0xff {
                bytes.push(0);
            }
        }
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}
