//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use masf_core::Error;

/// A number of bytes; written `512MiB`, `2GiB`, `100MB` or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub usize);

const UNITS: [(&str, usize); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl ByteSize {
    /// So many mebibytes; at most as many bytes as a `usize` counts.
    pub const fn mib(count: usize) -> Self {
        Self(count.saturating_mul(1 << 20))
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| {
                let cut = text.len().checked_sub(name.len())?;
                let tail = text.get(cut..)?;
                tail.eq_ignore_ascii_case(name).then(|| (text[..cut].trim_end(), *unit))
            })
            .unwrap_or((text, 1));
        let bytes = match number.parse::<usize>() {
            Ok(count) => count.checked_mul(unit),
            Err(_) => number
                .parse::<f64>()
                .ok()
                .map(|n| n * unit as f64)
                .filter(|b| *b >= 0.0 && *b < (usize::MAX as f64).min(1e18))
                .map(|b| b as usize),
        };
        bytes.map(Self).ok_or_else(|| Error::argument("size", text, "a number of bytes such as 512MiB or 2GiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = [UNITS[2], UNITS[1], UNITS[0]]
            .into_iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match exact {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512MiB\" or a number of bytes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                usize::try_from(bytes).map(ByteSize).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                usize::try_from(bytes).map(ByteSize).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        let sizes = [
            ("512MiB", 512 << 20),
            ("2 GiB", 2 << 30),
            ("1.5kib", 1536),
            ("100MB", 100_000_000),
            ("7", 7),
            ("7b", 7),
            ("0", 0),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "MiB", "-1", "NaN", "1e300GiB", "12 parsecs", "99999999999999999999"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for bytes in [0, 1, 1024, 1 << 20, 3 << 29, 1_000_000] {
            assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>().unwrap(), ByteSize(bytes));
        }
        assert_eq!(ByteSize::mib(usize::MAX), ByteSize(usize::MAX));
    }
}
