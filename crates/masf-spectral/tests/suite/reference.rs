//! Transforms against NumPy, gradients against torch, windows against SciPy (`tests/reference/spectral_transforms.py`).

use crate::common::{relative, tolerance};
use candle_core::{DType, Device, Tensor, Var};
use masf_spectral::{
    Axes, ComplexTensor, Extent, Norm, Result, Sampling, Spectrum, Window, fft2, ifft2, irfft2, rfft, rfft2,
};
use std::collections::HashMap;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/spectral_transforms.safetensors");
const SIZES: [(usize, usize); 6] = [(4, 6), (5, 6), (6, 5), (7, 11), (1, 8), (8, 1)];

fn data() -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load(DATA, &Device::Cpu)?)
}

fn half(planes: Tensor, width: usize, norm: Norm) -> Result<Spectrum> {
    Spectrum::new(ComplexTensor::from_planes(planes)?, Axes::Two, Extent::Half { width }, norm)
}

fn full(planes: Tensor, norm: Norm) -> Result<Spectrum> {
    Spectrum::new(ComplexTensor::from_planes(planes)?, Axes::Two, Extent::Full, norm)
}

#[test]
fn transforms_equal_numpy() -> Result<()> {
    let data = data()?;
    for (height, width) in SIZES {
        for dtype in [DType::F32, DType::F64] {
            let get = |name: &str| data[&format!("{height}x{width}/{name}")].to_dtype(dtype);
            for (name, norm) in [("backward", Norm::Backward), ("ortho", Norm::Ortho), ("forward", Norm::Forward)] {
                let signal = ComplexTensor::from_planes(get("z")?)?;
                let results = [
                    ("rfft2", rfft2(&get("x")?, norm)?.values().planes().clone()),
                    ("rfft", rfft(&get("x")?, norm)?.values().planes().clone()),
                    ("fft2", fft2(&signal, norm)?.values().planes().clone()),
                    ("ifft2", ifft2(&full(get("z")?, norm)?)?.planes().clone()),
                    ("irfft2", irfft2(&half(get("half")?, width, norm)?, None)?),
                ];
                for (operation, ours) in results {
                    let error = relative(&ours, &data[&format!("{height}x{width}/{name}/{operation}")])?;
                    assert!(error < tolerance(dtype), "{operation} {name} {height}x{width}: {error}");
                }
            }
            let size = (height + 3, width.saturating_sub(2).max(1));
            let resized = irfft2(&half(get("half")?, width, Norm::Backward)?, Some(size))?;
            assert!(relative(&resized, &get("irfft2_resized")?)? < tolerance(dtype), "{height}x{width}");
        }
    }
    Ok(())
}

#[test]
fn gradients_equal_torch() -> Result<()> {
    let data = data()?;
    for (height, width) in SIZES {
        for dtype in [DType::F32, DType::F64] {
            let get = |name: &str| data[&format!("{height}x{width}/{name}")].to_dtype(dtype);
            let check = |name: &str, input: &str, weight: &str, f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<()> {
                let input = Var::from_tensor(&get(input)?)?;
                let grads = f(input.as_tensor())?.mul(&get(weight)?)?.sum_all()?.backward()?;
                let grad = grads.get(input.as_tensor()).ok_or_else(|| candle_core::Error::Msg("none".into()))?;
                let error = relative(grad, &get(name)?)?;
                assert!(error < tolerance(dtype), "{name} {height}x{width} {dtype:?}: {error}");
                Ok(())
            };
            check("grad_rfft2", "x", "weight_half", &|x| Ok(rfft2(x, Norm::Ortho)?.values().planes().clone()))?;
            check("grad_irfft2", "half", "weight_real", &|x| irfft2(&half(x.clone(), width, Norm::Backward)?, None))?;
            check("grad_fft2", "z", "weight_full", &|z| {
                Ok(fft2(&ComplexTensor::from_planes(z.clone())?, Norm::Backward)?.values().planes().clone())
            })?;
            check("grad_ifft2", "z", "weight_full", &|z| {
                Ok(ifft2(&full(z.clone(), Norm::Backward)?)?.planes().clone())
            })?;
        }
    }
    Ok(())
}

#[test]
fn windows_equal_scipy() -> Result<()> {
    let data = data()?;
    for length in [1, 2, 9, 10] {
        for (kind, sampling) in [("symmetric", Sampling::Symmetric), ("periodic", Sampling::Periodic)] {
            for (name, window) in [
                ("hann", Window::Hann),
                ("hamming", Window::Hamming),
                ("blackman", Window::Blackman),
                ("tukey", Window::Tukey { alpha: 0.4 }),
            ] {
                let expected = data[&format!("window/{length}/{kind}/{name}")].to_vec1::<f64>()?;
                let ours = window.values(length, sampling)?;
                for (a, b) in ours.iter().zip(&expected) {
                    assert!((a - b).abs() < 1e-12, "{name} {kind} {length}: {ours:?} {expected:?}");
                }
            }
        }
    }
    Ok(())
}
