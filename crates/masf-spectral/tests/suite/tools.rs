//! Laws of the decomposition, the analysis tools and the descriptors.

use crate::common::{max_abs, noise, relative};
use candle_core::{D, DType, Device, IndexOp, Tensor};
use candle_nn::Module;
use masf_spectral::{
    DecompositionConfig, LocalSpectra, LogPolar, Norm, PhaseNoise, Result, Ring, RingDescriptor, SpectralDecomposition,
    SpectralResidual, Window, amplitude_only, angular_profile, log_power_image, mix_amplitude, phase_only,
    power_spectrum, radial_profile, rfft2, shift, spectral_residual,
};
use proptest::prelude::*;

/// A quarter turn: element `(r, c)` goes to `(c, H - 1 - r)`.
fn turned(maps: &Tensor) -> Result<Tensor> {
    let rank = maps.rank();
    let height = maps.dim(rank - 2)?;
    let order: Vec<u32> = (0..height as u32).rev().collect();
    let flipped = maps.index_select(&Tensor::new(order, maps.device())?, rank - 2)?;
    Ok(flipped.transpose(rank - 2, rank - 1)?.contiguous()?)
}

fn split(bands: usize) -> Result<SpectralDecomposition> {
    SpectralDecomposition::fixed(DecompositionConfig::default().bands(bands), &Device::Cpu)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bands_add_up(height in 1usize..=97, width in 1usize..=97, bands in 1usize..6, seed: u64) {
        let x = noise(seed, (2, height, width))?;
        for (x, limit) in [(x.clone(), 1e-12), (x.to_dtype(DType::F32)?, 1e-5)] {
            let parts = split(bands)?.decompose(&x)?;
            let mut sum = parts[0].clone();
            for part in &parts[1..] {
                sum = (sum + part)?;
            }
            prop_assert!(relative(&sum, &x)? < limit);
        }
        // Each response is a share.
        let responses = split(bands)?.responses(height, width, DType::F64)?;
        prop_assert!(responses.min_all()?.to_scalar::<f64>()? > -1e-12);
        prop_assert!(responses.max_all()?.to_scalar::<f64>()? < 1.0 + 1e-12);
    }

    #[test]
    fn magnitudes_ignore_circular_shifts(height in 1usize..=60, width in 1usize..=60, down in 0i32..60, right in 0i32..60, seed: u64) {
        let x = noise(seed, (height, width))?;
        let moved = x.roll(down % height as i32, 0)?.roll(right % width as i32, 1)?;
        let (a, b) = (power_spectrum(&x, None)?, power_spectrum(&moved, None)?);
        prop_assert!(max_abs(&(a - b)?)? < 1e-10);
        // The phase ramp does the same shift.
        let ours = shift(&x, f64::from(down), f64::from(right))?;
        prop_assert!(max_abs(&(ours - moved)?)? < 1e-10);
    }

    #[test]
    fn shifts_by_fractions_undo_each_other(height in 1usize..=41, width in 1usize..=41, down in -3.0f64..3.0, right in -3.0f64..3.0, seed: u64) {
        // Odd sides have no Nyquist frequency, so nothing is lost.
        let (height, width) = (height | 1, width | 1);
        let x = noise(seed, (2, height, width))?;
        let back = shift(&shift(&x, down, right)?, -down, -right)?;
        prop_assert!(max_abs(&(back - x)?)? < 1e-10);
    }

    #[test]
    fn ring_descriptors_ignore_quarter_turns(height in 3usize..=20, width in 3usize..=20, seed: u64) {
        let maps = noise(seed, (1, 2, height, width))?;
        let rings = RingDescriptor::default();
        for (maps, limit) in [(maps.clone(), 1e-9), (maps.to_dtype(DType::F32)?, 1e-5)] {
            let (a, b) = (rings.describe(&turned(&maps)?)?, turned(&rings.describe(&maps)?)?);
            prop_assert!(max_abs(&(a - b)?)? < limit);
        }
    }

    #[test]
    fn phase_noise_keeps_amplitudes(height in 1usize..=40, width in 1usize..=40, limit in 0.0f64..3.0, seed: u64) {
        let x = noise(seed, (height, width))?;
        let noisy = PhaseNoise::new(limit, (0.0, 2.0))?;
        let changed = noisy.apply(&x, seed)?;
        let (a, b) = (rfft2(&x, Norm::Ortho)?.magnitude(0.0)?, rfft2(&changed, Norm::Ortho)?.magnitude(0.0)?);
        prop_assert!(max_abs(&(a - b)?)? < 1e-10);
        prop_assert!(noisy.phases(height, width, seed)?.iter().all(|phase| phase.abs() <= limit));
        prop_assert_eq!(noisy.phases(height, width, seed)?, noisy.phases(height, width, seed)?);
    }

    #[test]
    fn profiles_are_means_of_the_power(height in 8usize..=40, width in 8usize..=40, seed: u64) {
        // White power 1 everywhere: an impulse. Every ring and direction that holds a frequency has the mean 1.
        let mut impulse = vec![0.0; height * width];
        impulse[(seed as usize) % (height * width)] = ((height * width) as f64).sqrt();
        let spectrum = rfft2(&Tensor::from_vec(impulse, (height, width), &Device::Cpu)?, Norm::Ortho)?;
        for profile in [radial_profile(&spectrum, 4)?, angular_profile(&spectrum, 4)?] {
            for value in profile.to_vec1::<f64>()? {
                prop_assert!((value - 1.0).abs() < 1e-10);
            }
        }
    }
}

