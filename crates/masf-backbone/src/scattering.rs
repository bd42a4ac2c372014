//! Wavelet scattering as a feature extractor: no training, no weights.
//!
//! The map at stride `2^k` holds, for each opponent colour, the mean and `ln(1 + S1 / e)` of the first-order scattering coefficients
//! `S1 = |x * psi_{j,l}| * phi_k` of the scales `j < k` (J. Bruna, S. Mallat, "Invariant scattering convolution networks", 2013; the logarithm
//! as in J. Anden, S. Mallat, "Deep scattering spectrum", 2014). Opponent colours separate brightness from hue.

use candle_core::{Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeatureExtractor, FeaturePyramid, LevelSpec, Normalisation};
use masf_spectral::{Scattering2d, ScatteringConfig, WaveletMaps};

use crate::backbone::{check_images, is_finite, pyramid};
use crate::{BackboneError, Result};

/// Orientations in half a turn.
const ANGLES: usize = 8;
/// Coefficients below this, for images in `[-1, 1]`, count as flat: about two levels of 255, the noise of a camera.
const FLOOR: f64 = 0.02;
/// The strides that are offered.
const STRIDES: [usize; 3] = [4, 8, 16];
/// Rows: brightness, red against blue, green against both (orthonormal).
const OPPONENT: [[f32; 3]; 3] = [
    [0.577_350_3, 0.577_350_3, 0.577_350_3],
    [0.707_106_77, 0.0, -0.707_106_77],
    [-0.408_248_3, 0.816_496_6, -0.408_248_3],
];

/// A feature extractor that is computed, not learned: first-order wavelet scattering.
///
/// Channels: `3 (1 + 8 k)` at stride `2^k`, that is 51 at 4, 75 at 8, 99 at 16.
///
/// ```
/// use masf_backbone::ScatteringBackbone;
/// use masf_core::FeatureExtractor;
///
/// let backbone = ScatteringBackbone::new(&[8, 16])?;
/// let images = candle_core::Tensor::zeros((1, 3, 64, 96), candle_core::DType::F32, &candle_core::Device::Cpu)?;
/// assert_eq!(backbone.extract(&images)?.level(8)?.map.dims(), [1, 75, 8, 12]);
/// # Ok::<(), masf_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ScatteringBackbone {
    levels: Vec<LevelSpec>,
    transform: Scattering2d,
    device: Device,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    strides: Vec<usize>,
}

impl ScatteringBackbone {
    /// The tag of the model file.
    pub const TAG: &'static str = "masf.scattering";
    /// The name in the registry.
    pub const NAME: &'static str = "scattering";

    /// Gives maps at these strides, a choice of 4, 8 and 16, each once.
    ///
    /// # Errors
    /// [`BackboneError::Argument`] for others, or for none.
    pub fn new(strides: &[usize]) -> Result<Self> {
        let mut strides = strides.to_vec();
        strides.sort_unstable();
        if strides.is_empty() {
            return Err(BackboneError::argument("strides", "empty", "at least one, such as [8, 16]"));
        }
        if let Some(stride) = strides.iter().find(|stride| !STRIDES.contains(stride)) {
            return Err(BackboneError::argument("stride", stride, format!("one of {STRIDES:?}")));
        }
        if let Some([stride, _]) = strides.array_windows().find(|[a, b]| a == b) {
            return Err(BackboneError::argument("strides", format!("{stride} twice"), "one map for each stride"));
        }
        let level = |stride: usize| LevelSpec { stride, channels: 3 * (1 + ANGLES * scales(stride)) };
        let levels: Vec<_> = strides.into_iter().map(level).collect();
        let deepest = levels.last().map_or(1, |level| scales(level.stride));
        let transform = Scattering2d::new(ScatteringConfig::default().scales(deepest).angles(ANGLES))?;
        Ok(Self { levels, transform, device: Device::Cpu })
    }

