//! What spectra show: frequency bands, log power, radial profile, phase-only picture and spectral residual, as PNG.
//!
//! ```text
//! cargo run --release --example spectral -- [OUT] [IMAGE]
//! ```
//!
//! Without an image, a woven cloth with a broken thread is drawn. The same pictures are made of the strongest feature map of a scattering backbone,
//! under the names `feature_*.png`.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, IndexOp, Tensor};
use clap::Parser;
use image::GrayImage;
use masf::FeatureExtractor;
use masf::backbone::ScatteringBackbone;
use masf::data::{Limits, read_image};
use masf_examples::{outln, run};
use masf_spectral::{
    DecompositionConfig, Norm, SpectralDecomposition, SpectralResidual, Window, log_power_image, phase_only,
    radial_profile, rfft2, spectral_residual,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Largest side of an image that is looked at; larger ones are scaled down.
const LARGEST: u32 = 512;

/// Smallest side of an image; a longer image than [`LARGEST`] keeps it.
const LEAST: u32 = 32;

/// Most that an image may be longer than wide: what is looked at then has as many pixels as a square.
const OBLONG: u32 = 256;

/// Bands of the decomposition, lowest first.
const BANDS: usize = 3;

/// Rings of the radial profile.
const RINGS: usize = 32;

#[derive(Parser)]
#[command(about = "Draws what the spectra of an image and of its features show")]
struct Arguments {
    /// Folder for the pictures.
    #[arg(default_value = "target/spectral")]
    out: PathBuf,
    /// The image; without one, a woven cloth is drawn.
    image: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(|| {
        draw_all(&arguments)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The pictures of the image, and those of a feature map of it.
fn draw_all(arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("making {}", arguments.out.display()))?;
    let rgb = match &arguments.image {
        Some(path) => read(path)?,
        None => cloth()?,
    };
    draw(&rgb.mean(0)?, &arguments.out, "")?;

    let backbone = ScatteringBackbone::new(&[4])?;
    let statistics = backbone.normalisation();
    let mean = Tensor::new(&statistics.mean, &Device::Cpu)?.reshape((3, 1, 1))?;
    let std = Tensor::new(&statistics.std, &Device::Cpu)?.reshape((3, 1, 1))?;
    let normalised = rgb.broadcast_sub(&mean)?.broadcast_div(&std)?.unsqueeze(0)?;
    let features = backbone.extract(&normalised)?.level(4)?.map.i(0)?.contiguous()?;
    let (channels, _, _) = features.dims3()?;
    let spread = features.broadcast_sub(&features.mean_keepdim((1, 2))?)?.sqr()?.mean((1, 2))?.to_vec1::<f32>()?;
    let strongest = (0..channels).max_by(|a, b| spread[*a].total_cmp(&spread[*b])).unwrap_or(0);
    draw(&features.i(strongest)?, &arguments.out, "feature_")?;
    outln!("pictures in {} (feature channel {strongest} of {channels})", arguments.out.display())?;
    Ok(())
}

/// All pictures of one map `[H, W]`.
fn draw(map: &Tensor, out: &Path, prefix: &str) -> Result<()> {
    let path = |name: &str| out.join(format!("{prefix}{name}.png"));
    save(map, &path("input"))?;
    let split = SpectralDecomposition::fixed(DecompositionConfig::default().bands(BANDS), &Device::Cpu)?;
    for (index, band) in split.decompose(map)?.iter().enumerate() {
        save(band, &path(&format!("band_{index}")))?;
    }
    save(&log_power_image(map, Some(Window::Hann))?, &path("log_power"))?;
    // The phase alone is white: its magnitude, smoothed by eye, shows where the map is irregular.
    save(&phase_only(map)?.abs()?, &path("phase_only"))?;
    save(&spectral_residual(map, SpectralResidual::default())?, &path("residual"))?;
    let centred = map.broadcast_sub(&map.mean_all()?)?;
    let profile = radial_profile(&rfft2(&Window::Hann.apply(&centred)?, Norm::Ortho)?, RINGS)?;
    plot(&profile.to_vec1::<f32>()?).save(path("profile"))?;
    Ok(())
}

/// Writes a map as a grey picture, lowest value black, highest white; small maps are magnified.
fn save(map: &Tensor, path: &Path) -> Result<()> {
    let (height, width) = map.dims2()?;
    let values = map.flatten_all()?.to_vec1::<f32>()?;
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let grey = values.iter().map(|v| (255.0 * (v - low) / (high - low).max(f32::MIN_POSITIVE)) as u8).collect();
    let picture = GrayImage::from_raw(width as u32, height as u32, grey).context("a picture of the map's size")?;
    let factor = (256 / height.max(width)).max(1) as u32;
    let size = (width as u32 * factor, height as u32 * factor);
    image::imageops::resize(&picture, size.0, size.1, image::imageops::FilterType::Nearest)
        .save(path)
        .with_context(|| format!("writing {}", path.display()))
}

/// Logarithm of the profile over the radius, as bars.
fn plot(profile: &[f32]) -> GrayImage {
    let (width, height) = (256u32, 256u32);
    let logs: Vec<f32> = profile.iter().map(|power| (power + 1e-12).log10()).collect();
    let (low, high) = logs.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    GrayImage::from_fn(width, height, |x, y| {
        let ring = (x as usize * logs.len() / width as usize).min(logs.len() - 1);
        let share = 0.05 + 0.9 * (logs[ring] - low) / (high - low).max(f32::MIN_POSITIVE);
        let filled = (height - 1 - y) as f32 <= share * height as f32;
        image::Luma([if filled { 60 } else { 245 }])
    })
}

/// An image file as RGB in `[0, 1]`, `[3, H, W]`.
fn read(path: &Path) -> Result<Tensor> {
    let image = read_image(path, &Limits::default())?;
    let (width, height) = (image.width(), image.height());
    let (short, long) = (width.min(height), width.max(height));
    ensure!(short >= LEAST, "{}: {width} x {height} pixels are too few, use {LEAST} at least", path.display());
    ensure!(
        long.div_ceil(short) <= OBLONG,
        "{}: {width} x {height} pixels are too oblong, use a ratio of {OBLONG} at most",
        path.display()
    );
    let largest = LARGEST.max((LEAST * long).div_ceil(short));
    let image = if long > largest { image.thumbnail(largest, largest) } else { image };
    let (width, height) = (image.width() as usize, image.height() as usize);
    let values = image.to_rgb32f().into_raw();
    Ok(Tensor::from_vec(values, (height, width, 3), &Device::Cpu)?.permute((2, 0, 1))?.contiguous()?)
}

/// A plain weave of 8 pixels with some grain, in which one thread is missing over a stretch.
fn cloth() -> Result<Tensor> {
    const SIDE: usize = 160;
    let mut state = 1u32;
    let mut grain = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut values = Vec::with_capacity(SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let over = (row / 8 + column / 8) % 2 == 0;
            let across = if over { row % 8 } else { column % 8 };
            let thread = (std::f32::consts::PI * (across as f32 + 0.5) / 8.0).sin();
            let missing = (80..88).contains(&row) && (56..104).contains(&column);
            let cloth = if missing { 0.25 } else { 0.3 + 0.5 * thread };
            values.push((cloth + 0.15 * grain()).clamp(0.0, 1.0));
        }
    }
    Ok(Tensor::from_vec(values, (1, SIDE, SIDE), &Device::Cpu)?.repeat((3, 1, 1))?)
}
