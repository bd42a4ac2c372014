//! The instruction sets that have kernels here, and what they do beyond [`pulp::Simd`]: transposing a square block of registers.

use pulp::{NullaryFnOnce, Simd};

/// Lanes of the widest registers.
pub(crate) const MAX_LANES: usize = 16;

/// A kernel that runs on some instruction set.
pub(super) trait Kernel {
    fn run<S: Wide>(self, simd: S);
}

/// Whether this machine has an instruction set that the kernels run on.
pub(super) fn available() -> bool {
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) | pulp::Arch::V3(_) => true,
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => true,
        _ => false,
    }
}

/// Runs a kernel on the best instruction set that this machine has.
pub(super) fn dispatch(kernel: impl Kernel) {
    struct Call<S, K>(S, K);
    impl<S: Wide, K: Kernel> NullaryFnOnce for Call<S, K> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            self.1.run(self.0);
        }
    }
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(simd) => simd.vectorize(Call(simd, kernel)),
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(simd) => simd.vectorize(Call(simd, kernel)),
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(simd) => Simd::vectorize(simd, Call(simd, kernel)),
        // `available` says no on the others.
        _ => {}
    }
}

/// Block transposes; the default goes element by element.
pub(crate) trait Wide: Simd {
    /// Transposes the first `F32_LANES` registers.
    #[inline(always)]
    fn transpose_f32(self, block: &mut [Self::f32s; MAX_LANES]) {
        transpose::<f32>(pulp::bytemuck::cast_slice_mut(&mut block[..Self::F32_LANES]), Self::F32_LANES);
    }

    /// Transposes the first `F64_LANES` registers.
    #[inline(always)]
    fn transpose_f64(self, block: &mut [Self::f64s; MAX_LANES]) {
        transpose::<f64>(pulp::bytemuck::cast_slice_mut(&mut block[..Self::F64_LANES]), Self::F64_LANES);
    }
}

#[inline(always)]
fn transpose<T: Copy>(values: &mut [T], side: usize) {
    for row in 0..side {
        for column in 0..row {
            values.swap(row * side + column, column * side + row);
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Wide for pulp::aarch64::Neon {}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{MAX_LANES, Wide};
    use pulp::x86::{V3, V4};
    use pulp::{cast, f32x8, f32x16};

    impl Wide for V4 {
        /// Four rounds of shuffles: within 128-bit parts by 1 and 2 elements, then whole parts by 4 and 8.
        #[inline(always)]
        fn transpose_f32(self, block: &mut [f32x16; MAX_LANES]) {
            let isa = self.avx512f;
            let r = *block;
            let mut t = r;
            for i in 0..8 {
                let (a, b) = (cast(r[2 * i]), cast(r[2 * i + 1]));
                t[2 * i] = cast(isa._mm512_unpacklo_ps(a, b));
                t[2 * i + 1] = cast(isa._mm512_unpackhi_ps(a, b));
            }
            let mut u = t;
            for i in 0..4 {
                let [a, b, c, d] = [cast(t[4 * i]), cast(t[4 * i + 1]), cast(t[4 * i + 2]), cast(t[4 * i + 3])];
                u[4 * i] = cast(isa._mm512_shuffle_ps::<0x44>(a, c));
                u[4 * i + 1] = cast(isa._mm512_shuffle_ps::<0xee>(a, c));
                u[4 * i + 2] = cast(isa._mm512_shuffle_ps::<0x44>(b, d));
                u[4 * i + 3] = cast(isa._mm512_shuffle_ps::<0xee>(b, d));
            }
            for i in 0..4 {
                let [p, q, r, s] = [cast(u[i]), cast(u[4 + i]), cast(u[8 + i]), cast(u[12 + i])];
                let a = isa._mm512_shuffle_f32x4::<0x88>(p, q);
                let b = isa._mm512_shuffle_f32x4::<0xdd>(p, q);
                let c = isa._mm512_shuffle_f32x4::<0x88>(r, s);
                let d = isa._mm512_shuffle_f32x4::<0xdd>(r, s);
                block[i] = cast(isa._mm512_shuffle_f32x4::<0x88>(a, c));
                block[4 + i] = cast(isa._mm512_shuffle_f32x4::<0x88>(b, d));
                block[8 + i] = cast(isa._mm512_shuffle_f32x4::<0xdd>(a, c));
                block[12 + i] = cast(isa._mm512_shuffle_f32x4::<0xdd>(b, d));
            }
        }
    }

    impl Wide for V3 {
        /// Three rounds of shuffles: within 128-bit parts by 1 and 2 elements, then whole parts.
        #[inline(always)]
        fn transpose_f32(self, block: &mut [f32x8; MAX_LANES]) {
            let isa = self.avx;
            let r = *block;
            let mut t = r;
            for i in 0..4 {
                let (a, b) = (cast(r[2 * i]), cast(r[2 * i + 1]));
                t[2 * i] = cast(isa._mm256_unpacklo_ps(a, b));
                t[2 * i + 1] = cast(isa._mm256_unpackhi_ps(a, b));
            }
            let mut u = t;
            for i in 0..2 {
                let [a, b, c, d] = [cast(t[4 * i]), cast(t[4 * i + 1]), cast(t[4 * i + 2]), cast(t[4 * i + 3])];
                u[4 * i] = cast(isa._mm256_shuffle_ps::<0x44>(a, c));
                u[4 * i + 1] = cast(isa._mm256_shuffle_ps::<0xee>(a, c));
                u[4 * i + 2] = cast(isa._mm256_shuffle_ps::<0x44>(b, d));
                u[4 * i + 3] = cast(isa._mm256_shuffle_ps::<0xee>(b, d));
            }
            for i in 0..4 {
                let (a, b) = (cast(u[i]), cast(u[4 + i]));
                block[i] = cast(isa._mm256_permute2f128_ps::<0x20>(a, b));
                block[4 + i] = cast(isa._mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Check<'a>(&'a mut bool);

    impl Kernel for Check<'_> {
        #[inline(always)]
        fn run<S: Wide>(self, simd: S) {
            let mut block = [simd.splat_f32s(0.0); MAX_LANES];
            let lanes = S::F32_LANES;
            let values: &mut [f32] = pulp::bytemuck::cast_slice_mut(&mut block[..lanes]);
            for (index, value) in values.iter_mut().enumerate() {
                *value = index as f32;
            }
            simd.transpose_f32(&mut block);
            let values: &[f32] = pulp::bytemuck::cast_slice(&block[..lanes]);
            *self.0 = (0..lanes * lanes).all(|at| values[at] == (at % lanes * lanes + at / lanes) as f32);
        }
    }

    #[test]
    fn blocks_are_transposed() {
        if !available() {
            return;
        }
        let mut right = false;
        dispatch(Check(&mut right));
        assert!(right);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            let mut right = false;
            Check(&mut right).run(simd);
            assert!(right);
        }
    }
}
