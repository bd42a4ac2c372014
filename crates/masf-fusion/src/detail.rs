//! Detail of the image in its anomaly map.
//!
//! A map is made from features at strides of 8 pixels and more, and smoothed: it tells roughly where a defect lies, while the image
//! shows where it ends. In every window of the image the map `m` is explained by the luminance `I` as a line of slope
//! `a = cov(I, m) / (var(I) + flat)`, as in the guided filter (K. He, J. Sun, X. Tang, "Guided image filtering", 2013). Where dark pixels score high,
//! dark pixels are raised and bright ones lowered:
//!
//! `m' = m + gain * mean(a) * (I - mean(I))`
//!
//! with the means over the window around each pixel, cut at the border. The guided filter's own output, `mean(a) I + mean(b)`, would spread the
//! scores along the outlines of the part; the map itself plus the detail does not.

use candle_core::Tensor;
use masf_core::{Error, Result, values, vectorised, with_values};
use rayon::prelude::*;

use crate::FusionError;

/// Windows whose luminance, in `[0, 1]`, varies less than this count as flat: a deviation of 14 of 255.
const FLAT: f64 = 0.003;

/// Rows that one task refines; fixed, as sums that move down begin anew in each.
const ROWS_PER_TASK: usize = 64;

/// How strongly an anomaly map follows what the image shows; a gain of 0 turns it off.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detail {
    /// How much of the detail is added, 0 to 10.
    pub gain: f64,
    /// The window reaches so many pixels of the model's input to each side, 1 to 1000.
    pub radius: usize,
}

impl Default for Detail {
    /// A window as wide as a cell of stride 16.
    fn default() -> Self {
        Self { gain: 2.0, radius: 8 }
    }
}

impl Detail {
    /// None.
    pub const OFF: Self = Self { gain: 0.0, radius: 8 };

    /// Whether it does anything.
    pub fn is_on(&self) -> bool {
        self.gain > 0.0
    }

    pub(crate) fn check(&self) -> Result<(), FusionError> {
        if !(0.0..=10.0).contains(&self.gain) {
            return Err(FusionError::parameter("fusion.detail.gain", self.gain, "0 to 10"));
        }
        if !(1..=1000).contains(&self.radius) {
            return Err(FusionError::parameter("fusion.detail.radius", self.radius, "1 to 1000 pixels"));
        }
        Ok(())
    }

    /// Adds the detail that `luminance` in `[0, 1]` shows to maps; both `[B, H, W]`, `f32`.
    pub(crate) fn add(&self, maps: &Tensor, luminance: &Tensor) -> Result<Tensor> {
        let (batch, height, width) = maps.dims3()?;
        if luminance.dims() != maps.dims() {
            let problem = format!("shape {:?}; expected {:?}, that of the maps", luminance.dims(), maps.dims());
            return Err(Error::data("luminance", problem));
        }
        let mut refined = values(maps)?;
        let plane = (height * width).max(1);
        with_values(luminance, |luminance| {
            for (map, luminance) in refined.chunks_exact_mut(plane).zip(luminance.chunks_exact(plane)) {
                self.add_to(map, luminance, width);
            }
        })?;
        Ok(Tensor::from_vec(refined, (batch, height, width), maps.device())?)
    }

    /// The same for one map in rows of `width`.
    fn add_to(&self, map: &mut [f32], luminance: &[f32], width: usize) {
        let (mut lights, mut slopes) = (vec![0f32; map.len()], vec![0f32; map.len()]);
        let size = (map.len().checked_div(width).unwrap_or(0), width);
        let task = (ROWS_PER_TASK * width).max(1);
        let scores = &*map;
        lights.par_chunks_mut(task).zip(slopes.par_chunks_mut(task)).enumerate().for_each(
            |(index, (lights, slopes))| {
                vectorised(
                    #[inline(always)]
                    || {
                        let values = |pixel: usize| {
                            let (light, score) = (f64::from(luminance[pixel]), f64::from(scores[pixel]));
                            [light, light * light, score, light * score]
                        };
                        window_means(size, self.radius, index * ROWS_PER_TASK, values, |pixel, means| {
                            let [light, square, score, product] = means;
                            let slope = (product - light * score) / ((square - light * light).max(0.0) + FLAT);
                            lights[pixel] = light as f32;
                            slopes[pixel] = (slope as f32).clamp(f32::MIN, f32::MAX);
                        });
                    },
                );
            },
        );
        map.par_chunks_mut(task).enumerate().for_each(|(index, map)| {
            let first = index * task;
            vectorised(
                #[inline(always)]
                || {
                    let values = |pixel: usize| [f64::from(slopes[pixel])];
                    window_means(size, self.radius, index * ROWS_PER_TASK, values, |pixel, [slope]| {
                        let difference = f64::from(luminance[first + pixel] - lights[first + pixel]);
                        let refined = f64::from(map[pixel]) + self.gain * slope * difference;
                        map[pixel] = refined.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
                    });
                },
            );
        });
    }
}

