//! Splits a map into frequency bands and says how much of its energy lies in each, with Candle and this crate alone.
//!
//! ```text
//! cargo run --release --example bands
//! ```

use candle_core::{Device, Tensor};
use masf_spectral::{DecompositionConfig, Norm, Result, SpectralDecomposition, radial_profile, rfft2};

const SIDE: usize = 64;

fn main() -> Result<()> {
    // A slow wave across and a fine one down: 2 and 24 periods over the map.
    let wave = |periods: f64, at: usize| (std::f64::consts::TAU * periods * at as f64 / SIDE as f64).sin() as f32;
    let values = (0..SIDE * SIDE).map(|at| wave(2.0, at % SIDE) + 0.5 * wave(24.0, at / SIDE)).collect();
    let map = Tensor::from_vec(values, (SIDE, SIDE), &Device::Cpu)?;
    let energy = |map: &Tensor| map.sqr()?.sum_all()?.to_scalar::<f32>();

    let split = SpectralDecomposition::fixed(DecompositionConfig::default().bands(3), &Device::Cpu)?;
    let bands = split.decompose(&map)?;
    for (name, band) in ["low", "middle", "high"].iter().zip(&bands) {
        println!("{name:>6}: {:5.1} % of the energy", 100.0 * energy(band)? / energy(&map)?);
    }
    let sum = bands.iter().skip(1).try_fold(bands[0].clone(), |sum, band| sum + band)?;
    println!(
        "the bands add up to the map: largest difference {:.1e}",
        (sum - &map)?.abs()?.max_all()?.to_scalar::<f32>()?
    );

    let profile = radial_profile(&rfft2(&map, Norm::Ortho)?, 16)?.to_vec1::<f32>()?;
    let strongest = (0..profile.len()).max_by(|a, b| profile[*a].total_cmp(&profile[*b]));
    println!("the strongest of {} rings of the spectrum: {strongest:?}", profile.len());
    Ok(())
}
