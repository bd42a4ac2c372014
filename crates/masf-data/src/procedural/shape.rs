//! Closed shapes as signed distances: inside negative, in pixels.

use std::f32::consts::{PI, TAU};

use super::field::{between, chance, log_between};
use crate::synthetic::noise::Draw;

/// A shape in its own coordinates.
#[derive(Debug, Clone, Copy)]
enum Outline {
    Ellipse {
        squeeze: f32,
    },
    Box {
        squeeze: f32,
        corner: f32,
    },
    Ring {
        thickness: f32,
    },
    /// A circle whose radius waves around it: flowers, gears and blobs.
    Wavy {
        waves: f32,
        depth: f32,
        second: f32,
    },
    Polygon {
        sides: f32,
    },
    /// A bar with round ends.
    Bar {
        thickness: f32,
    },
}

/// A shape with its place, size and turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    outline: Outline,
    centre: (f32, f32),
    radius: f32,
    sin: f32,
    cos: f32,
}

impl Shape {
    /// Any shape of this radius.
    pub(super) fn draw(draw: &mut Draw, centre: (f32, f32), radius: f32) -> Self {
        let outline = match draw.below(12) {
            0..=2 => Outline::Ellipse { squeeze: if chance(draw, 0.4) { 1.0 } else { between(draw, 0.3, 1.0) } },
            3..=5 => Outline::Box { squeeze: log_between(draw, 0.15, 1.0), corner: between(draw, 0.0, 0.3) },
            6 => Outline::Ring { thickness: between(draw, 0.08, 0.4) },
            7 | 8 => Outline::Wavy {
                waves: (2 + draw.below(8)) as f32,
                depth: between(draw, 0.05, 0.3),
                second: between(draw, 0.0, TAU),
            },
            9 | 10 => Outline::Polygon { sides: (3 + draw.below(6)) as f32 },
            _ => Outline::Bar { thickness: between(draw, 0.03, 0.3) },
        };
        let angle = if chance(draw, 0.4) { 0.0 } else { between(draw, 0.0, TAU) };
        let (sin, cos) = angle.sin_cos();
        Self { outline, centre, radius, sin, cos }
    }

    /// The same shape at another place.
    pub(super) fn moved(self, centre: (f32, f32)) -> Self {
        Self { centre, ..self }
    }

    /// The same shape, smaller or larger by this factor.
    pub(super) fn scaled(self, factor: f32) -> Self {
        Self { radius: self.radius * factor, ..self }
    }

    /// Signed distance of a point, approximate away from the outline.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let (u, v) = (dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin);
        let r = self.radius;
        match self.outline {
            Outline::Ellipse { squeeze } => ((u * u + (v / squeeze) * (v / squeeze)).sqrt() - r) * squeeze.sqrt(),
            Outline::Box { squeeze, corner } => {
                let round = corner * r * squeeze;
                let (a, b) = (u.abs() - r + round, v.abs() - r * squeeze + round);
                let outside = (a.max(0.0) * a.max(0.0) + b.max(0.0) * b.max(0.0)).sqrt();
                outside + a.max(b).min(0.0) - round
            }
            Outline::Ring { thickness } => {
                ((u * u + v * v).sqrt() - r * (1.0 - thickness / 2.0)).abs() - r * thickness / 2.0
            }
            Outline::Wavy { waves, depth, second } => {
                let angle = v.atan2(u);
                let wave = (waves * angle).sin() + 0.5 * ((waves + 1.0) * angle + second).sin();
                (u * u + v * v).sqrt() - r * (1.0 - depth + depth * wave * 0.66)
            }
            Outline::Polygon { sides } => {
                let step = TAU / sides;
                let angle = v.atan2(u);
                let turned = (angle - step * (angle / step).round()).cos();
                (u * u + v * v).sqrt() * turned - r * (PI / sides).cos()
            }
            Outline::Bar { thickness } => {
                let along = (u.abs() - r * (1.0 - thickness)).max(0.0);
                (along * along + v * v).sqrt() - r * thickness
            }
        }
    }

    /// The pixels that the shape may cover, with a margin: first and end column, first and end row.
    pub(super) fn bounds(&self, width: usize, height: usize, margin: f32) -> [usize; 4] {
        let reach = self.radius * 1.5 + margin;
        let cut = |at: f32, side: usize| at.clamp(0.0, side as f32) as usize;
        let (x, y) = self.centre;
        [cut(x - reach, width), cut(x + reach + 1.0, width), cut(y - reach, height), cut(y + reach + 1.0, height)]
    }
}
