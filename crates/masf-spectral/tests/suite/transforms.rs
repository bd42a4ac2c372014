//! Laws of the transforms over random shapes, and the fast path against the Fourier matrix.

use crate::common::{complex_noise, max_abs, noise, relative, tolerance};
use candle_core::{DType, Device, IndexOp, Tensor};
use masf_spectral::{
    Axes, ComplexTensor, Error, Extent, Norm, Result, Spectrum, dft, fft, fft2, ifft, ifft2, irfft, irfft2, rfft, rfft2,
};
use proptest::prelude::*;

const NORMS: [Norm; 3] = [Norm::Backward, Norm::Ortho, Norm::Forward];

fn norms() -> impl Strategy<Value = Norm> {
    prop::sample::select(&NORMS[..])
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(&[DType::F32, DType::F64][..])
}

fn cast(values: &ComplexTensor, dtype: DType) -> Result<ComplexTensor> {
    ComplexTensor::from_planes(values.planes().to_dtype(dtype)?)
}

fn compare(ours: &Spectrum, expected: &Spectrum) -> Result<f64> {
    relative(ours.values().planes(), expected.values().planes())
}

/// Every length that has its own code, and primes, over one axis and over two, against the matrix in f64.
#[test]
fn every_length_equals_the_matrix() -> Result<()> {
    for length in (1..=130).chain([147, 168, 196, 243, 256, 343, 384, 448, 512]) {
        let real64 = noise(length as u64, (3, 2, length))?;
        let tall64 = noise(length as u64, (2, length, 6))?;
        let signal64 = complex_noise(length as u64, (3, 2, length))?;
        let rfft64 = dft::rfft(&real64, Norm::Ortho)?;
        let rfft2_64 = dft::rfft2(&tall64, Norm::Ortho)?;
        let fft64 = dft::fft(&signal64, Norm::Ortho)?;
        for dtype in [DType::F32, DType::F64] {
            let limit = tolerance(dtype);
            let (real, tall) = (real64.to_dtype(dtype)?, tall64.to_dtype(dtype)?);
            let signal = cast(&signal64, dtype)?;
            let spectrum = rfft(&real, Norm::Ortho)?;
            assert!(compare(&spectrum, &rfft64)? < limit, "rfft {length} {dtype:?}");
            assert!(relative(&irfft(&spectrum, None)?, &real64)? < limit, "irfft {length} {dtype:?}");
            let spectrum = rfft2(&tall, Norm::Ortho)?;
            assert!(compare(&spectrum, &rfft2_64)? < limit, "rfft2 {length} {dtype:?}");
            assert!(relative(&irfft2(&spectrum, None)?, &tall64)? < limit, "irfft2 {length} {dtype:?}");
            let spectrum = fft(&signal, Norm::Ortho)?;
            assert!(compare(&spectrum, &fft64)? < limit, "fft {length} {dtype:?}");
            assert!(relative(ifft(&spectrum)?.planes(), signal64.planes())? < limit, "ifft {length} {dtype:?}");
        }
    }
    Ok(())
}