/// Gives `take` the mean of `values(pixel)` over the window around every pixel of a task, which begins at row `first` of an image, pixel by pixel,
/// counted from there on; in time that does not depend on the radius.
#[inline(always)]
fn window_means<const N: usize>(
    (height, width): (usize, usize),
    radius: usize,
    first: usize,
    values: impl Fn(usize) -> [f64; N],
    mut take: impl FnMut(usize, [f64; N]),
) {
    let reach = |at: usize, length: usize| (at + radius).min(length - 1) - at.saturating_sub(radius) + 1;
    let shares: Vec<f64> = (0..width).map(|column| 1.0 / reach(column, width) as f64).collect();
    // The sums of each column over the rows of the window, moved down row by row, with zeros to both sides; in each row, their sum moved right.
    let mut columns = vec![[0f64; N]; radius + 1 + width + radius];
    for row in first.saturating_sub(radius + 1)..(first + radius).min(height) {
        change_columns(&mut columns[radius + 1..][..width], |sums, column| add(sums, &values(row * width + column)));
    }
    for row in first..(first + ROWS_PER_TASK).min(height) {
        let inner = &mut columns[radius + 1..][..width];
        let entering = (row + radius) * width;
        match (row + radius < height, row.checked_sub(radius + 1).map(|leaving| leaving * width)) {
            (true, Some(leaving)) => change_columns(inner, |sums, column| {
                add(sums, &difference(&values(entering + column), &values(leaving + column)));
            }),
            (true, None) => change_columns(inner, |sums, column| add(sums, &values(entering + column))),
            (false, Some(leaving)) => change_columns(inner, |sums, column| {
                *sums = difference(sums, &values(leaving + column));
            }),
            (false, None) => {}
        }
        let rows = 1.0 / reach(row, height) as f64;
        let mut sum = [0f64; N];
        for column in &columns[..2 * radius + 1] {
            add(&mut sum, column);
        }
        let steps = columns[2 * radius + 1..].iter().zip(&columns).zip(&shares).enumerate();
        for (column, ((entering, leaving), share)) in steps {
            add(&mut sum, &difference(entering, leaving));
            take((row - first) * width + column, sum.map(|sum| sum * (rows * share)));
        }
    }
}

#[inline(always)]
fn change_columns<const N: usize>(columns: &mut [[f64; N]], change: impl Fn(&mut [f64; N], usize)) {
    for (column, sums) in columns.iter_mut().enumerate() {
        change(sums, column);
    }
}