#[test]
fn bands_hold_their_frequencies() -> Result<()> {
    // Waves at radius 1/8, 1/2 and 7/8 of Nyquist belong to bands 0, 1 and 2 of three.
    let split = split(3)?;
    for (cycles, band) in [(4.0, 0), (16.0, 1), (28.0, 2)] {
        let wave: Vec<f64> =
            (0..64 * 64).map(|i| (std::f64::consts::TAU * cycles * (i % 64) as f64 / 64.0).cos()).collect();
        let wave = Tensor::from_vec(wave, (1, 1, 64, 64), &Device::Cpu)?;
        let bands = split.decompose(&wave)?;
        assert!(relative(&bands[band], &wave)? < 1e-12, "{cycles}");
        let energies = split.energies(&wave, 9)?;
        let mean = |t: &Tensor| -> Result<f64> { Ok(t.mean_all()?.to_scalar::<f64>()?) };
        assert!((mean(&energies[band])? - 0.5).abs() < 0.02);
        assert!(split.forward(&wave)?.dims() == [1, 3, 64, 64]);
    }
    assert!(split.energies(&noise(1, (1, 1, 4, 4))?, 2).is_err());
    assert!(split.forward(&noise(1, (1, 4, 4))?).is_err());
    Ok(())
}

#[test]
fn bad_configurations_are_refused() {
    let fixed = |config| SpectralDecomposition::fixed(config, &Device::Cpu);
    assert!(fixed(DecompositionConfig::default().bands(0)).is_err());
    assert!(fixed(DecompositionConfig::default().edges(&[0.5, 0.5])).is_err());
    assert!(fixed(DecompositionConfig::default().edges(&[f64::NAN])).is_err());
    assert!(fixed(DecompositionConfig::default().edges(&[0.3]).bands(4)).is_err());
    assert!(fixed(DecompositionConfig::default().softness(0.0)).is_err());
    assert!(fixed(DecompositionConfig::default().learn_gains(true)).is_err());
    assert!(RingDescriptor::new(&[], 2).is_err());
    assert!(RingDescriptor::new(&[Ring { radius: 1.0, points: 4 }], 4).is_err());
    assert!(RingDescriptor::new(&[Ring { radius: f64::NAN, points: 8 }], 2).is_err());
    assert!(PhaseNoise::new(-0.1, (0.0, 1.0)).is_err());
    assert!(PhaseNoise::new(0.1, (0.5, 0.2)).is_err());
}

