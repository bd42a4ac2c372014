//! Defects, drawn onto the part in its own coordinates.

use super::noise::{Draw, Field};
use super::part::{self, Point};

/// The kinds of defects, which are the names of the folders too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DefectKind {
    /// A shallow groove: a dark line with a bright edge.
    Scratch,
    /// A faint stain.
    Spot,
    /// A hollow without colour of its own, seen by its shading.
    Dent,
    /// A screw that is not there, or a chip out of the edge.
    MissingPiece,
}

impl DefectKind {
    /// All kinds, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Dent, Self::MissingPiece, Self::Scratch, Self::Spot];

    /// The name of the folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Spot => "spot",
            Self::Dent => "dent",
            Self::MissingPiece => "missing_piece",
        }
    }
}

/// One defect with its place, size and strength.
pub(super) enum Defect {
    Scratch { path: Vec<Point>, width: f64, depth: f64 },
    Spot { centre: Point, radius: f64, outline: Field, strength: f64 },
    Dent { centre: Point, radius: f64, depth: f64 },
    MissingScrew { screw: usize },
    Chip { centre: Point, radius: f64, outline: Field },
}

/// What a defect does to the surface at a point.
#[derive(Default, Clone, Copy)]
pub(super) struct Effect {
    /// Added to the brightness, in levels of 255.
    pub(super) shade: f64,
    /// How much of the stain's tint is laid over, from 0 to 1.
    pub(super) stain: f64,
    /// How much of the plate is gone, from 0 to 1.
    pub(super) removed: f64,
    /// The distance from the mask; negative inside.
    pub(super) outside: f64,
}

impl Defect {
    pub(super) fn draw(kind: DefectKind, draw: &mut Draw) -> Self {
        match kind {
            DefectKind::Scratch => {
                let start = plain_point(draw, 8.0);
                let (angle, length) = (draw.between(0.0, std::f64::consts::TAU), draw.between(26.0, 52.0));
                let bend = draw.between(-0.5, 0.5);
                // A bent line, as far as it stays on the plate.
                let steps = 24;
                let mut path = vec![start];
                let mut point = start;
                for step in 0..steps {
                    let heading = angle + bend * f64::from(step) / f64::from(steps);
                    let along = length / f64::from(steps);
                    point = [point[0] + along * heading.cos(), point[1] + along * heading.sin()];
                    if !part::is_plain(point, 3.0) {
                        break;
                    }
                    path.push(point);
                }
                Self::Scratch { path, width: draw.between(1.1, 1.9), depth: draw.between(26.0, 42.0) }
            }
            DefectKind::Spot => Self::Spot {
                centre: plain_point(draw, 9.0),
                radius: draw.between(3.5, 7.0),
                outline: draw.field(),
                strength: draw.between(0.55, 0.9),
            },
            DefectKind::Dent => Self::Dent {
                centre: plain_point(draw, 11.0),
                radius: draw.between(6.0, 10.0),
                depth: draw.between(24.0, 38.0),
            },
            DefectKind::MissingPiece if draw.below(2) == 0 => {
                Self::MissingScrew { screw: draw.below(part::SCREWS.len() as u32) as usize }
            }
            DefectKind::MissingPiece => {
                // A point on one of the straight edges.
                let across = draw.between(-64.0, 64.0);
                let side = draw.between(-1.0, 1.0).signum();
                let centre = if draw.below(2) == 0 { [across, 65.0 * side] } else { [89.0 * side, across * 0.6] };
                Self::Chip { centre, radius: draw.between(7.0, 11.0), outline: draw.field() }
            }
        }
    }

    /// The effect at a point, for pixels of `pixel` units and light from `light`.
    pub(super) fn effect(&self, point: Point, pixel: f64, light: Point) -> Effect {
        match self {
            Self::Scratch { path, width, depth } => {
                let Some((distance, side)) = nearest_segment(path, point) else { return Effect::default() };
                let core = part::coverage(distance - width / 2.0, pixel.max(0.8));
                let rim = part::coverage((distance - width).abs() - width / 2.0, pixel.max(0.8));
                let lit = if side > 0.0 { 0.6 * depth } else { 0.0 };
                Effect {
                    shade: rim * (1.0 - core) * lit - core * depth,
                    outside: distance - (width / 2.0 + 0.6),
                    ..Effect::default()
                }
            }
            Self::Spot { centre, radius, outline, strength } => {
                let distance = wobbly(*centre, *radius, *outline, point);
                Effect { stain: strength * part::coverage(distance, 2.5), outside: distance, ..Effect::default() }
            }
            Self::Dent { centre, radius, depth } => {
                let (x, y) = ((point[0] - centre[0]) / radius, (point[1] - centre[1]) / radius);
                let distance = x.hypot(y);
                // The slope of the hollow (1 - r^2)^2, scaled to a largest value of 1.
                let slope = if distance < 1.0 { distance * (1.0 - distance * distance) * 2.6 } else { 0.0 };
                let towards = if distance > 0.0 { (x * light[0] + y * light[1]) / distance } else { 0.0 };
                // The wall on the far side of the light faces it.
                Effect { shade: -depth * slope * towards, outside: distance - 0.95, ..Effect::default() }
            }
            Self::MissingScrew { screw } => {
                let (nearest, distance) = part::screw(point);
                Effect { outside: if nearest == *screw { distance } else { f64::INFINITY }, ..Effect::default() }
            }
            Self::Chip { centre, radius, outline } => {
                let distance = wobbly(*centre, *radius, *outline, point);
                Effect {
                    removed: part::coverage(distance, pixel),
                    outside: distance.max(part::plate(point)),
                    ..Effect::default()
                }
            }
        }
    }

    /// The screw that is missing.
    pub(super) fn missing_screw(&self) -> Option<usize> {
        match self {
            Self::MissingScrew { screw } => Some(*screw),
            _ => None,
        }
    }
}

/// A point of the plain surface. The surface is large: the tries practically never run out.
fn plain_point(draw: &mut Draw, margin: f64) -> Point {
    for _ in 0..256 {
        let point = [draw.between(-88.0, 88.0), draw.between(-64.0, 64.0)];
        if part::is_plain(point, margin) {
            return point;
        }
    }
    [46.0, 20.0]
}

/// The signed distance to a circle with an uneven outline.
fn wobbly(centre: Point, radius: f64, outline: Field, point: Point) -> f64 {
    let (x, y) = (point[0] - centre[0], point[1] - centre[1]);
    x.hypot(y) - radius * (1.0 + 0.35 * outline.smooth(x / radius * 1.5 + 50.0, y / radius * 1.5 + 50.0))
}

/// The distance to a polyline, and on which side of it the point lies (the sign).
fn nearest_segment(path: &[Point], point: Point) -> Option<(f64, f64)> {
    let mut nearest: Option<(f64, f64)> = None;
    for (from, to) in path.iter().zip(path.iter().skip(1)) {
        let along = [to[0] - from[0], to[1] - from[1]];
        let offset = [point[0] - from[0], point[1] - from[1]];
        let length = (along[0] * along[0] + along[1] * along[1]).max(1e-12);
        let place = ((offset[0] * along[0] + offset[1] * along[1]) / length).clamp(0.0, 1.0);
        let distance = (offset[0] - place * along[0]).hypot(offset[1] - place * along[1]);
        if nearest.is_none_or(|(best, _)| distance < best) {
            nearest = Some((distance, along[0] * offset[1] - along[1] * offset[0]));
        }
    }
    nearest
}