    /// The same extractor on another device.
    #[must_use]
    pub fn to_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The maps of one image `[1, 3, H, W]`; `means` are the matrices of [`local_mean`].
    fn image(&self, image: &Tensor, means: &[(Tensor, Tensor)]) -> Result<Vec<Tensor>> {
        let (_, colours, height, width) = image.dims4()?;
        let opponent = Tensor::new(&OPPONENT, image.device())?;
        let image = opponent.matmul(&image.reshape((colours, height * width))?)?.reshape((1, 3, height, width))?;
        let requests: Vec<WaveletMaps> = self
            .levels
            .iter()
            .flat_map(|level| (0..scales(level.stride)).map(|scale| WaveletMaps { scale, stride: level.stride }))
            .collect();
        let mut wavelets = self.transform.wavelet_maps(&image, &requests)?.into_iter();
        let mut maps = Vec::with_capacity(self.levels.len());
        for (level, mean) in self.levels.iter().zip(means) {
            let mut parts = vec![local_mean(&image, mean)?];
            for map in wavelets.by_ref().take(scales(level.stride)) {
                let (_, colours, angles, rows, columns) = map.dims5()?;
                let map = map.reshape((1, colours * angles, rows, columns))?;
                // The average of a modulus is not negative, but its rounding may be.
                parts.push(map.relu()?.affine(1.0 / FLOOR, 1.0)?.log()?);
            }
            maps.push(Tensor::cat(&parts, 1)?);
        }
        Ok(maps)
    }
}

/// The number of scales whose wavelets fit under an average of this width.
fn scales(stride: usize) -> usize {
    stride.ilog2() as usize
}

/// Gaussian means by the matrices of the rows `[h, H]` and of the columns `[W, w]`, with the width of the scattering's average: `[1, 3, h, w]`.
fn local_mean(image: &Tensor, (rows, columns): &(Tensor, Tensor)) -> Result<Tensor> {
    let (_, colours, height, width) = image.dims4()?;
    let outputs = (rows.dim(0)?, columns.dim(1)?);
    let narrow = image.reshape((colours * height, width))?.matmul(columns)?.reshape((colours, height, outputs.1))?;
    let rows = rows.broadcast_as((colours, outputs.0, height))?.contiguous()?;
    Ok(rows.matmul(&narrow)?.unsqueeze(0)?)
}

/// Row `i` holds the weights of a Gaussian at `i * stride`, cut at the border and normalised.
fn gaussian_matrix(length: usize, stride: usize, device: &Device) -> Result<Tensor> {
    let outputs = length.div_ceil(stride);
    let sigma = 0.4 * stride as f64;
    let mut matrix = Vec::with_capacity(outputs * length);
    for output in 0..outputs {
        let centre = (output * stride) as f64;
        let weights: Vec<f64> = (0..length).map(|x| (-((x as f64 - centre) / sigma).powi(2) / 2.0).exp()).collect();
        let sum: f64 = weights.iter().sum();
        matrix.extend(weights.iter().map(|weight| (weight / sum) as f32));
    }
    Ok(Tensor::from_vec(matrix, (outputs, length), device)?)
}

impl FeatureExtractor for ScatteringBackbone {
    fn levels(&self) -> &[LevelSpec] {
        &self.levels
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation::SYMMETRIC
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn extract(&self, images: &Tensor) -> masf_core::Result<FeaturePyramid> {
        check_images(images, &self.device)?;
        let (_, _, height, width) = images.dims4()?;
        let matrix = |length: usize, level: &LevelSpec| gaussian_matrix(length, level.stride, images.device());
        let mean = |level: &LevelSpec| -> Result<(Tensor, Tensor)> {
            Ok((matrix(height, level)?, matrix(width, level)?.t()?.contiguous()?))
        };
        let means = self.levels.iter().map(mean).collect::<Result<Vec<_>>>()?;
        // One image at a time: the bits must not depend on the batch.
        let mut maps: Vec<Vec<Tensor>> = vec![Vec::new(); self.levels.len()];
        for image in 0..images.dim(0)? {
            let of_image = self.image(&images.narrow(0, image, 1)?, &means)?;
            maps.iter_mut().zip(of_image).for_each(|(maps, map)| maps.push(map));
        }
        let maps = maps.iter().map(|maps| Tensor::cat(maps, 0)).collect::<Result<Vec<_>, _>>()?;
        for (map, level) in maps.iter().zip(&self.levels) {
            if !is_finite(map)? {
                let (backbone, stride) = (Self::NAME.into(), level.stride);
                return Err(BackboneError::NotFinite { backbone, stride }.into());
            }
        }
        pyramid(maps, &self.levels, images)
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

impl Artifact for ScatteringBackbone {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings { strides: self.levels.iter().map(|level| level.stride).collect() })
    }

    /// The extractor computes where the options of the reader say.
    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let Settings { strides } = reader.section()?;
        let extractor = Self::new(&strides).map_err(|error| reader.invalid(error.to_string()))?;
        Ok(extractor.to_device(reader.options().device.open()?))
    }
}