/// Shapes large enough to be split among threads in every way that the engine has.
#[test]
fn large_and_many_maps_equal_the_matrix() -> Result<()> {
    for (maps, height, width) in
        [(1, 256, 256), (3, 128, 320), (130, 16, 16), (37, 56, 56), (9, 64, 48), (5, 97, 64), (4, 64, 97)]
    {
        let maps64 = noise(7, (maps, height, width))?;
        let expected = dft::rfft2(&maps64, Norm::Backward)?;
        for dtype in [DType::F32, DType::F64] {
            let spectrum = rfft2(&maps64.to_dtype(dtype)?, Norm::Backward)?;
            assert!(compare(&spectrum, &expected)? < tolerance(dtype), "{maps} {height} {width} {dtype:?}");
            assert!(
                relative(&irfft2(&spectrum, None)?, &maps64)? < tolerance(dtype),
                "{maps} {height} {width} {dtype:?}"
            );
            let signal = cast(&complex_noise(8, (maps, height, width))?, dtype)?;
            let spectrum = fft2(&signal, Norm::Backward)?;
            let reference = dft::fft2(&cast(&signal, DType::F64)?, Norm::Backward)?;
            assert!(compare(&spectrum, &reference)? < tolerance(dtype), "{maps} {height} {width} {dtype:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn two_axes_equal_the_matrix_and_invert(
        height in 1usize..=97, width in 1usize..=97, maps in 1usize..4, norm in norms(), dtype in dtypes(), seed: u64,
    ) {
        let limit = tolerance(dtype);
        let x64 = noise(seed, (maps, height, width))?;
        let x = x64.to_dtype(dtype)?;
        let spectrum = rfft2(&x, norm)?;
        prop_assert!(compare(&spectrum, &dft::rfft2(&x64, norm)?)? < limit);
        prop_assert!(relative(&irfft2(&spectrum, None)?, &x64)? < limit);
        prop_assert!(relative(&dft::irfft2(&spectrum, None)?, &x64)? < limit);

        let z64 = complex_noise(seed, (maps, height, width))?;
        let spectrum = fft2(&cast(&z64, dtype)?, norm)?;
        prop_assert!(compare(&spectrum, &dft::fft2(&z64, norm)?)? < limit);
        prop_assert!(relative(ifft2(&spectrum)?.planes(), z64.planes())? < limit);
        prop_assert!(relative(dft::ifft2(&spectrum)?.planes(), z64.planes())? < limit);
    }

    /// `irfft2` of values that are no spectrum of a real signal: the imaginary parts that do not count must not.
    #[test]
    fn inverse_of_any_values_equals_the_matrix(
        height in 1usize..=40, width in 1usize..=40, dtype in dtypes(), seed: u64,
    ) {
        let values = complex_noise(seed, (2, height, width / 2 + 1))?;
        let facts = |values: ComplexTensor| Spectrum::new(values, Axes::Two, Extent::Half { width }, Norm::Backward);
        let ours = irfft2(&facts(cast(&values, dtype)?)?, None)?;
        prop_assert!(relative(&ours, &dft::irfft2(&facts(values)?, None)?)? < tolerance(dtype));
    }

    #[test]
    fn parseval(height in 1usize..=97, width in 1usize..=97, norm in norms(), seed: u64) {
        let x = noise(seed, (2, height, width))?;
        let energy = x.sqr()?.sum((1, 2))?;
        prop_assert!(relative(&rfft2(&x, norm)?.energy()?, &energy)? < 1e-12);
        let lines = x.sqr()?.sum(2)?;
        prop_assert!(relative(&rfft(&x, norm)?.energy()?, &lines)? < 1e-12);
        let full = fft2(&ComplexTensor::from_real(&x)?, norm)?;
        prop_assert!(relative(&full.energy()?, &energy)? < 1e-12);
    }

    #[test]
    fn linearity(height in 1usize..=97, width in 1usize..=97, a in -3.0f64..3.0, b in -3.0f64..3.0, seed: u64) {
        let (x, y) = (noise(seed, (height, width))?, noise(!seed, (height, width))?);
        let mixed = rfft2(&((&x * a)? + (&y * b)?)?, Norm::Ortho)?;
        let parts = ((rfft2(&x, Norm::Ortho)?.values().planes() * a)? + (rfft2(&y, Norm::Ortho)?.values().planes() * b)?)?;
        prop_assert!(max_abs(&(mixed.values().planes() - parts)?)? < 1e-11);
    }

    #[test]
    fn shift_theorem(height in 1usize..=97, width in 1usize..=97, down in 0usize..97, right in 0usize..97, seed: u64) {
        let x = noise(seed, (height, width))?;
        let moved = x.roll((down % height) as i32, 0)?.roll((right % width) as i32, 1)?;
        let (a, b) = (rfft2(&x, Norm::Ortho)?, rfft2(&moved, Norm::Ortho)?);
        prop_assert!(max_abs(&(a.magnitude(0.0)? - b.magnitude(0.0)?)?)? < 1e-11);
        let angle = |k: usize, n: usize, d: usize| std::f64::consts::TAU * ((k * (d % n)) % n) as f64 / n as f64;
        let phases: Vec<f64> = (0..height * (width / 2 + 1))
            .map(|i| -angle(i / (width / 2 + 1), height, down) - angle(i % (width / 2 + 1), width, right))
            .collect();
        let phases = Tensor::from_vec(phases, (height, width / 2 + 1), &Device::Cpu)?;
        let ramp = ComplexTensor::from_polar(&phases.ones_like()?, &phases)?;
        prop_assert!(max_abs(&(a.filter(&ramp)?.values().planes() - b.values().planes())?)? < 1e-11);
    }

    #[test]
    fn convolution_theorem(length in 1usize..=97, seed: u64) {
        let (x, y) = (noise(seed, length)?, noise(!seed, length)?);
        let product = rfft(&x, Norm::Backward)?.mul(&rfft(&y, Norm::Backward)?)?;
        let ours = irfft(&product, None)?.to_vec1::<f64>()?;
        let (x, y) = (x.to_vec1::<f64>()?, y.to_vec1::<f64>()?);
        for (n, value) in ours.iter().enumerate() {
            let direct: f64 = (0..length).map(|m| x[m] * y[(n + length - m) % length]).sum();
            prop_assert!((value - direct).abs() < 1e-11);
        }
    }

    #[test]
    fn hermitian_symmetry(height in 1usize..=97, width in 1usize..=97, seed: u64) {
        let x = noise(seed, (height, width))?;
        let full = fft2(&ComplexTensor::from_real(&x)?, Norm::Ortho)?;
        let half = rfft2(&x, Norm::Ortho)?;
        let (re, im) = (full.re()?.to_vec2::<f64>()?, full.im()?.to_vec2::<f64>()?);
        for r in 0..height {
            for c in 0..width {
                let (s, d) = ((height - r) % height, (width - c) % width);
                prop_assert!((re[r][c] - re[s][d]).abs() < 1e-11 && (im[r][c] + im[s][d]).abs() < 1e-11);
            }
        }
        let cut = full.values().planes().narrow(2, 0, width / 2 + 1)?;
        prop_assert!(max_abs(&(cut - half.values().planes())?)? < 1e-11);
    }

    /// Transposed, sliced and broadcast tensors give what their contiguous copies give.
    #[test]
    fn strides_do_not_matter(height in 1usize..=40, width in 1usize..=40, dtype in dtypes(), seed: u64) {
        let base = noise(seed, (3, width + 2, 2, height + 3))?.to_dtype(dtype)?;
        let view = base.narrow(1, 1, width)?.narrow(3, 2, height)?.permute((2, 0, 3, 1))?;
        prop_assert_eq!(view.dims(), &[2, 3, height, width]);
        let (a, b) = (rfft2(&view, Norm::Ortho)?, rfft2(&view.contiguous()?, Norm::Ortho)?);
        prop_assert!(max_abs(&(a.values().planes() - b.values().planes())?)? == 0.0);
        let line = base.i((0, .., 0, 0))?;
        for repeated in [line.unsqueeze(0)?, line.unsqueeze(1)?] {
            let wide = repeated.broadcast_as((width + 2, width + 2))?;
            let (a, b) = (rfft2(&wide, Norm::Ortho)?, rfft2(&wide.contiguous()?, Norm::Ortho)?);
            prop_assert!(max_abs(&(a.values().planes() - b.values().planes())?)? == 0.0);
        }
        let planes = noise(seed, (width, 3, height, 2))?.to_dtype(dtype)?.permute((3, 1, 2, 0))?;
        let (x, y) = (ComplexTensor::from_planes(planes.clone())?, ComplexTensor::from_planes(planes.contiguous()?)?);
        let (a, b) = (fft2(&x, Norm::Ortho)?, fft2(&y, Norm::Ortho)?);
        prop_assert!(max_abs(&(a.values().planes() - b.values().planes())?)? == 0.0);
    }
}

#[test]
fn half_precision_goes_by_way_of_f32() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        let x = noise(1, (2, 12, 10))?.to_dtype(dtype)?;
        let spectrum = rfft2(&x, Norm::Ortho)?;
        assert_eq!(spectrum.values().dtype(), dtype);
        let expected = dft::rfft2(&x.to_dtype(DType::F64)?, Norm::Ortho)?;
        assert!(compare(&spectrum, &expected)? < 5e-3);
    }
    Ok(())
}

