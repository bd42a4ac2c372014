//! Laws of the views: they are seeded, do not depend on the batch, keep amplitudes, and are undone exactly.

use candle_core::{DType, Device, Tensor};
use masf_core::{Result, ScoreMap, Scores, Views};
use masf_spectral::{Norm, rfft2, shift};
use masf_tta::{SpectralViews, ViewParams};
use proptest::prelude::*;

fn build(params: ViewParams, stride: usize, seed: u64) -> SpectralViews {
    params.check().unwrap().build(stride, seed).unwrap()
}

fn images(batch: usize, height: usize, width: usize) -> Tensor {
    let values: Vec<f32> =
        (0..batch * 3 * height * width).map(|i| ((i * 7919 + i / 13 * 31) % 257) as f32 / 64.0 - 2.0).collect();
    Tensor::from_vec(values, (batch, 3, height, width), &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn without_views_there_is_the_image_alone() -> Result<()> {
    let images = images(2, 17, 23);
    let views = build(ViewParams::default(), 16, 0).views(&images)?;
    assert_eq!(views.len(), 1);
    assert_eq!(bits(&views[0]), bits(&images));
    Ok(())
}

#[test]
fn noise_depends_on_seed_and_view_and_not_on_the_batch() -> Result<()> {
    let params = ViewParams { noise: 2, shifts: 1, ..ViewParams::default() };
    let batch = images(3, 40, 36);
    let views = build(params, 16, 1);
    let together = views.views(&batch)?;
    assert_eq!(together.len(), 4);
    assert_eq!(bits(&together[0]), bits(&batch));
    for index in [2, 0, 1] {
        let alone = views.views(&batch.narrow(0, index, 1)?)?;
        for (alone, together) in alone.iter().zip(&together) {
            assert_eq!(bits(alone), bits(&together.narrow(0, index, 1)?));
        }
    }
    let again = build(params, 16, 1).views(&batch)?;
    let other = build(params, 16, 2).views(&batch)?;
    assert_eq!(bits(&again[1]), bits(&together[1]));
    assert_ne!(bits(&other[1]), bits(&together[1]));
    assert_ne!(bits(&together[2]), bits(&together[1]));
    Ok(())
}

#[test]
fn phase_noise_keeps_amplitudes_and_its_band() -> Result<(), Box<dyn std::error::Error>> {
    for (height, width) in [(32, 32), (31, 45)] {
        let params = ViewParams { noise: 1, limit: 0.3, band: (0.2, 0.6), ..ViewParams::default() };
        let images = images(1, height, width);
        let views = build(params, 16, 0).views(&images)?;
        let [before, after] = [&images, &views[1]].map(|images| rfft2(images, Norm::Ortho).unwrap());
        let change = (before.magnitude(0.0)? - after.magnitude(0.0)?)?;
        assert!(largest(&change) < 1e-3 * largest(&before.magnitude(0.0)?));
        let (re, im) = ((before.re()? - after.re()?)?, (before.im()? - after.im()?)?);
        let moved = (re.sqr()? + im.sqr()?)?.sqrt()?.to_dtype(DType::F32)?.get(0)?.get(0)?.to_vec2::<f32>()?;
        let amplitude = before.magnitude(0.0)?.get(0)?.get(0)?.to_vec2::<f32>()?;
        let mut inside = 0.0f32;
        for (row, (moved, amplitude)) in moved.iter().zip(&amplitude).enumerate() {
            for (column, (moved, amplitude)) in moved.iter().zip(amplitude).enumerate() {
                let fy = 2.0 * row.min(height - row) as f32 / height as f32;
                let radius = fy.hypot(2.0 * column as f32 / width as f32);
                if (0.2..=0.6).contains(&radius) {
                    inside = inside.max(*moved);
                    // A turn by at most 0.3 moves a value by at most 2 sin(0.15) of its amplitude.
                    assert!(*moved <= 0.299 * amplitude + 1e-3);
                } else {
                    assert!(*moved < 1e-3, "radius {radius} moved by {moved}");
                }
            }
        }
        assert!(inside > 0.05, "nothing moved");
    }
    Ok(())
}

#[test]
fn a_shifted_view_is_the_phase_ramp_of_the_spectrum() -> Result<()> {
    let params = ViewParams { shifts: 8, ..ViewParams::default() };
    let images = images(1, 40, 48);
    let views = build(params, 8, 0).views(&images)?;
    let directions = [(0., 8.), (8., 0.), (0., -8.), (-8., 0.), (8., 8.), (-8., -8.), (8., -8.), (-8., 8.)];
    assert_eq!(views.len(), 9);
    for (view, (down, right)) in views[1..].iter().zip(directions) {
        let ramp = shift(&images, down, right).unwrap();
        assert!(largest(&(view - ramp)?) < 1e-4, "shift by {down}, {right}");
    }
    Ok(())
}

/// A backbone without borders: the mean of every block of `stride` pixels.
fn pooled(images: &Tensor, stride: usize) -> Result<Scores> {
    let values = images.mean(1)?.unsqueeze(1)?.avg_pool2d(stride)?.squeeze(1)?;
    Ok(Scores { maps: vec![ScoreMap { name: format!("pool{stride}"), values }], image: None })
}

#[test]
fn maps_of_shifted_views_come_back_exactly_at_any_stride() -> Result<()> {
    let params = ViewParams { noise: 1, shifts: 8, margin: 0, ..ViewParams::default() };
    let images = images(2, 64, 96);
    let views = build(params, 16, 0);
    for stride in [1, 2, 4, 8, 16] {
        let plain = pooled(&images, stride)?;
        for (index, view) in views.views(&images)?.iter().enumerate().filter(|(index, _)| *index != 1) {
            let realigned = views.realign(index, pooled(view, stride)?, (64, 96))?;
            assert_eq!(bits(&realigned.scores.maps[0].values), bits(&plain.maps[0].values), "view {index}");
        }
        let noisy = views.realign(1, plain.clone(), (64, 96))?;
        assert!(noisy.valid[0].is_none());
        assert_eq!(bits(&noisy.scores.maps[0].values), bits(&plain.maps[0].values));
    }
    Ok(())
}

#[test]
fn what_wrapped_and_what_is_near_the_seam_does_not_count() -> Result<()> {
    let params = ViewParams { shifts: 8, margin: 8, ..ViewParams::default() };
    let views = build(params, 8, 0);
    let plain = pooled(&images(1, 48, 40), 8)?;
    // Down by 8: the last row wrapped, the one before it lies at the border of the view; the first lies at the seam.
    let down = views.realign(2, plain.clone(), (48, 40))?.valid[0].clone().unwrap().to_vec2::<u8>()?;
    assert_eq!(down.iter().map(|row| row[0]).collect::<Vec<_>>(), [0, 1, 1, 1, 0, 0]);
    assert!(down.iter().all(|row| row.iter().all(|value| *value == row[0])));
    let up = views.realign(4, plain.clone(), (48, 40))?.valid[0].clone().unwrap().to_vec2::<u8>()?;
    assert_eq!(up.iter().map(|row| row[0]).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 0]);
    let diagonal = views.realign(5, plain.clone(), (48, 40))?.valid[0].clone().unwrap().to_vec2::<u8>()?;
    assert_eq!(diagonal[1], [0, 1, 1, 0, 0]);
    assert!(views.realign(9, plain.clone(), (48, 40)).is_err());
    let error = views.realign(1, plain, (48, 48)).unwrap_err().to_string();
    assert!(error.contains("pool8") && error.contains("48x48"), "{error}");
    Ok(())
}

#[test]
fn sizes_that_no_stride_divides_wrap_without_counting() -> Result<()> {
    // 20 rows on a grid of 3 steps of 8: what wraps would lie between the steps.
    let views = build(ViewParams { shifts: 2, margin: 0, ..ViewParams::default() }, 8, 0);
    let map = Tensor::arange(0f32, 9f32, &Device::Cpu)?.reshape((1, 3, 3))?;
    let scores = Scores { maps: vec![ScoreMap { name: "m".into(), values: map }], image: None };
    let valid = views.realign(2, scores, (20, 20))?.valid[0].clone().unwrap().to_vec2::<u8>()?;
    assert_eq!(valid.iter().map(|row| row[0]).collect::<Vec<_>>(), [1, 1, 0]);
    Ok(())
}

#[test]
fn unusable_images_are_refused() {
    let views = build(ViewParams { noise: 1, shifts: 1, ..ViewParams::default() }, 16, 0);
    for shape in [vec![3, 32, 32], vec![0, 3, 32, 32], vec![1, 1, 32, 32], vec![1, 3, 16, 32]] {
        let images = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert!(views.views(&images).unwrap_err().to_string().contains("expected"));
    }
    assert!(views.views(&Tensor::zeros((1, 3, 32, 32), DType::F64, &Device::Cpu).unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn noise_stays_small_and_keeps_the_mean(height in 2usize..40, width in 2usize..40, seed: u64, limit in 0.0f64..0.3) {
        let params = ViewParams { noise: 1, limit, ..ViewParams::default() };
        let images = images(1, height, width);
        let view = build(params, 16, seed).views(&images).unwrap().remove(1);
        let change = (&view - &images).unwrap();
        // Parseval: no bin moves by more than its amplitude times the limit.
        let energy = |tensor: &Tensor| tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        prop_assert!(energy(&change) <= (limit * limit) as f32 * energy(&images) + 1e-3);
        let mean = |tensor: &Tensor| tensor.mean_all().unwrap().to_scalar::<f32>().unwrap();
        prop_assert!((mean(&view) - mean(&images)).abs() < 1e-4);
    }
}