#[test]
fn phase_and_amplitude() -> Result<()> {
    let x = noise(5, (2, 20, 15))?;
    let flat = rfft2(&phase_only(&x)?, Norm::Ortho)?.magnitude(0.0)?;
    assert!(max_abs(&flat.affine(1.0, -1.0)?)? < 1e-6);
    let still = rfft2(&amplitude_only(&x)?, Norm::Ortho)?;
    assert!(max_abs(&still.im()?)? < 1e-12);
    assert!(relative(&still.re()?, &rfft2(&x, Norm::Ortho)?.magnitude(0.0)?)? < 1e-12);
    let style = noise(6, (2, 20, 15))?;
    assert!(relative(&mix_amplitude(&x, &style, 0.0, 2.0)?, &x)? < 1e-12);
    let mixed = rfft2(&mix_amplitude(&x, &style, 1.0, 2.0)?, Norm::Ortho)?.magnitude(0.0)?;
    assert!(relative(&mixed, &rfft2(&style, Norm::Ortho)?.magnitude(0.0)?)? < 1e-5);
    assert!(mix_amplitude(&x, &style, 1.5, 1.0).is_err());
    assert!(shift(&x, f64::INFINITY, 0.0).is_err());
    Ok(())
}

#[test]
fn a_break_in_a_texture_is_salient() -> Result<()> {
    let grain = noise(11, (64, 64))?.flatten_all()?.to_vec1::<f64>()?;
    let texture: Vec<f64> = (grain.iter().enumerate())
        .map(|(i, grain)| {
            let (r, c) = (i / 64, i % 64);
            let odd = (30..34).contains(&r) && (40..44).contains(&c);
            0.05 * grain + if odd { 1.0 } else { 0.5 + 0.2 * (0.785 * c as f64).sin() }
        })
        .collect();
    let texture = Tensor::from_vec(texture, (64, 64), &Device::Cpu)?;
    let saliency = spectral_residual(&texture, SpectralResidual::default())?;
    let flat = saliency.flatten_all()?.to_vec1::<f64>()?;
    let best = flat.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index);
    let (r, c) = (best / 64, best % 64);
    assert!((28..36).contains(&r) && (38..46).contains(&c), "{r} {c}");
    assert!(spectral_residual(&noise(1, (4, 4))?, SpectralResidual { average: 2, sigma: 0.0 }).is_err());
    Ok(())
}

#[test]
fn directions_and_pictures() -> Result<()> {
    // Stripes across the columns: direction 0; across the rows: half a turn of four bins.
    let stripes = |along: usize| -> Result<Tensor> {
        let values = (0..32 * 32).map(|i| (0.785 * if along == 0 { i % 32 } else { i / 32 } as f64).sin()).collect();
        Ok(Tensor::from_vec(values, (32, 32), &Device::Cpu)?)
    };
    for (along, bin) in [(0, 0), (1, 2)] {
        let profile = angular_profile(&rfft2(&stripes(along)?, Norm::Ortho)?, 4)?.to_vec1::<f64>()?;
        let best = profile.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index);
        assert_eq!(best, Some(bin));
    }
    let picture = log_power_image(&stripes(0)?, Some(Window::Hann))?.to_vec2::<f64>()?;
    // 0.785 rad per pixel is bin 4 of 32; the picture is symmetric about its centre.
    assert!(picture[16][20] > picture[16][16] && (picture[16][20] - picture[16][12]).abs() < 1e-6);
    assert!(radial_profile(&rfft2(&stripes(0)?, Norm::Ortho)?, 0).is_err());
    Ok(())
}