#[test]
fn target_size_crops_and_fills() -> Result<()> {
    let x = noise(3, (10, 12))?;
    let spectrum = rfft2(&x, Norm::Backward)?;
    // Zero frequencies and a larger grid interpolate; the mean (zero frequency over the number of points) scales with N.
    let larger = irfft2(&spectrum, Some((10, 24)))?;
    let mean = |t: &Tensor| -> Result<f64> { Ok(t.mean_all()?.to_scalar::<f64>()?) };
    assert!((mean(&larger)? * 2.0 - mean(&x)?).abs() < 1e-13);
    assert_eq!(irfft2(&spectrum, Some((7, 5)))?.dims(), [7, 5]);
    assert!(irfft2(&spectrum, Some((0, 5))).is_err());
    Ok(())
}

#[test]
fn misuse_is_refused() -> Result<()> {
    let x = noise(3, (10, 12))?;
    let half = rfft2(&x, Norm::Backward)?;
    let full = fft2(&ComplexTensor::from_real(&x)?, Norm::Backward)?;
    for error in [
        ifft2(&half).err(),
        irfft2(&full, None).err(),
        irfft(&half, None).err(),
        rfft2(&x.i(0)?, Norm::Ortho).err(),
        rfft2(&Tensor::zeros((2, 0, 3), DType::F32, &Device::Cpu)?, Norm::Ortho).err(),
        rfft2(&Tensor::zeros((2, 3), DType::U8, &Device::Cpu)?, Norm::Ortho).err(),
        Spectrum::new(half.values().clone(), Axes::Two, Extent::Half { width: 14 }, Norm::Ortho).err(),
        half.add(&full).err(),
        half.scale(&noise(1, (2, 10, 7))?).err(),
        half.magnitude(-1.0).err(),
        half.phasor(0.0).err(),
        ComplexTensor::from_planes(x.clone()).err(),
    ] {
        let error: Error = error.ok_or_else(|| candle_core::Error::Msg("accepted".into()))?;
        assert!(!matches!(error, Error::Compute(_)), "{error}");
    }
    // A scalar has no axis at all.
    assert!(rfft(&Tensor::new(1f32, &Device::Cpu)?, Norm::Ortho).is_err());
    Ok(())
}

#[test]
fn public_types_are_send_sync_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Spectrum>();
    check::<ComplexTensor>();
    check::<Error>();
    check::<masf_spectral::Scattering2d>();
}
