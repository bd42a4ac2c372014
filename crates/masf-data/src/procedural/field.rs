//! Scalar fields over an image: the patterns that surfaces are made of.

use std::f32::consts::{PI, TAU};

use rand_chacha::rand_core::RngCore;

use crate::synthetic::noise::Draw;

/// Values over an image, row by row, roughly in `[0, 1]`.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// Shorthand for single-precision draws.
pub(super) fn between(draw: &mut Draw, low: f32, high: f32) -> f32 {
    draw.between(f64::from(low), f64::from(high)) as f32
}

/// Uniform on a logarithmic scale.
pub(super) fn log_between(draw: &mut Draw, low: f32, high: f32) -> f32 {
    between(draw, low.ln(), high.ln()).exp()
}

/// True with this probability.
pub(super) fn chance(draw: &mut Draw, probability: f32) -> bool {
    between(draw, 0.0, 1.0) < probability
}

impl Field {
    /// A value for every pixel, from its coordinates.
    fn build(width: usize, height: usize, value: impl Fn(f32, f32) -> f32) -> Self {
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            values.extend((0..width).map(|x| value(x as f32, y as f32)));
        }
        Self { width, values }
    }

    /// Stretches the values to `[0, 1]`.
    fn stretched(mut self) -> Self {
        let low = self.values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let scale = 1.0 / (high - low).max(1e-6);
        self.values.iter_mut().for_each(|value| *value = (*value - low) * scale);
        self
    }

    /// One of all patterns.
    pub(super) fn draw(draw: &mut Draw, width: usize, height: usize) -> Self {
        match draw.below(16) {
            0..=3 => Self::fractal(draw, width, height),
            4 | 5 => Self::brushed(draw, width, height),
            6 | 7 => Self::grating(draw, width, height),
            8 | 9 => Self::cells(draw, width, height),
            10 => Self::weave(draw, width, height),
            11 | 12 => Self::rings(draw, width, height),
            13 => Self::lattice(draw, width, height),
            14 => Self::speckle(draw, width, height),
            _ => Self::mixed(draw, width, height),
        }
    }

    /// Octaves of value noise whose amplitudes follow a random spectral slope.
    pub(super) fn fractal(draw: &mut Draw, width: usize, height: usize) -> Self {
        let cell = log_between(draw, 8.0, 160.0);
        let persistence = between(draw, 0.3, 1.0);
        Self::octaves(draw, width, height, (cell, cell), persistence)
    }

    /// Fractal noise drawn out along one direction: brushed metal, fibres, wood.
    fn brushed(draw: &mut Draw, width: usize, height: usize) -> Self {
        let long = log_between(draw, 30.0, 400.0);
        let short = long / log_between(draw, 6.0, 60.0);
        let persistence = between(draw, 0.5, 1.0);
        let cells = if chance(draw, 0.5) { (long, short) } else { (short, long) };
        Self::octaves(draw, width, height, cells, persistence)
    }

    /// Sum of octaves; the first has cells of this size (pixels in x and y).
    fn octaves(draw: &mut Draw, width: usize, height: usize, cells: (f32, f32), persistence: f32) -> Self {
        let mut sum = vec![0.0; width * height];
        let (mut cell, mut amplitude) = (cells, 1.0);
        while cell.0.max(cell.1) > 1.2 && amplitude > 0.02 {
            add_noise(draw, &mut sum, width, (cell.0.max(1.0), cell.1.max(1.0)), amplitude);
            cell = (cell.0 / 2.0, cell.1 / 2.0);
            amplitude *= persistence;
        }
        Self { width, values: sum }.stretched()
    }

    /// One to three waves, smooth, square or saw-toothed, bent by noise.
    fn grating(draw: &mut Draw, width: usize, height: usize) -> Self {
        let bend = if chance(draw, 0.5) { log_between(draw, 1.0, 30.0) } else { 0.0 };
        let shift = if bend > 0.0 { Some(Self::fractal(draw, width, height)) } else { None };
        let waves: Vec<(f32, f32, f32)> = (0..=draw.below(3))
            .map(|_| {
                let angle = if chance(draw, 0.4) { PI / 2.0 * draw.below(2) as f32 } else { between(draw, 0.0, PI) };
                let frequency = TAU / log_between(draw, 3.0, 60.0);
                (angle.cos() * frequency, angle.sin() * frequency, between(draw, 0.0, TAU))
            })
            .collect();
        let shape = draw.below(3);
        let sharpness = log_between(draw, 1.0, 10.0);
        Self::build(width, height, |x, y| {
            let offset = shift.as_ref().map_or(0.0, |shift| bend * shift.values[y as usize * width + x as usize]);
            let wave = |&(u, v, phase): &(f32, f32, f32)| {
                let argument = (x + offset) * u + (y + offset) * v + phase;
                match shape {
                    0 => argument.sin(),
                    1 => (argument.sin() * sharpness).clamp(-1.0, 1.0),
                    _ => (argument / TAU).fract().abs() * 2.0 - 1.0,
                }
            };
            waves.iter().map(wave).sum()
        })
        .stretched()
    }

    /// Voronoi cells of a jittered grid: distance to the nearest point, to the border, or a value per cell.
    fn cells(draw: &mut Draw, width: usize, height: usize) -> Self {
        let side = log_between(draw, 6.0, 50.0);
        let jitter = between(draw, 0.2, 1.0);
        let (columns, rows) = ((width as f32 / side) as usize + 3, (height as f32 / side) as usize + 3);
        let points: Vec<(f32, f32, f32)> = (0..rows * columns)
            .map(|i| {
                let (column, row) = ((i % columns) as f32 - 1.0, (i / columns) as f32 - 1.0);
                let dx = 0.5 + jitter * between(draw, -0.5, 0.5);
                let dy = 0.5 + jitter * between(draw, -0.5, 0.5);
                ((column + dx) * side, (row + dy) * side, between(draw, 0.0, 1.0))
            })
            .collect();
        let kind = draw.below(4);
        let joint = between(draw, 0.05, 0.3) * side;
        Self::build(width, height, |x, y| {
            let (column, row) = ((x / side) as usize, (y / side) as usize);
            let (mut first, mut second, mut value) = (f32::INFINITY, f32::INFINITY, 0.0);
            for r in row..row + 3 {
                for &(px, py, v) in &points[r * columns + column..r * columns + column + 3] {
                    let distance = (px - x) * (px - x) + (py - y) * (py - y);
                    if distance < first {
                        (second, first, value) = (first, distance, v);
                    } else {
                        second = second.min(distance);
                    }
                }
            }
            let edge = second.sqrt() - first.sqrt();
            match kind {
                0 => first.sqrt() / side,
                1 => (edge / joint).min(1.0),
                2 => value,
                _ => value * (edge / joint).min(1.0),
            }
        })
        .stretched()
    }

    /// Threads over and under each other.
    fn weave(draw: &mut Draw, width: usize, height: usize) -> Self {
        let pitch = log_between(draw, 4.0, 32.0);
        let (over, under) = (1 + draw.below(2) as i64, 1 + draw.below(2) as i64);
        let angle = if chance(draw, 0.5) { 0.0 } else { between(draw, 0.0, PI) };
        let (sin, cos) = angle.sin_cos();
        let round = |t: f32| (1.0 - (2.0 * (t - t.floor()) - 1.0).powi(2)).max(0.0).sqrt();
        Self::build(width, height, |x, y| {
            let (u, v) = ((x * cos + y * sin) / pitch, (y * cos - x * sin) / pitch);
            let warp_above = (u.floor() as i64 + v.floor() as i64).rem_euclid(over + under) < over;
            if warp_above { 0.55 + 0.45 * round(u) } else { 0.5 * round(v) }
        })
        .stretched()
    }

    /// Rings around a point, disturbed by noise: wood, turned metal, ripples.
    fn rings(draw: &mut Draw, width: usize, height: usize) -> Self {
        let centre = (between(draw, -1.0, 2.0) * width as f32, between(draw, -1.0, 2.0) * height as f32);
        let frequency = TAU / log_between(draw, 3.0, 50.0);
        let squeeze = log_between(draw, 0.15, 1.0);
        let noise = Self::fractal(draw, width, height);
        let strength = if chance(draw, 0.3) { 0.0 } else { log_between(draw, 2.0, 60.0) };
        let power = log_between(draw, 0.5, 3.0);
        Self::build(width, height, |x, y| {
            let (dx, dy) = (x - centre.0, (y - centre.1) * squeeze);
            let radius = (dx * dx + dy * dy).sqrt() + strength * noise.values[y as usize * width + x as usize];
            (0.5 + 0.5 * (radius * frequency).sin()).powf(power)
        })
        .stretched()
    }

    /// Dots, holes or bars in rows and columns.
    fn lattice(draw: &mut Draw, width: usize, height: usize) -> Self {
        let (across, down) = (log_between(draw, 6.0, 50.0), log_between(draw, 6.0, 50.0));
        let offset = if chance(draw, 0.5) { 0.5 } else { 0.0 };
        let radius = between(draw, 0.15, 0.48);
        let soft = log_between(draw, 0.02, 0.3);
        let square = chance(draw, 0.5);
        let angle = if chance(draw, 0.5) { 0.0 } else { between(draw, 0.0, PI) };
        let (sin, cos) = angle.sin_cos();
        Self::build(width, height, |x, y| {
            let v = (y * cos - x * sin) / down;
            let u = (x * cos + y * sin) / across + offset * v.floor().rem_euclid(2.0);
            let (u, v) = ((u - u.floor() - 0.5).abs(), (v - v.floor() - 0.5).abs());
            let distance = if square { u.max(v) } else { (u * u + v * v).sqrt() };
            ((radius - distance) / soft + 0.5).clamp(0.0, 1.0)
        })
    }

    /// Independent grains of one size, sometimes sparse.
    fn speckle(draw: &mut Draw, width: usize, height: usize) -> Self {
        let mut values = vec![0.0; width * height];
        let grain = log_between(draw, 1.0, 8.0);
        add_noise(draw, &mut values, width, (grain, grain), 1.0);
        let field = Self { width, values }.stretched();
        let power = log_between(draw, 0.5, 6.0);
        Self { width, values: field.values.into_iter().map(|value| value.powf(power)).collect() }
    }

    /// Two patterns added, or one shown where the other is strong.
    fn mixed(draw: &mut Draw, width: usize, height: usize) -> Self {
        let (mut first, second) = (Self::fractal(draw, width, height), Self::grating(draw, width, height));
        let share = between(draw, 0.2, 0.8);
        let product = chance(draw, 0.5);
        for (a, b) in first.values.iter_mut().zip(&second.values) {
            *a = if product { *a * b } else { share * *a + (1.0 - share) * b };
        }
        first.stretched()
    }
}