#[inline(always)]
fn add<const N: usize>(sums: &mut [f64; N], values: &[f64; N]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[inline(always)]
fn difference<const N: usize>(a: &[f64; N], b: &[f64; N]) -> [f64; N] {
    std::array::from_fn(|index| a[index] - b[index])
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn pattern(length: usize, seed: u64) -> Vec<f32> {
        (0..length as u64).map(|i| ((i * 7919 + seed * 104_729 + i * i % 83) % 1009) as f32 / 1009.0).collect()
    }

    /// The formula of the module, window by window.
    fn slow(detail: Detail, map: &[f32], luminance: &[f32], (height, width): (usize, usize)) -> Vec<f64> {
        let around = |pixel: usize| {
            let (row, column, radius) = (pixel / width, pixel % width, detail.radius);
            let rows = row.saturating_sub(radius)..=(row + radius).min(height - 1);
            let columns = column.saturating_sub(radius)..=(column + radius).min(width - 1);
            rows.flat_map(move |row| columns.clone().map(move |column| row * width + column)).collect::<Vec<_>>()
        };
        let mean = |window: &[usize], value: &dyn Fn(usize) -> f64| {
            window.iter().map(|pixel| value(*pixel)).sum::<f64>() / window.len() as f64
        };
        let light = |pixel: usize| f64::from(luminance[pixel]);
        let score = |pixel: usize| f64::from(map[pixel]);
        let slope = |pixel: usize| {
            let window = around(pixel);
            let (l, s) = (mean(&window, &light), mean(&window, &score));
            let covariance = mean(&window, &|pixel| (light(pixel) - l) * (score(pixel) - s));
            covariance / (mean(&window, &|pixel| (light(pixel) - l).powi(2)) + FLAT)
        };
        let slopes: Vec<f64> = (0..map.len()).map(slope).collect();
        let refined = |pixel: usize| {
            let window = around(pixel);
            score(pixel) + detail.gain * mean(&window, &|pixel| slopes[pixel]) * (light(pixel) - mean(&window, &light))
        };
        (0..map.len()).map(refined).collect()
    }

    #[test]
    fn equals_the_formula_window_by_window() {
        for (size, radius) in
            [((13, 17), 3), ((1, 1), 8), ((5, 2), 1), ((9, 30), 40), ((24, 8), 7), ((200, 3), 5), ((130, 4), 70)]
        {
            let detail = Detail { gain: 1.5, radius };
            let (map, luminance) = (pattern(size.0 * size.1, 1), pattern(size.0 * size.1, 2));
            let mut found = map.clone();
            detail.add_to(&mut found, &luminance, size.1);
            for (found, expected) in found.iter().zip(slow(detail, &map, &luminance, size)) {
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-5,
                    "{size:?}, {radius}: {found}, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn a_blurred_map_gets_the_outline_of_a_dark_spot() -> Result<()> {
        let distance = |pixel: usize| ((pixel / 32) as f64 - 16.0).hypot((pixel % 32) as f64 - 16.0);
        let tensor = |value: &dyn Fn(usize) -> f32| {
            Tensor::from_vec((0..1024).map(value).collect::<Vec<_>>(), (1, 32, 32), &Device::Cpu)
        };
        let luminance = tensor(&|pixel| if distance(pixel) < 4.0 { 0.2 } else { 0.8 })?;
        let blurred = tensor(&|pixel| (-distance(pixel).powi(2) / 72.0).exp() as f32)?;
        let refined = Detail::default().add(&blurred, &luminance)?.flatten_all()?.to_vec1::<f32>()?;
        let blurred = blurred.flatten_all()?.to_vec1::<f32>()?;
        // One pixel to each side of the outline.
        let step = |map: &[f32]| map[16 * 32 + 13] - map[16 * 32 + 11];
        assert!(step(&refined) > 3.0 * step(&blurred), "{} and {}", step(&refined), step(&blurred));
        Ok(())
    }

    #[test]
    fn flat_images_and_flat_maps_stay_as_they_are() -> Result<()> {
        let values = Tensor::from_vec(pattern(600, 5), (1, 20, 30), &Device::Cpu)?;
        let flat = values.ones_like()?;
        for (map, luminance) in [(&values, &flat), (&flat, &values)] {
            let refined = Detail::default().add(map, luminance)?;
            let largest = (&refined - map)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(largest < 1e-6, "{largest}");
        }
        Ok(())
    }

    #[test]
    fn huge_scores_stay_finite_and_other_shapes_are_refused() -> Result<()> {
        let map = Tensor::from_vec(vec![f32::MAX, f32::MIN, f32::MAX, 0.0], (1, 2, 2), &Device::Cpu)?;
        let luminance = Tensor::from_vec(vec![1f32, 0.0, 1.0, 0.5], (1, 2, 2), &Device::Cpu)?;
        let refined = Detail::default().add(&map, &luminance)?.flatten_all()?.to_vec1::<f32>()?;
        assert!(refined.iter().all(|value| value.is_finite()), "{refined:?}");
        let error = Detail::default().add(&map, &luminance.reshape((1, 1, 4))?).unwrap_err().to_string();
        assert!(error.contains("luminance"), "{error}");
        Ok(())
    }
}
