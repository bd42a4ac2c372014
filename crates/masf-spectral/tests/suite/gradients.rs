//! Gradients against central differences in f64, of the transforms and of what is built on them.

use crate::common::noise;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use masf_spectral::{
    ComplexTensor, DecompositionConfig, LogPolar, Norm, PhaseNoise, Result, RingDescriptor, Scattering2d,
    ScatteringConfig, SpectralDecomposition, SpectralResidual, Window, amplitude_only, fft, ifft, irfft, irfft2,
    mix_amplitude, phase_only, radial_profile, rfft, rfft2, shift, spectral_residual,
};

/// Compares the gradient of a weighted sum of the outputs with differences, in every element of the input.
fn check(name: &str, input: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let weights = noise(99, f(input)?.shape().clone())?;
    let loss = |x: &Tensor| -> Result<Tensor> { Ok(f(x)?.mul(&weights)?.sum_all()?) };
    let variable = Var::from_tensor(input)?;
    let grads = loss(variable.as_tensor())?.backward()?;
    let grad = grads.get(variable.as_tensor()).ok_or_else(|| candle_core::Error::Msg(format!("{name}: none")))?;
    let grad = grad.flatten_all()?.to_vec1::<f64>()?;
    let values = input.flatten_all()?.to_vec1::<f64>()?;
    let scale = grad.iter().fold(1e-6f64, |max, value| max.max(value.abs()));
    let step = 1e-5;
    for index in 0..values.len() {
        let at = |offset: f64| -> Result<f64> {
            let mut moved = values.clone();
            moved[index] += offset;
            Ok(loss(&Tensor::from_vec(moved, input.shape(), &Device::Cpu)?)?.to_scalar::<f64>()?)
        };
        let difference = (at(step)? - at(-step)?) / (2.0 * step);
        assert!((grad[index] - difference).abs() < 1e-6 * scale, "{name}[{index}]: {} {difference}", grad[index]);
    }
    Ok(())
}

#[test]
fn transforms() -> Result<()> {
    for (height, width) in [(4, 6), (3, 5), (1, 4), (5, 1), (2, 7)] {
        let x = noise(1, (2, height, width))?;
        check("rfft2", &x, |x| Ok(rfft2(x, Norm::Backward)?.values().planes().clone()))?;
        check("rfft", &x, |x| rfft(x, Norm::Ortho)?.magnitude(1e-3))?;
        check("there and back", &x, |x| irfft2(&rfft2(x, Norm::Ortho)?, Some((height + 1, width + 2))))?;
        check("irfft", &x, |x| irfft(&rfft(x, Norm::Forward)?, None))?;
        check("fft", &x, |x| Ok(fft(&ComplexTensor::from_real(x)?, Norm::Ortho)?.values().planes().clone()))?;
        check("ifft", &x, |x| ifft(&fft(&ComplexTensor::from_real(x)?, Norm::Forward)?)?.re())?;
        check("phasor", &x, |x| rfft2(x, Norm::Ortho)?.phasor(1e-3)?.im())?;
        check("energy", &x, |x| rfft2(x, Norm::Ortho)?.energy())?;
        check("product", &x, |x| {
            let spectrum = rfft2(x, Norm::Ortho)?;
            irfft2(&spectrum.mul(&spectrum.conj()?)?, None)
        })?;
        // Of a strided view.
        check("transposed", &x, |x| Ok(rfft2(&x.t()?, Norm::Ortho)?.values().planes().clone()))?;
    }
    Ok(())
}

#[test]
fn tools() -> Result<()> {
    let x = noise(2, (1, 1, 6, 5))?;
    let style = noise(3, (1, 1, 6, 5))?;
    let split = SpectralDecomposition::fixed(DecompositionConfig::default(), &Device::Cpu)?;
    check("bands", &x, |x| split.decompose(x)?[1].sqr().map_err(Into::into))?;
    check("energies", &x, |x| Ok(split.energies(x, 3)?[2].clone()))?;
    check("phase_only", &x, phase_only)?;
    check("amplitude_only", &x, amplitude_only)?;
    check("mix_amplitude", &x, |x| mix_amplitude(x, &style, 0.4, 0.7))?;
    check("shift", &x, |x| shift(x, 0.3, -1.6))?;
    check("window", &x, |x| Window::Hann.apply(x))?;
    let phases = PhaseNoise::new(0.3, (0.0, 1.0))?;
    check("phase noise", &x, |x| phases.apply(x, 7))?;
    check("rings", &x, |x| RingDescriptor::default().describe(x))?;
    check("residual", &x, |x| spectral_residual(x, SpectralResidual { average: 3, sigma: 1.0 }))?;
    check("profile", &x, |x| radial_profile(&rfft2(x, Norm::Ortho)?, 2))?;
    let polar = LogPolar { radii: 4, angles: 6, inner: 1.0, outer: Some(2.2) };
    check("log-polar", &x, |x| polar.sample(x, (2.5, 2.0)))?;
    check("Fourier-Mellin", &x, |x| polar.signature(x, Some(Window::Hann)))?;
    let scattering = Scattering2d::new(ScatteringConfig::default().scales(2).angles(2).max_order(2))?;
    check("scattering", &x, |x| scattering.forward(x))
}

#[test]
fn zero_has_finite_gradients() -> Result<()> {
    let zero = Var::zeros((6, 5), DType::F32, &Device::Cpu)?;
    for output in [amplitude_only(&zero)?, LogPolar::default().signature(&zero, None)?] {
        let grads = output.sum_all()?.backward()?;
        let grad = grads.get(&zero).unwrap();
        assert!(grad.sqr()?.sum_all()?.to_scalar::<f32>()?.is_finite());
    }
    Ok(())
}

#[test]
fn learned_edges_and_gains() -> Result<()> {
    let maps = noise(4, (1, 2, 9, 8))?;
    let config = DecompositionConfig::default().edges(&[0.2, 0.5]).learn_edges(true).learn_gains(true);
    for name in ["band_widths", "band_gains"] {
        let build = |value: &Tensor| -> Result<SpectralDecomposition> {
            let other = if name == "band_widths" { "band_gains" } else { "band_widths" };
            let fixed = Tensor::full(if other == "band_gains" { 1.0 } else { 0.0 }, 3, &Device::Cpu)?;
            let tensors = [(name.to_string(), value.clone()), (other.to_string(), fixed)].into();
            SpectralDecomposition::new(config.clone(), VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu))
        };
        let start = if name == "band_gains" { 1.0 } else { 0.0 };
        let value = (noise(5, 3)? * 0.1)?.affine(1.0, start)?;
        check(name, &value, |value| {
            let bands = build(value)?.decompose(&maps)?;
            Ok(Tensor::stack(&bands, 0)?.sqr()?)
        })?;
    }
    // Through a VarMap, as in training: the edges start where the configuration puts them.
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let split = SpectralDecomposition::new(config, vb.pp("split"))?;
    assert_eq!(variables.all_vars().len(), 2);
    for (edge, expected) in split.edges()?.iter().zip([0.2, 0.5]) {
        assert!((edge - expected).abs() < 1e-6);
    }
    // An optimiser sets the variables in place.
    variables.data().lock().unwrap()["split.band_widths"].set(&Tensor::new(&[1f32, 0.0, 0.0], &Device::Cpu)?)?;
    assert!(split.edges()?[0] > 0.3);
    Ok(())
}