#[test]
fn half_precision_is_computed_by_way_of_f32() -> Result<()> {
    let half = noise(3, (64, 64))?.affine(50.0, 300.0)?.to_dtype(DType::F16)?;
    let wide = half.to_dtype(DType::F32)?;
    // Their sum is beyond the range of f16.
    for window in [None, Some(Window::Hann)] {
        let (a, b) = (log_power_image(&half, window)?, log_power_image(&wide, window)?);
        assert_eq!(a.dtype(), DType::F16);
        assert!(relative(&a, &b)? < 1e-3);
        let (a, b) = (power_spectrum(&half, window)?, power_spectrum(&wide, window)?);
        assert_eq!(a.dtype(), DType::F16);
        assert!(relative(&a, &b)? < 1e-3);
    }
    // The power of the zero frequency is beyond the range of f16, and counts in no direction.
    let (a, b) = (rfft2(&half, Norm::Ortho)?, rfft2(&wide, Norm::Ortho)?);
    let (a, b) = (angular_profile(&a, 4)?, angular_profile(&b, 4)?);
    assert_eq!(a.dtype(), DType::F16);
    assert!(relative(&a, &b)? < 1e-2);
    // So is the zero frequency itself, of a brighter map.
    let bright = noise(3, (64, 64))?.affine(50.0, 1100.0)?.to_dtype(DType::F16)?;
    let spectrum = rfft2(&bright, Norm::Ortho)?;
    assert_eq!(spectrum.re()?.flatten_all()?.get(0)?.to_dtype(DType::F32)?.to_scalar::<f32>()?, f32::INFINITY);
    let wide = rfft2(&bright.to_dtype(DType::F32)?, Norm::Ortho)?;
    assert!(relative(&angular_profile(&spectrum, 4)?, &angular_profile(&wide, 4)?)? < 1e-2);
    // Results within the range of f16, with a square, a residual, a factor and a power on the way that are not.
    let cpu = &Device::Cpu;
    let pixel: Vec<f32> = (0..64).map(|i| if i == 27 { 300.0 } else { 0.0 }).collect();
    let pixel = Tensor::from_vec(pixel, (8, 8), cpu)?.to_dtype(DType::F16)?;
    let flat = Tensor::full(8.75e-4f32, (256, 512), cpu)?.to_dtype(DType::F16)?;
    let grey = Tensor::full(0.5f32, (1, 64, 64), cpu)?.to_dtype(DType::F16)?;
    let grain = noise(4, (1, 64, 64))?.to_dtype(DType::F16)?;
    let tools = |dtype: DType| -> Result<[Tensor; 4]> {
        let [pixel, flat, grey, grain] = [&pixel, &flat, &grey, &grain].map(|maps| maps.to_dtype(dtype));
        let (grey, grain) = (grey?, grain?);
        Ok([
            split(1)?.energies(&pixel?, 3)?.remove(0),
            spectral_residual(&flat?, SpectralResidual::default())?,
            mix_amplitude(&grey, &grain, 1.0, 2.0)?,
            rfft2(&grey, Norm::Backward)?.energy()?,
        ])
    };
    for (a, b) in tools(DType::F16)?.iter().zip(&tools(DType::F32)?) {
        assert_eq!(a.dtype(), DType::F16);
        assert!(relative(a, b)? < 1e-3, "{a} for {b}");
    }
    // The zero frequency, 64 * 1100, is beyond the range of f16.
    let bright = noise(3, (64, 64))?.affine(50.0, 1100.0)?.to_dtype(DType::F16)?;
    let tools = |maps: &Tensor| -> Result<Vec<Tensor>> {
        let mut results = split(3)?.decompose(maps)?;
        results.extend([phase_only(maps)?, amplitude_only(maps)?, shift(maps, 1.0, 2.0)?]);
        results.push(PhaseNoise::new(0.3, (0.0, 1.0))?.apply(maps, 7)?);
        results.push(LogPolar::default().signature(maps, None)?);
        Ok(results)
    };
    for (a, b) in tools(&bright)?.iter().zip(&tools(&bright.to_dtype(DType::F32)?)?) {
        assert_eq!(a.dtype(), DType::F16);
        assert!(a.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?.is_finite());
        assert!(relative(a, b)? < 1e-3, "{a} for {b}");
    }
    Ok(())
}

