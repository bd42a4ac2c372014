//! The part: a brushed cover plate with a bored boss and four screws, as signed distances in its own coordinates.
//!
//! Units are 1/256 of the picture's shorter side, from the centre of the part; distances are negative inside.

/// A point or a direction.
pub(super) type Point = [f64; 2];

/// Where the screws are.
pub(super) const SCREWS: [Point; 4] = [[-64.0, -42.0], [64.0, -42.0], [-64.0, 42.0], [64.0, 42.0]];
/// The radius of a screw's head.
pub(super) const SCREW_RADIUS: f64 = 10.0;
/// The radii of the bore and of the boss around it.
const BORE_RADIUS: f64 = 19.0;
const BOSS_RADIUS: f64 = 33.0;
/// Half the width and the height of the plate, and the radius of its corners.
const PLATE: (Point, f64) = ([88.0, 64.0], 14.0);

pub(super) fn distance(a: Point, b: Point) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// The distance to the outline of the plate.
pub(super) fn plate(point: Point) -> f64 {
    let ([half_width, half_height], radius) = PLATE;
    let x = point[0].abs() - half_width + radius;
    let y = point[1].abs() - half_height + radius;
    x.max(0.0).hypot(y.max(0.0)) + x.max(y).min(0.0) - radius
}

pub(super) fn bore(point: Point) -> f64 {
    distance(point, [0.0, 0.0]) - BORE_RADIUS
}

pub(super) fn boss(point: Point) -> f64 {
    distance(point, [0.0, 0.0]) - BOSS_RADIUS
}

/// The nearest screw and the distance to the edge of its head.
pub(super) fn screw(point: Point) -> (usize, f64) {
    let nearest = usize::from(point[0] > 0.0) + 2 * usize::from(point[1] > 0.0);
    let centre = [64.0_f64.copysign(point[0]), 42.0_f64.copysign(point[1])];
    (nearest, distance(point, centre) - SCREW_RADIUS)
}

/// Whether a point lies on the plain surface of the plate with `margin` to every edge.
pub(super) fn is_plain(point: Point, margin: f64) -> bool {
    plate(point) < -margin && boss(point) > margin && screw(point).1 > margin
}

/// How much of a pixel lies inside an edge at a signed distance: 1 inside, 0 outside, a ramp of `width` between.
pub(super) fn coverage(distance: f64, width: f64) -> f64 {
    (0.5 - distance / width).clamp(0.0, 1.0)
}

/// The shade of a bevel along an edge: towards the light bright, away from it dark. `slope` is the direction in which
/// the surface falls.
pub(super) fn bevel(distance: f64, width: f64, slope: Point, light: Point) -> f64 {
    let along = (1.0 - (distance.abs() / width)).max(0.0);
    along * (slope[0] * light[0] + slope[1] * light[1])
}

/// The direction in which a signed distance grows.
pub(super) fn outward(shape: impl Fn(Point) -> f64, point: Point) -> Point {
    const STEP: f64 = 0.5;
    let x = shape([point[0] + STEP, point[1]]) - shape([point[0] - STEP, point[1]]);
    let y = shape([point[0], point[1] + STEP]) - shape([point[0], point[1] - STEP]);
    let length = x.hypot(y).max(1e-9);
    [x / length, y / length]
}
