//! Rounding of `f32` to `bf16`, to nearest, ties to even; NaN stays NaN.

/// The 16 bits of a `bf16`.
#[inline(always)]
pub(super) fn bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // The addition would carry out of the exponent of a NaN.
    let quiet = (bits >> 16) | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

/// Neighbouring numbers to be rounded.
pub(super) struct Rounding {
    pub(super) input: *const f32,
    pub(super) len: usize,
    /// The numbers as `bf16`, one after another, or as `f32`.
    pub(super) output: Target,
}

/// Where rounded numbers go.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Bf16(*mut u16),
    F32(*mut f32),
}

/// Rounds.
///
/// # Safety
///
/// `len` numbers are readable at the input and writable at the output, which nobody else accesses.
#[inline(always)]
pub(super) unsafe fn round(rounding: &Rounding) {
    // SAFETY: passed on from the caller.
    unsafe {
        let input = std::slice::from_raw_parts(rounding.input, rounding.len);
        match rounding.output {
            Target::Bf16(output) => {
                let output = std::slice::from_raw_parts_mut(output, rounding.len);
                output.iter_mut().zip(input).for_each(|(to, from)| *to = bits(*from));
            }
            Target::F32(output) => {
                let output = std::slice::from_raw_parts_mut(output, rounding.len);
                output.iter_mut().zip(input).for_each(|(to, from)| *to = f32::from_bits(u32::from(bits(*from)) << 16));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        let mut x = 1u32;
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-42, 1.003_906_2, 1.011_718_8];
        let random = std::iter::repeat_with(|| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(x)
        });
        for x in special.into_iter().chain(random.take(100_000)) {
            let found = f32::from_bits(u32::from(bits(x)) << 16);
            let expected = half::bf16::from_f32(x).to_f32();
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{x}: {found} for {expected}"
            );
        }
    }
}
