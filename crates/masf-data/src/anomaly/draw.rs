//! The layers that defects are made of: colours and their opacity on a rectangle of the image.

use image::{Rgb, RgbImage};

use super::{AnomalyKind, spectral};
use crate::synthetic::noise::{Draw, Field};

/// Levels of 255 that a line or noise of strength 1 differs by.
const CONTRAST: f64 = 80.0;

/// A rectangle of colours to lay over an image.
pub(super) struct Layer {
    pub(super) top: usize,
    pub(super) left: usize,
    pub(super) width: usize,
    /// New colours in levels, row-major.
    pub(super) colours: Vec<[f64; 3]>,
    /// Shape of the defect, 0 to 1: half and more belongs to the mask.
    pub(super) shape: Vec<f64>,
    /// Opacity inside the shape.
    pub(super) opacity: f64,
}

impl Layer {
    /// The image with the layer on it, and the mask; `None` if the mask is empty.
    pub(super) fn apply(&self, image: &RgbImage) -> Option<(RgbImage, Vec<bool>)> {
        let mut out = image.clone();
        let mut mask = vec![false; (image.width() * image.height()) as usize];
        let width = image.width() as usize;
        for (index, (colour, shape)) in self.colours.iter().zip(&self.shape).enumerate() {
            let (row, column) = (self.top + index / self.width, self.left + index % self.width);
            if *shape <= 0.0 || row >= image.height() as usize || column >= width {
                continue;
            }
            let pixel = out.get_pixel_mut(column as u32, row as u32);
            for (value, new) in pixel.0.iter_mut().zip(colour) {
                let old = f64::from(*value);
                *value = (old + shape * self.opacity * (new - old)).round().clamp(0.0, 255.0) as u8;
            }
            if let Some(masked) = mask.get_mut(row * width + column) {
                *masked = *shape >= 0.5;
            }
        }
        mask.contains(&true).then_some((out, mask))
    }
}

/// A defect of a kind, `area` pixels large.
pub(super) fn layer(
    kind: AnomalyKind,
    draw: &mut Draw,
    image: &RgbImage,
    source: &RgbImage,
    area: f64,
    strength: f64,
) -> Layer {
    match kind {
        AnomalyKind::CutPaste => cut_paste(draw, image, source, area, strength),
        AnomalyKind::Scar => scar(draw, image, area, strength),
        AnomalyKind::NoiseBlob => noise_blob(draw, image, area, strength),
        AnomalyKind::TextureSwap => texture_swap(draw, image, source, area, strength),
        AnomalyKind::SpectralNoise => spectral_noise(draw, image, area, strength),
    }
}

/// A place and size inside an image.
#[derive(Clone, Copy)]
struct Place {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Place {
    /// A rectangle of about `area` pixels and of an aspect between 1/3 and 3, where it fits.
    fn draw(draw: &mut Draw, image: &RgbImage, area: f64) -> Self {
        let aspect = draw.between(-1.1, 1.1).exp();
        let fit = |side: f64, limit: u32| (side.round() as usize).clamp(2, limit as usize);
        let height = fit((area * aspect).sqrt(), image.height());
        let width = fit(area / height as f64, image.width());
        Self::of_size(draw, image, height, width)
    }

    fn of_size(draw: &mut Draw, image: &RgbImage, height: usize, width: usize) -> Self {
        let (height, width) = (height.min(image.height() as usize), width.min(image.width() as usize));
        let top = draw.below(image.height() + 1 - height as u32) as usize;
        let left = draw.below(image.width() + 1 - width as u32) as usize;
        Self { top, left, height, width }
    }

