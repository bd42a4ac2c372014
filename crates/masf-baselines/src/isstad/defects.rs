//! Synthetic defects: regions of random shape whose features are replaced by disturbed ones.
//!
//! The paper disturbs pixels within one to three rectangles, ellipses or polygons: the image mirrored, its colours changed or
//! blurred, or noise. Here features are cached and images are not at hand, so the same is done to the features, in the same region of
//! all levels.

use candle_core::{Device, Tensor};
use masf_core::Result;
use rand::Rng;

use crate::training::{Level, values};

/// Share of the images that stay normal, as in the authors' code.
const NORMAL: f64 = 1.0 / 3.0;
/// Most shapes of a defect.
const SHAPES: usize = 3;
/// Least and largest side of a shape, as shares of the map's; drawn evenly in their logarithm.
const SIDES: (f64, f64) = (0.05, 0.5);
/// Least and largest opacity of what replaces the features; drawn evenly in its logarithm.
const OPACITY: (f64, f64) = (0.2, 1.0);
/// Samples along either axis from which the covered share of a position is taken.
const SAMPLES: usize = 4;

/// A shape in shares of height and width.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// Top, left, bottom, right.
    Rectangle([f64; 4]),
    /// That fills a rectangle.
    Ellipse([f64; 4]),
    /// Corners, row and column.
    Polygon(Vec<(f64, f64)>),
}

impl Shape {
    fn random(random: &mut impl Rng) -> Self {
        let mut side = || random.random_range(SIDES.0.ln()..=SIDES.1.ln()).exp();
        let (height, width) = (side(), side());
        let (top, left) = (random.random_range(0.0..=1.0 - height), random.random_range(0.0..=1.0 - width));
        let within = [top, left, top + height, left + width];
        match random.random_range(0..3) {
            0 => Self::Rectangle(within),
            1 => Self::Ellipse(within),
            _ => {
                let corners = random.random_range(3..=8);
                let mut corner = || (top + height * random.random::<f64>(), left + width * random.random::<f64>());
                Self::Polygon((0..corners).map(|_| corner()).collect())
            }
        }
    }

    fn contains(&self, (row, column): (f64, f64)) -> bool {
        match self {
            Self::Rectangle([top, left, bottom, right]) => {
                (*top..*bottom).contains(&row) && (*left..*right).contains(&column)
            }
            Self::Ellipse([top, left, bottom, right]) => {
                let y = (2.0 * row - top - bottom) / (bottom - top);
                let x = (2.0 * column - left - right) / (right - left);
                y * y + x * x < 1.0
            }
            // An odd number of edges lies to the right.
            Self::Polygon(corners) => {
                let next = corners.iter().cycle().skip(1);
                let crossed = corners.iter().zip(next).filter(|((y0, x0), (y1, x1))| {
                    (*y0 > row) != (*y1 > row) && column < x0 + (row - y0) / (y1 - y0) * (x1 - x0)
                });
                crossed.count() % 2 == 1
            }
        }
    }
}

/// What features are replaced by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    /// Those of the mirrored place: upside down, left to right, or both.
    Mirrored(bool, bool),
    /// The image's mean features, and so many times what differs from them.
    Contrast(f32),
    /// The mean of a square around the position that reaches over a quarter of the map.
    Blurred,
    /// For every channel that of another place, drawn at random.
    Noise,
}

impl Content {
    fn random(random: &mut impl Rng) -> Self {
        match random.random_range(0..3) {
            0 => {
                let which = random.random_range(1..4);
                Self::Mirrored(which & 1 > 0, which & 2 > 0)
            }
            1 if random.random() => Self::Contrast(random.random_range(0.0..=2.0)),
            1 => Self::Blurred,
            _ => Self::Noise,
        }
    }

