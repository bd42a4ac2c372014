//! What is in a picture: a surface, leaves over leaves, an object on a background, or strokes like writing.

use std::f32::consts::TAU;

use super::canvas::{Canvas, Colour, mix};
use super::field::{Field, between, chance, log_between};
use super::shape::Shape;
use crate::synthetic::noise::Draw;

/// A random colour; greyish ones are as common as vivid ones.
fn colour(draw: &mut Draw) -> Colour {
    let grey = between(draw, 0.0, 1.0);
    let vivid: Colour = std::array::from_fn(|_| between(draw, 0.0, 1.0));
    let share = between(draw, 0.0, 1.0);
    mix([grey; 3], vivid, share * share)
}

/// Colours for a pattern; often close to each other, as on real surfaces.
fn palette(draw: &mut Draw) -> [Colour; 3] {
    let base = colour(draw);
    let contrast = log_between(draw, 0.08, 1.0);
    let ends: [Colour; 2] = std::array::from_fn(|_| {
        let other = colour(draw);
        mix(base, other, contrast)
    });
    [ends[0], base, ends[1]]
}

/// A surface that covers the picture.
fn surface(draw: &mut Draw, width: usize, height: usize) -> Canvas {
    if chance(draw, 0.08) {
        let colour = colour(draw);
        return Canvas::plain(width, height, colour);
    }
    let field = Field::draw(draw, width, height);
    Canvas::coloured(&field, palette(draw))
}

/// The picture.
pub(super) fn draw(draw: &mut Draw, width: usize, height: usize) -> Canvas {
    match draw.below(20) {
        0..=4 => surface(draw, width, height),
        5..=10 => leaves(draw, width, height),
        11..=15 => object(draw, width, height),
        16 | 17 => strokes(draw, width, height),
        _ => patches(draw, width, height),
    }
}

/// Dead leaves: shapes of all sizes, each covering those before it (Lee, Mumford and Huang 2001), sizes by a power law.
fn leaves(draw: &mut Draw, width: usize, height: usize) -> Canvas {
    let mut canvas = surface(draw, width, height);
    let surfaces: Vec<Canvas> = (0..2 + draw.below(2)).map(|_| surface(draw, width, height)).collect();
    let side = width.max(height) as f32;
    let (smallest, largest) = (log_between(draw, 2.0, 12.0), side * between(draw, 0.12, 0.4));
    let exponent = between(draw, 1.2, 2.2);
    let count = 20 + draw.below(160);
    let textured = between(draw, 0.0, 1.0);
    for _ in 0..count {
        // Density of radii r^-exponent between the bounds, by inversion.
        let power = 1.0 - exponent;
        let (low, high) = (smallest.powf(power), largest.powf(power));
        let radius = (low + between(draw, 0.0, 1.0) * (high - low)).powf(1.0 / power);
        let centre = (between(draw, 0.0, 1.0) * width as f32, between(draw, 0.0, 1.0) * height as f32);
        let shape = Shape::draw(draw, centre, radius);
        let softness = if chance(draw, 0.85) { 1.0 } else { log_between(draw, 1.0, 8.0) };
        if chance(draw, textured) {
            let filling = &surfaces[draw.below(surfaces.len() as u32) as usize];
            let (tint, share) = (colour(draw), between(draw, 0.0, 0.6));
            canvas.lay(&shape, softness, |at, _, _, _| mix(filling.pixels[at], tint, share));
        } else {
            let (from, to) = (colour(draw), colour(draw));
            let (to, angle) = (mix(from, to, between(draw, 0.0, 0.5)), between(draw, 0.0, TAU));
            let (sin, cos) = angle.sin_cos();
            canvas.lay(&shape, softness, |_, x, y, _| {
                let along = ((x - centre.0) * cos + (y - centre.1) * sin) / (2.0 * radius) + 0.5;
                mix(from, to, along.clamp(0.0, 1.0))
            });
        }
    }
    canvas
}