    /// A layer here from colour and shape at `(row, column)` counted from the corner.
    fn layer(
        self,
        opacity: f64,
        mut colour: impl FnMut(usize, usize) -> [f64; 3],
        shape: impl Fn(f64, f64) -> f64,
    ) -> Layer {
        let Self { top, left, height, width } = self;
        let cells = || (0..height).flat_map(move |row| (0..width).map(move |column| (row, column)));
        Layer {
            top,
            left,
            width,
            colours: cells().map(|(row, column)| colour(row, column)).collect(),
            shape: cells().map(|(row, column)| shape(row as f64 + 0.5, column as f64 + 0.5)).collect(),
            opacity,
        }
    }
}

/// The colour of a pixel; places outside are taken at the border.
fn colour_at(image: &RgbImage, row: usize, column: usize) -> [f64; 3] {
    let (row, column) = ((row as u32).min(image.height() - 1), (column as u32).min(image.width() - 1));
    let Rgb(levels) = *image.get_pixel(column, row);
    levels.map(f64::from)
}

fn cut_paste(draw: &mut Draw, image: &RgbImage, source: &RgbImage, area: f64, strength: f64) -> Layer {
    let place = Place::draw(draw, image, area);
    let from = Place::of_size(draw, image, place.height, place.width);
    // The colour jitter of CutPaste: without it, patches of the same texture leave no trace but their edges.
    let gain: [f64; 3] = std::array::from_fn(|_| 1.0 + 0.15 * draw.between(-1.0, 1.0));
    let colour = |row, column| {
        let levels = colour_at(source, from.top + row, from.left + column);
        std::array::from_fn(|channel| levels[channel] * gain[channel])
    };
    place.layer(strength, colour, |_, _| 1.0)
}

fn scar(draw: &mut Draw, image: &RgbImage, area: f64, strength: f64) -> Layer {
    let side = f64::from(image.height().min(image.width()));
    let widest = (side / 40.0).max(2.0);
    let width = draw.between(1.5, widest.min((area / 4.0).sqrt()).max(1.6));
    let length = (area / width).clamp(3.0, 0.8 * side);
    let angle = draw.between(0.0, std::f64::consts::PI);
    let bend = draw.between(-0.25, 0.25) * length;
    let (along, across) = ([angle.sin(), angle.cos()], [angle.cos(), -angle.sin()]);
    let extent = |axis: usize| {
        (2.0 * ((length / 2.0 + width) * along[axis].abs() + (bend.abs() + width) * across[axis].abs())).ceil()
    };
    let place = Place::of_size(draw, image, extent(0).max(3.0) as usize, extent(1).max(3.0) as usize);
    let centre = [place.height as f64 / 2.0, place.width as f64 / 2.0];
    let sign = draw.between(-1.0, 1.0).signum();
    let tint: [f64; 3] = std::array::from_fn(|_| draw.between(0.7, 1.0));
    let ground = mean_colour(image, place);
    // Away from the nearer end of the range, where there is room for the contrast.
    let sign = if ground.iter().all(|level| (64.0..192.0).contains(level)) {
        sign
    } else {
        (128.0 - ground.iter().sum::<f64>() / 3.0).signum()
    };
    let colour = |row, column| {
        let levels = colour_at(image, place.top + row, place.left + column);
        std::array::from_fn(|channel| levels[channel] + sign * strength * CONTRAST * tint[channel])
    };
    let shape = |row: f64, column: f64| {
        let offset = [row - centre[0], column - centre[1]];
        let u = offset[0] * along[0] + offset[1] * along[1];
        let v = offset[0] * across[0] + offset[1] * across[1];
        // A parabola through both ends.
        let curve = bend * ((2.0 * u / length).powi(2) - 0.5).clamp(-0.5, 0.5);
        if u.abs() > length / 2.0 { 0.0 } else { coverage((v - curve).abs() - width / 2.0) }
    };
    place.layer(1.0, colour, shape)
}

fn noise_blob(draw: &mut Draw, image: &RgbImage, area: f64, strength: f64) -> Layer {
    let place = blob_place(draw, image, area);
    let (outline, fields) = (draw.field(), [draw.field(), draw.field(), draw.field()]);
    let grain = draw.between(1.0, 4.0);
    let offset: [f64; 3] = std::array::from_fn(|_| draw.between(-0.5, 0.5));
    let colour = |row: usize, column: usize| {
        let levels = colour_at(image, place.top + row, place.left + column);
        std::array::from_fn(|channel| {
            let noise = fields[channel].smooth(column as f64 / grain, row as f64 / grain) + offset[channel];
            let moved = levels[channel] + strength * CONTRAST * 1.5 * noise;
            // Reflected at the ends of the range, where clamping would hide the noise.
            if moved > 255.0 { 510.0 - moved } else { moved.abs() }
        })
    };
    place.layer(1.0, colour, blob(place, outline))
}

fn texture_swap(draw: &mut Draw, image: &RgbImage, source: &RgbImage, area: f64, strength: f64) -> Layer {
    let place = blob_place(draw, image, area);
    let outline = draw.field();
    let turns = draw.below(4);
    let from = Place::of_size(draw, source, place.height.max(place.width), place.height.max(place.width));
    let colour = |row: usize, column: usize| {
        let (height, width) = (place.height - 1, place.width - 1);
        let (row, column) = match turns {
            0 => (height - row, column),
            1 => (column, row),
            2 => (height - row, width - column),
            _ => (width - column, row),
        };
        colour_at(source, from.top + row, from.left + column)
    };
    place.layer(0.3 + 0.7 * strength, colour, blob(place, outline))
}

fn spectral_noise(draw: &mut Draw, image: &RgbImage, area: f64, strength: f64) -> Layer {
    // The window falls off, so the patch is larger than what it visibly changes.
    let place = Place::draw(draw, image, 1.6 * area);
    let patch: Vec<[f64; 3]> = (0..place.height * place.width)
        .map(|index| colour_at(image, place.top + index / place.width, place.left + index % place.width))
        .collect();
    let changed = spectral::disturb(draw, &patch, place.height, place.width, strength);
    let edge =
        |position: f64, length: f64| (position.min(length - position) / (0.25 * length).max(1.0)).clamp(0.0, 1.0);
    let shape = |row: f64, column: f64| {
        let (vertical, horizontal) = (edge(row, place.height as f64), edge(column, place.width as f64));
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        // At its edge at least a little: a patch of two pixels has no inside.
        ease(vertical).max(0.2) * ease(horizontal).max(0.2)
    };
    let largest = (place.height.min(place.width)) as f64 / 2.0;
    let colour = |row: usize, column: usize| changed.get(row * place.width + column).copied().unwrap_or_default();
    let mut layer = place.layer(1.0, colour, shape);
    if largest < 2.0 {
        layer.shape.fill(1.0);
    }
    layer
}

/// A square in which a blob of about `area` pixels lies.
fn blob_place(draw: &mut Draw, image: &RgbImage, area: f64) -> Place {
    let aspect = draw.between(-0.5, 0.5).exp();
    // An ellipse fills pi / 4 of its rectangle; its outline wobbles outwards and inwards alike.
    let side = (area * 4.0 / std::f64::consts::PI).sqrt() * 1.2;
    let length = |side: f64| (side.ceil() as usize).max(4);
    Place::of_size(draw, image, length(side * aspect), length(side / aspect))
}

/// An ellipse with an uneven outline inside a rectangle.
fn blob(place: Place, outline: Field) -> impl Fn(f64, f64) -> f64 {
    let (half_height, half_width) = (place.height as f64 / 2.0, place.width as f64 / 2.0);
    move |row, column| {
        let (y, x) = (row / half_height - 1.0, column / half_width - 1.0);
        let radius = 0.83 * (1.0 + 0.3 * outline.smooth(1.5 * x + 50.0, 1.5 * y + 50.0));
        coverage((x.hypot(y) - radius) * half_height.min(half_width))
    }
}

/// How much of a pixel lies inside, from the signed distance of its centre to the outline.
fn coverage(distance: f64) -> f64 {
    (0.5 - distance).clamp(0.0, 1.0)
}

fn mean_colour(image: &RgbImage, place: Place) -> [f64; 3] {
    let mut sum = [0.0; 3];
    for row in 0..place.height {
        for column in 0..place.width {
            for (sum, level) in sum.iter_mut().zip(colour_at(image, place.top + row, place.left + column)) {
                *sum += level;
            }
        }
    }
    sum.map(|sum| sum / (place.height * place.width).max(1) as f64)
}
