//! Scattering against Kymatio (`tests/reference/spectral_scattering.py`), and the laws of the first-order maps.

use candle_core::{Device, Tensor, Var};
use masf_spectral::{Result, Scattering2d, ScatteringConfig, WaveletMaps};
use rayon::prelude::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/spectral_scattering.safetensors");

fn image(height: usize, width: usize) -> Result<Tensor> {
    let values: Vec<f64> = (0..height * width)
        .map(|index| {
            let (r, c) = ((index / width) as f64, (index % width) as f64);
            (0.9 * r + 0.31 * c).sin() + 0.5 * (0.013 * r * c).cos() + 0.02 * ((7.0 * r + 13.0 * c) % 11.0)
        })
        .collect();
    Ok(Tensor::from_vec(values, (1, 1, height, width), &Device::Cpu)?)
}

fn max_abs(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.abs()?.max_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?)
}

#[test]
fn equals_kymatio() -> Result<()> {
    let expected = candle_core::safetensors::load(DATA, &Device::Cpu)?;
    let cases = [
        ("j2_l4_o2", 32, 24, 2, 4, 2),
        ("j3_l8_o1", 40, 32, 3, 8, 1),
        ("j3_l4_o2", 29, 37, 3, 4, 2),
        ("j1_l6_o1", 14, 17, 1, 6, 1),
        ("j3_l8_small", 8, 9, 3, 8, 1),
    ];
    assert_eq!(cases.len(), expected.len());
    for (name, height, width, scales, angles, order) in cases {
        let config = ScatteringConfig::default().scales(scales).angles(angles).max_order(order);
        let scattering = Scattering2d::new(config)?;
        for dtype in [candle_core::DType::F64, candle_core::DType::F32] {
            let ours = scattering.forward(&image(height, width)?.to_dtype(dtype)?)?;
            let theirs = expected[name].to_dtype(dtype)?;
            assert_eq!(ours.dims()[2..], *theirs.dims(), "{name}");
            let error = max_abs(&(ours.squeeze(0)?.squeeze(0)? - &theirs)?)? / max_abs(&theirs)?;
            assert!(error < 1e-5, "{name}: relative error {error}");
        }
    }
    Ok(())
}

#[test]
fn wavelet_maps_at_the_full_stride_are_the_first_order() -> Result<()> {
    let images = image(40, 32)?;
    let scattering = Scattering2d::new(ScatteringConfig::default())?;
    let coefficients = scattering.first_order(&images)?;
    let requests = [0, 1, 2].map(|scale| WaveletMaps { scale, stride: 8 });
    let maps = scattering.wavelet_maps(&images, &requests)?;
    for (scale, map) in maps.iter().enumerate() {
        let same = coefficients.narrow(2, 1 + 8 * scale, 8)?;
        assert!(max_abs(&(map - same)?)? < 1e-9);
    }
    Ok(())
}

#[test]
fn wavelet_maps_do_not_depend_on_each_other() -> Result<()> {
    let images = image(40, 32)?;
    let scattering = Scattering2d::new(ScatteringConfig::default())?;
    let requests = [(2, 8), (1, 2), (2, 1), (2, 4), (1, 8)].map(|(scale, stride)| WaveletMaps { scale, stride });
    for (request, map) in requests.iter().zip(scattering.wavelet_maps(&images, &requests)?) {
        let alone = scattering.wavelet_maps(&images, std::slice::from_ref(request))?.remove(0);
        assert_eq!(max_abs(&(map - alone)?)?, 0.0, "{request:?}");
    }
    Ok(())
}

#[test]
fn wavelet_maps_answer_the_orientation_and_scale_of_a_grating() -> Result<()> {
    // Waves along the rows at the pass band of scale 1, 3 pi / 8: the wavelet of angle 0 rad is index 3 of 8.
    let values: Vec<f32> = (0..64 * 64).map(|i| (1.178 * (i / 64) as f32).cos()).collect();
    let images = Tensor::from_vec(values, (1, 1, 64, 64), &Device::Cpu)?;
    let scattering = Scattering2d::new(ScatteringConfig::default())?;
    let requests = [(0, 4), (1, 4), (2, 4), (2, 1), (0, 2)].map(|(scale, stride)| WaveletMaps { scale, stride });
    let maps = scattering.wavelet_maps(&images, &requests)?;
    assert_eq!(maps[3].dims(), [1, 1, 8, 64, 64]);
    assert_eq!(maps[4].dims(), [1, 1, 8, 32, 32]);
    let mut energies = Vec::new();
    for map in maps.iter().take(3) {
        energies.extend(map.narrow(3, 4, 8)?.narrow(4, 4, 8)?.mean((3, 4))?.flatten_all()?.to_vec1::<f32>()?);
    }
    let best = energies.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index);
    assert_eq!(best, Some(8 + 3));
    Ok(())
}

#[test]
fn gradients_flow_and_are_finite() -> Result<()> {
    let images = Var::from_tensor(&Tensor::zeros((1, 2, 16, 16), candle_core::DType::F32, &Device::Cpu)?)?;
    let scattering = Scattering2d::new(ScatteringConfig::default().scales(2).max_order(2))?;
    let grads = scattering.forward(images.as_tensor())?.sum_all()?.backward()?;
    let grad = grads.get(images.as_tensor()).ok_or_else(|| candle_core::Error::Msg("no gradient".into()))?;
    assert!(max_abs(grad)?.is_finite());
    assert!(max_abs(grad)? > 0.0);
    Ok(())
}

#[test]
fn the_first_use_may_come_from_many_threads_at_once() -> Result<()> {
    let images = image(24, 32)?;
    let scattering = Scattering2d::new(ScatteringConfig::default())?;
    let all = (0..8).into_par_iter().map(|_| scattering.forward(&images)).collect::<Result<Vec<_>>>()?;
    let again = scattering.forward(&images)?;
    for maps in all {
        assert!(max_abs(&(maps - &again)?)? < 1e-12);
    }
    Ok(())
}

#[test]
fn bad_input_is_refused() -> Result<()> {
    assert!(Scattering2d::new(ScatteringConfig::default().scales(0)).is_err());
    assert!(Scattering2d::new(ScatteringConfig::default().angles(1)).is_err());
    assert!(Scattering2d::new(ScatteringConfig::default().max_order(3)).is_err());
    let scattering = Scattering2d::new(ScatteringConfig::default())?;
    assert!(scattering.forward(&image(7, 40)?).is_err());
    assert!(scattering.forward(&image(16, 16)?.squeeze(0)?).is_err());
    let empty = Tensor::zeros((0, 3, 16, 16), candle_core::DType::F32, &Device::Cpu)?;
    assert!(scattering.forward(&empty).unwrap_err().to_string().contains("empty"));
    assert!(scattering.wavelet_maps(&image(16, 16)?, &[WaveletMaps { scale: 3, stride: 8 }]).is_err());
    assert!(scattering.wavelet_maps(&image(16, 16)?, &[WaveletMaps { scale: 2, stride: 16 }]).is_err());
    assert!(scattering.wavelet_maps(&image(16, 16)?, &[WaveletMaps { scale: 2, stride: 3 }]).is_err());
    Ok(())
}
