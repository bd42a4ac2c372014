//! Randomness: one seed, an independent stream for every purpose.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

/// The random stream of a purpose, such as `"coreset"`.
///
/// Streams of different purposes or seeds are independent, so adding a consumer leaves the others' numbers as they were.
/// The same on every machine.
///
/// ```
/// use rand_chacha::rand_core::RngCore;
/// let mut first = masf_core::random_stream(0, "coreset");
/// let mut again = masf_core::random_stream(0, "coreset");
/// assert_eq!(first.next_u64(), again.next_u64());
/// ```
pub fn random_stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(purpose).finalize();
    ChaCha8Rng::from_seed(digest.into())
}