    /// The features of a position of an image, `[P, C]` row-major over `height x width`.
    fn features(
        self,
        image: &[f32],
        mean: &[f32],
        (height, width): (usize, usize),
        position: usize,
        random: &mut impl Rng,
    ) -> Vec<f32> {
        let channels = mean.len();
        let at = |row: usize, column: usize| &image[(row * width + column) * channels..][..channels];
        let (row, column) = (position / width, position % width);
        match self {
            Self::Mirrored(vertical, horizontal) => {
                let row = if vertical { height - 1 - row } else { row };
                let column = if horizontal { width - 1 - column } else { column };
                at(row, column).to_vec()
            }
            Self::Contrast(factor) => {
                at(row, column).iter().zip(mean).map(|(value, mean)| mean + factor * (value - mean)).collect()
            }
            Self::Blurred => {
                let near = |place: usize, count: usize| {
                    place.saturating_sub(count.div_ceil(8))..(place + count.div_ceil(8) + 1).min(count)
                };
                let mut sums = vec![0f32; channels];
                for (row, column) in near(row, height).flat_map(|row| near(column, width).map(move |c| (row, c))) {
                    sums.iter_mut().zip(at(row, column)).for_each(|(sum, value)| *sum += value);
                }
                let count = (near(row, height).len() * near(column, width).len()) as f32;
                sums.into_iter().map(|sum| sum / count).collect()
            }
            Self::Noise => (0..channels)
                .map(|channel| image[random.random_range(0..height * width) * channels + channel])
                .collect(),
        }
    }
}

/// A defect of an image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Defect {
    shapes: Vec<Shape>,
    content: Content,
    opacity: f32,
}

impl Defect {
    /// A random one, or none.
    pub(super) fn random(random: &mut impl Rng) -> Option<Self> {
        if random.random_bool(NORMAL) {
            return None;
        }
        let shapes = (0..random.random_range(1..=SHAPES)).map(|_| Shape::random(random)).collect();
        let content = Content::random(random);
        let opacity = random.random_range(OPACITY.0.ln()..=OPACITY.1.ln()).exp() as f32;
        Some(Self { shapes, content, opacity })
    }

    /// The share of a position that is covered.
    fn coverage(&self, (height, width): (usize, usize), position: usize) -> f32 {
        let (row, column) = (position / width, position % width);
        let sample = |place: usize, index: usize, count: usize| {
            (place as f64 + (index as f64 + 0.5) / SAMPLES as f64) / count as f64
        };
        let covered = (0..SAMPLES * SAMPLES).filter(|index| {
            let point = (sample(row, index / SAMPLES, height), sample(column, index % SAMPLES, width));
            self.shapes.iter().any(|shape| shape.contains(point))
        });
        covered.count() as f32 / (SAMPLES * SAMPLES) as f32
    }
}

/// The features `[B, P, C]` of all levels with a defect in every image that has one, and labels for the positions of the finest level, `[B, P]`: 1 where
/// at least half is covered, 0 elsewhere.
pub(super) fn disturb(
    features: &[Tensor],
    levels: &[Level],
    defects: &[Option<Defect>],
    random: &mut impl Rng,
) -> Result<(Vec<Tensor>, Tensor)> {
    let mut disturbed = Vec::with_capacity(features.len());
    for (features, (spec, height, width)) in features.iter().zip(levels) {
        let (size, positions, channels) = ((*height, *width), height * width, spec.channels);
        let original = values(features)?;
        let mut changed = original.clone();
        let images = changed.chunks_exact_mut(positions * channels).zip(original.chunks_exact(positions * channels));
        for ((changed, image), defect) in images.zip(defects) {
            let Some(defect) = defect else { continue };
            let mut mean = vec![0f32; channels];
            for token in image.chunks_exact(channels) {
                mean.iter_mut().zip(token).for_each(|(mean, value)| *mean += value / positions as f32);
            }
            for (position, token) in changed.chunks_exact_mut(channels).enumerate() {
                let share = defect.opacity * defect.coverage(size, position);
                if share > 0.0 {
                    let content = defect.content.features(image, &mean, size, position, random);
                    token.iter_mut().zip(content).for_each(|(value, content)| *value += share * (content - *value));
                }
            }
        }
        disturbed.push(Tensor::from_vec(changed, features.shape(), &Device::Cpu)?);
    }
    let (height, width) = levels.first().map_or((1, 1), |(_, height, width)| (*height, *width));
    let label = |defect: &Option<Defect>, position: usize| match defect {
        Some(defect) if defect.coverage((height, width), position) >= 0.5 => 1f32,
        _ => 0.0,
    };
    let labels: Vec<f32> =
        defects.iter().flat_map(|defect| (0..height * width).map(move |position| label(defect, position))).collect();
    Ok((disturbed, Tensor::from_vec(labels, (defects.len(), height * width), &Device::Cpu)?))
}

#[cfg(test)]
mod tests {
    use masf_core::{LevelSpec, random_stream};

    use super::*;

    fn levels() -> Vec<Level> {
        vec![(LevelSpec { stride: 8, channels: 3 }, 8, 12), (LevelSpec { stride: 16, channels: 5 }, 4, 6)]
    }

