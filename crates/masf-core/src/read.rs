//! Reading what others wrote, without believing what it claims.

use std::io::{ErrorKind, Read, Result};

/// The bytes of a file, at most `limit` of them and one more, by which a caller sees that there are too many.
///
/// Memory is set aside for `claimed` bytes, the length that the system gives. It may be wrong: a file may grow while it is read, and pipes
/// have no length.
///
/// # Errors
/// Those of reading; [`ErrorKind::OutOfMemory`] for a claim within the limit that the memory cannot hold.
pub fn read_within(file: impl Read, claimed: u64, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let claimed = usize::try_from(claimed.min(limit)).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(claimed).map_err(|_| ErrorKind::OutOfMemory)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_not_believed_and_the_limit_holds() {
        assert_eq!(read_within(&b"four"[..], u64::MAX, u64::MAX).unwrap_err().kind(), ErrorKind::OutOfMemory);
        for (claimed, limit, read) in [(0, 9, "four"), (4, 4, "four"), (9, 2, "fou"), (1, 0, "f")] {
            assert_eq!(read_within(&b"four"[..], claimed, limit).unwrap(), read.as_bytes(), "{claimed}, {limit}");
        }
    }
}
