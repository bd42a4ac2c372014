//! Random numbers: a stream for what is drawn once an image, and noise fields that can be evaluated at any point.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// Draws from a stream.
pub(crate) struct Draw(pub(crate) ChaCha8Rng);

impl Draw {
    /// Uniform in `[low, high)`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `0..count`.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(count)) >> 32) as u32
    }

    /// The key of a noise field.
    pub(crate) fn field(&mut self) -> Field {
        Field(self.0.next_u64())
    }
}

/// A noise field.
#[derive(Clone, Copy)]
pub(crate) struct Field(u64);

impl Field {
    /// Random bits of a lattice point (the finaliser of SplitMix64).
    fn bits(self, x: i64, y: i64) -> u64 {
        let mut z =
            self.0 ^ (x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (y as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Nearly Gaussian, mean 0 and standard deviation 1, independent from point to point: a sum of four uniforms.
    pub(crate) fn white(self, x: i64, y: i64) -> f64 {
        let bits = self.bits(x, y);
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 3.0_f64.sqrt()
    }

    /// Smooth noise in `[-1, 1]` with features of about one unit: lattice values, interpolated (value noise).
    pub(crate) fn smooth(self, x: f64, y: f64) -> f64 {
        let (left, top) = (x.floor(), y.floor());
        let (column, row) = (left as i64, top as i64);
        let value = |dx: i64, dy: i64| (self.bits(column + dx, row + dy) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        let (across, down) = (ease(x - left), ease(y - top));
        let upper = value(0, 0) + across * (value(1, 0) - value(0, 0));
        let lower = value(0, 1) + across * (value(1, 1) - value(0, 1));
        upper + down * (lower - upper)
    }
}