    fn features() -> Result<Vec<Tensor>> {
        Ok(vec![
            Tensor::randn(0f32, 1f32, (2, 96, 3), &Device::Cpu)?,
            Tensor::randn(0f32, 1f32, (2, 24, 5), &Device::Cpu)?,
        ])
    }

    #[test]
    fn a_defect_stays_in_its_region() -> Result<()> {
        let mut random = random_stream(0, "test.defects");
        let shapes = vec![Shape::Rectangle([0.0, 0.0, 0.5, 0.25]), Shape::Rectangle([0.25, 0.0, 0.5, 0.5])];
        let contents = [
            Content::Mirrored(true, false),
            Content::Mirrored(false, true),
            Content::Contrast(0.5),
            Content::Blurred,
            Content::Noise,
        ];
        for content in contents {
            let defect = Defect { shapes: shapes.clone(), content, opacity: 0.7 };
            let before = features()?;
            let (after, labels) = disturb(&before, &levels(), &[None, Some(defect)], &mut random)?;
            let labels = labels.to_vec2::<f32>()?;
            assert!(labels[0].iter().all(|label| *label == 0.0));
            for ((before, after), (_, height, width)) in before.iter().zip(&after).zip(levels()) {
                let (before, after) = (before.to_vec3::<f32>()?, after.to_vec3::<f32>()?);
                assert_eq!(before[0], after[0]);
                for position in 0..height * width {
                    let (row, column) = (position / width, position % width);
                    let within = 2 * row < height && 4 * column < width
                        || 4 * row >= height && 2 * row < height && 2 * column < width;
                    assert_eq!(before[1][position] != after[1][position], within, "{content:?}: {row}, {column}");
                    if height == 8 {
                        assert_eq!(labels[1][position] > 0.5, within);
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn contents_are_what_they_say() {
        let image: Vec<f32> = (0..6).map(|value| value as f32).collect();
        let mut random = random_stream(0, "test.defects");
        let mut of = |content: Content, position| content.features(&image, &[2.0, 3.0], (1, 3), position, &mut random);
        assert_eq!(of(Content::Mirrored(false, true), 0), [4.0, 5.0]);
        assert_eq!(of(Content::Mirrored(true, false), 0), [0.0, 1.0]);
        assert_eq!(of(Content::Contrast(0.5), 2), [3.0, 4.0]);
        assert_eq!(of(Content::Blurred, 1), [2.0, 3.0]);
        for _ in 0..20 {
            let noise = of(Content::Noise, 1);
            assert!([0.0, 2.0, 4.0].contains(&noise[0]) && [1.0, 3.0, 5.0].contains(&noise[1]), "{noise:?}");
        }
        let wide: Vec<f32> = (0..16).map(|value| value as f32).collect();
        assert_eq!(Content::Blurred.features(&wide, &[0.0], (1, 16), 8, &mut random), [8.0]);
        assert_eq!(Content::Blurred.features(&wide, &[0.0], (1, 16), 0, &mut random), [1.0]);
    }

    #[test]
    fn shapes_contain_their_middle_and_lie_in_the_map() {
        let square = vec![(0.2, 0.2), (0.2, 0.8), (0.8, 0.8), (0.8, 0.2)];
        for shape in
            [Shape::Polygon(square), Shape::Ellipse([0.2, 0.2, 0.8, 0.8]), Shape::Rectangle([0.2, 0.2, 0.8, 0.8])]
        {
            assert!(
                shape.contains((0.5, 0.5)) && shape.contains((0.25, 0.5)) && !shape.contains((0.1, 0.5)),
                "{shape:?}"
            );
            assert!(!shape.contains((0.5, 0.9)) && !shape.contains((0.9, 0.1)), "{shape:?}");
        }
        let mut random = random_stream(0, "test.shapes");
        let mut normal = 0;
        for _ in 0..600 {
            let Some(defect) = Defect::random(&mut random) else {
                normal += 1;
                continue;
            };
            assert!((1..=SHAPES).contains(&defect.shapes.len()) && (0.19..=1.01).contains(&defect.opacity));
            for shape in &defect.shapes {
                let outside = [(-0.01, 0.5), (1.01, 0.5), (0.5, -0.01), (0.5, 1.01)];
                assert!(!outside.iter().any(|point| shape.contains(*point)), "{shape:?}");
            }
        }
        assert!((150..250).contains(&normal), "{normal} of 600 stay normal");
    }
}