/// Adds value noise with cells of this size (pixels in x and y), interpolated smoothly.
pub(super) fn add_noise(draw: &mut Draw, sum: &mut [f32], width: usize, cell: (f32, f32), amplitude: f32) {
    let height = sum.len() / width.max(1);
    let (columns, rows) = ((width as f32 / cell.0) as usize + 3, (height as f32 / cell.1) as usize + 3);
    let mut lattice = Vec::with_capacity(rows * columns + 3);
    while lattice.len() < rows * columns {
        let bits = draw.0.next_u64();
        lattice.extend((0..4).map(|part| amplitude * ((bits >> (16 * part) & 0xffff) as f32 / 32768.0 - 1.0)));
    }
    let (left, top) = (between(draw, 0.0, 1.0), between(draw, 0.0, 1.0));
    let place = |at: f32| {
        let whole = at.floor();
        let t = at - whole;
        (whole as usize, t * t * (3.0 - 2.0 * t))
    };
    let across: Vec<(usize, f32)> = (0..width).map(|x| place(x as f32 / cell.0 + left)).collect();
    let mut line = vec![0.0; columns];
    for (y, row) in sum.chunks_exact_mut(width).enumerate() {
        let (r, t) = place(y as f32 / cell.1 + top);
        let (upper, lower) = (&lattice[r * columns..][..columns], &lattice[(r + 1) * columns..][..columns]);
        for ((value, a), b) in line.iter_mut().zip(upper).zip(lower) {
            *value = a + t * (b - a);
        }
        for (value, &(c, t)) in row.iter_mut().zip(&across) {
            *value += line[c] + t * (line[c + 1] - line[c]);
        }
    }
}