#[test]
fn profiles_of_large_maps() -> Result<()> {
    // A matrix of frequencies and bins would take hundreds of GB.
    let spectrum = rfft2(&noise(12, (256, 256))?, Norm::Ortho)?;
    assert_eq!(radial_profile(&spectrum, 1 << 20)?.dims(), [1usize << 20]);
    assert!(radial_profile(&spectrum, usize::MAX).is_err() && angular_profile(&spectrum, usize::MAX).is_err());
    // Sums of 100,000 equal powers, whose rounding errors all have one sign.
    let mut impulse = vec![0f32; 512 * 512];
    impulse[512 * 100 + 37] = 512.0;
    let spectrum = rfft2(&Tensor::from_vec(impulse, (512, 512), &Device::Cpu)?, Norm::Ortho)?;
    for mean in radial_profile(&spectrum, 2)?.to_vec1::<f32>()? {
        assert!((mean - 1.0).abs() < 1e-5, "{mean}");
    }
    Ok(())
}

#[test]
fn rings_begin_at_their_boundaries() -> Result<()> {
    let wave: Vec<f64> = (0..400).map(|i| (std::f64::consts::TAU * 29.0 * f64::from(i / 2) / 200.0).cos()).collect();
    let spectrum = rfft2(&Tensor::from_vec(wave, (200, 2), &Device::Cpu)?, Norm::Ortho)?;
    let profile = radial_profile(&spectrum, 100)?.to_vec1::<f64>()?;
    let best = profile.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index);
    // 0.29 * 100 is less than 29 in f64.
    assert_eq!(best, Some(29));
    Ok(())
}

#[test]
fn local_spectra_are_those_of_the_patches() -> Result<()> {
    let maps = noise(8, (2, 3, 17, 12))?;
    let local = LocalSpectra { patch: 6, stride: 3, window: Some(Window::Hann) };
    let spectra = local.of(&maps)?;
    assert_eq!(spectra.dims(), [2, 3, 4, 3, 6, 4]);
    let patch = Window::Hann.apply(&maps.narrow(2, 6, 6)?.narrow(3, 3, 6)?)?;
    let direct = rfft2(&patch, Norm::Ortho)?;
    let ours = spectra.re()?.i((.., .., 2, 1))?;
    assert!(max_abs(&(ours - direct.re()?)?)? < 1e-12);
    assert!(LocalSpectra { patch: 13, stride: 1, window: None }.of(&maps).is_err());
    assert!(LocalSpectra { patch: 4, stride: 0, window: None }.of(&maps).is_err());
    Ok(())
}

#[test]
fn log_polar_and_fourier_mellin() -> Result<()> {
    // An odd square turned about its centre: the angle axis rotates by a quarter of its samples.
    let map = noise(9, (33, 33))?;
    let polar = LogPolar { radii: 12, angles: 16, inner: 2.0, outer: Some(15.0) };
    let (a, b) = (polar.sample(&map, (16.0, 16.0))?, polar.sample(&turned(&map)?, (16.0, 16.0))?);
    assert!(max_abs(&(a.roll(4, 1)? - b)?)? < 1e-9);
    let (a, b) = (polar.signature(&map, None)?, polar.signature(&map.roll(5, 0)?.roll(-3, 1)?, None)?);
    assert_eq!(a.dims(), [12, 9]);
    assert!(relative(&a, &b)? < 1e-10);
    let turned_signature = polar.signature(&turned(&map)?, None)?;
    assert!(relative(&turned_signature, &a)? < 1e-9);
    let other = polar.signature(&noise(10, (33, 33))?, None)?;
    assert!(relative(&other, &a)? > 1e-2);
    // Beyond the borders there is nothing.
    let outside = polar.sample(&map, (-100.0, -100.0))?;
    assert_eq!(max_abs(&outside)?, 0.0);
    assert!(LogPolar { inner: 0.0, ..polar }.sample(&map, (0.0, 0.0)).is_err());
    assert!(polar.sample(&map, (f64::NAN, 0.0)).is_err());
    assert!(LogPolar { radii: usize::MAX, ..polar }.sample(&map, (16.0, 16.0)).is_err());
    assert_eq!(a.sum(D::Minus1)?.dims(), [12]);
    Ok(())
}