/// One part, or the same part several times: nested outlines with bevels, holes around them, on a surface.
fn object(draw: &mut Draw, width: usize, height: usize) -> Canvas {
    let mut canvas = surface(draw, width, height);
    let side = width.min(height) as f32;
    let copies = if chance(draw, 0.6) { 1 } else { 2 + draw.below(6) };
    let radius = side * if copies == 1 { between(draw, 0.2, 0.55) } else { between(draw, 0.08, 0.2) };
    let material = surface(draw, width, height);
    let place = |draw: &mut Draw| (between(draw, 0.15, 0.85) * width as f32, between(draw, 0.15, 0.85) * height as f32);
    let centre = place(draw);
    let model = Shape::draw(draw, centre, radius);
    let layers: Vec<(f32, Colour, f32, f32)> = (0..1 + draw.below(4))
        .map(|layer| {
            let factor = if layer == 0 { 1.0 } else { between(draw, 0.15, 0.9) };
            (factor, colour(draw), between(draw, 0.0, 0.7), between(draw, -0.5, 0.5))
        })
        .collect();
    let bevel = log_between(draw, 1.0, 12.0);
    let holes: Vec<(f32, f32, Colour)> =
        (0..draw.below(3)).map(|_| (between(draw, 0.3, 0.85), between(draw, 0.05, 0.2), colour(draw))).collect();
    let around = 2 + draw.below(7);
    for _ in 0..copies {
        let at = place(draw);
        let shape = model.moved(at);
        if chance(draw, 0.5) {
            let offset = (at.0 + between(draw, 1.0, 8.0), at.1 + between(draw, 1.0, 8.0));
            let shadow = shape.moved(offset);
            let under = canvas.clone();
            canvas.lay(&shadow, 8.0, |at, _, _, _| under.pixels[at].map(|value| value * 0.6));
        }
        for &(factor, tint, share, shade) in &layers {
            canvas.lay(&shape.scaled(factor), 1.0, |at, _, _, distance| {
                let rim = (1.0 + distance / bevel).clamp(0.0, 1.0);
                mix(material.pixels[at], tint, share).map(|value| value * (1.0 + shade * rim))
            });
        }
        for &(orbit, size, tint) in &holes {
            for k in 0..around {
                let (sin, cos) = (TAU * k as f32 / around as f32).sin_cos();
                let place = (at.0 + orbit * radius * cos, at.1 + orbit * radius * sin);
                let hole = Shape::draw(&mut Draw(draw.0.clone()), place, size * radius);
                canvas.lay(&hole, 1.0, |_, _, _, _| tint);
            }
        }
    }
    canvas
}

/// Short strokes in lines, like writing, or long ones anywhere, like scratches, fibres and wires.
fn strokes(draw: &mut Draw, width: usize, height: usize) -> Canvas {
    let mut canvas = surface(draw, width, height);
    let written = chance(draw, 0.6);
    let size = log_between(draw, 5.0, 30.0);
    let thickness = size * between(draw, 0.06, 0.2);
    let ink = colour(draw);
    let line = |canvas: &mut Canvas, from: (f32, f32), to: (f32, f32), ink: Colour| {
        let centre = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
        let radius = ((to.0 - from.0).hypot(to.1 - from.1) / 2.0).max(0.5) + thickness;
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let squared = (dx * dx + dy * dy).max(1e-3);
        let (left, right) = ((centre.0 - radius).max(0.0) as usize, (centre.0 + radius + 2.0).max(0.0) as usize);
        let (top, bottom) = ((centre.1 - radius).max(0.0) as usize, (centre.1 + radius + 2.0).max(0.0) as usize);
        for y in top..bottom.min(height) {
            for x in left..right.min(width) {
                let (px, py) = (x as f32 - from.0, y as f32 - from.1);
                let t = ((px * dx + py * dy) / squared).clamp(0.0, 1.0);
                let distance = (px - t * dx).hypot(py - t * dy) - thickness;
                let cover = (0.5 - distance).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let at = y * width + x;
                    canvas.pixels[at] = mix(canvas.pixels[at], ink, cover);
                }
            }
        }
    };
    if written {
        let mut y = between(draw, 0.5, 2.0) * size;
        while y < height as f32 + size {
            let mut x = between(draw, 0.0, 3.0) * size;
            while x < width as f32 * between(draw, 0.7, 1.1) {
                let mut point = (x, y + between(draw, -0.5, 0.5) * size);
                for _ in 0..1 + draw.below(4) {
                    let next = (x + between(draw, 0.0, 0.7) * size, y + between(draw, -0.6, 0.6) * size);
                    line(&mut canvas, point, next, ink);
                    point = next;
                }
                x += size * if chance(draw, 0.15) { 1.8 } else { 0.9 };
            }
            y += size * 1.6;
        }
    } else {
        for _ in 0..4 + draw.below(40) {
            let ink = if chance(draw, 0.5) { ink } else { colour(draw) };
            let mut point = (between(draw, 0.0, 1.0) * width as f32, between(draw, 0.0, 1.0) * height as f32);
            let (mut heading, step) = (between(draw, 0.0, TAU), log_between(draw, 3.0, 25.0));
            for _ in 0..3 + draw.below(20) {
                heading += between(draw, -0.5, 0.5);
                let next = (point.0 + step * heading.cos(), point.1 + step * heading.sin());
                line(&mut canvas, point, next, ink);
                point = next;
            }
        }
    }
    canvas
}

/// Two or three surfaces, each where a pattern is strong: stains, wear, joints.
fn patches(draw: &mut Draw, width: usize, height: usize) -> Canvas {
    let mut canvas = surface(draw, width, height);
    for _ in 0..1 + draw.below(2) {
        let over = surface(draw, width, height);
        let mask = Field::draw(draw, width, height);
        let (level, softness) = (between(draw, 0.3, 0.7), log_between(draw, 0.02, 0.5));
        canvas.change(|at, below| {
            let cover = ((mask.values[at] - level) / softness + 0.5).clamp(0.0, 1.0);
            mix(below, over.pixels[at], cover)
        });
    }
    canvas
}
