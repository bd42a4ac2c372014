//! A picture of the part: pose, light, material, defect, camera.

use image::{Rgb, RgbImage};

use super::defect::{Defect, Effect};
use super::noise::{Draw, Field};
use super::part::{self, Point};
use crate::Size;

/// What varies from picture to picture of good parts.
pub(super) struct Scene {
    /// Shift in units and turn in radians.
    shift: Point,
    turn: f64,
    /// The direction that the light comes from, its strength, and how it falls off across the picture.
    light: Point,
    gain: f64,
    falloff: Point,
    tint: [f64; 3],
    /// The turn of each screw's slot.
    slots: [f64; 4],
    brush: Field,
    fine: Field,
    mat: Field,
    sensor: Field,
}

/// Steel, brass of the screws, and the rubber mat below, as RGB levels under plain light.
const STEEL: [f64; 3] = [148.0, 152.0, 157.0];
const BRASS: [f64; 3] = [176.0, 150.0, 98.0];
const MAT: [f64; 3] = [58.0, 60.0, 63.0];
const STAIN: [f64; 3] = [0.80, 0.72, 0.60];
const HOLE: [f64; 3] = [34.0, 34.0, 36.0];

impl Scene {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let angle = draw.between(-2.6, -2.1);
        Self {
            shift: [draw.between(-4.0, 4.0), draw.between(-4.0, 4.0)],
            turn: draw.between(-0.045, 0.045),
            light: [angle.cos(), angle.sin()],
            gain: draw.between(0.90, 1.10),
            falloff: [draw.between(-0.07, 0.07), draw.between(-0.07, 0.07)],
            tint: [draw.between(0.985, 1.015), 1.0, draw.between(0.985, 1.015)],
            slots: std::array::from_fn(|_| draw.between(0.0, std::f64::consts::PI)),
            brush: draw.field(),
            fine: draw.field(),
            mat: draw.field(),
            sensor: draw.field(),
        }
    }

    /// The picture, and which pixels the defect covers.
    pub(super) fn render(&self, size: Size, defect: Option<&Defect>) -> (RgbImage, Vec<bool>) {
        let mut image = RgbImage::new(size.width, size.height);
        let mut mask = Vec::with_capacity((size.width * size.height) as usize);
        let mut nearest = (f64::INFINITY, 0);
        let pixel = 256.0 / f64::from(size.width.min(size.height));
        let (sine, cosine) = self.turn.sin_cos();
        for (x, y, value) in image.enumerate_pixels_mut() {
            let place = [
                (f64::from(x) + 0.5 - f64::from(size.width) / 2.0) * pixel,
                (f64::from(y) + 0.5 - f64::from(size.height) / 2.0) * pixel,
            ];
            let moved = [place[0] - self.shift[0], place[1] - self.shift[1]];
            let point = [cosine * moved[0] + sine * moved[1], cosine * moved[1] - sine * moved[0]];
            let effect = defect.map_or_else(Effect::default, |defect| defect.effect(point, pixel, self.light));
            let colour = self.colour(point, place, pixel, &effect, defect.and_then(Defect::missing_screw));
            let fall = 1.0 + (self.falloff[0] * place[0] + self.falloff[1] * place[1]) / 128.0;
            let noise = 1.8 * self.sensor.white(i64::from(x), i64::from(y));
            *value = Rgb(std::array::from_fn(|channel| {
                let lit = colour[channel] * self.gain * fall * self.tint[channel];
                (lit + noise).round().clamp(0.0, 255.0) as u8
            }));
            if effect.outside < nearest.0 {
                nearest = (effect.outside, mask.len());
            }
            mask.push(effect.outside < 0.0);
        }
        // A defect may lie between the centres of pixels.
        if defect.is_some()
            && let Some(masked) = mask.get_mut(nearest.1)
        {
            *masked = true;
        }
        (image, mask)
    }

    /// The colour at a point of the part, before the light's strength and the camera's noise.
    fn colour(&self, point: Point, place: Point, pixel: f64, effect: &Effect, missing: Option<usize>) -> [f64; 3] {
        let edge = pixel.max(1.0);
        let outline = part::plate(point);
        let on_plate = part::coverage(outline, edge) * (1.0 - effect.removed);
        let below = self.mat(point, place);
        if on_plate <= 0.0 {
            return below;
        }
        let mut surface = self.plate(point, outline, effect);
        let bore = part::coverage(part::bore(point), edge);
        surface = mix(surface, HOLE, bore);
        let (screw, distance) = part::screw(point);
        let head = if missing == Some(screw) { self.hole(point, distance) } else { self.screw(point, screw, distance) };
        surface = mix(surface, head, part::coverage(distance, edge));
        mix(below, surface, on_plate)
    }

    /// The mat below the part, with the part's shadow.
    fn mat(&self, point: Point, place: Point) -> [f64; 3] {
        let grain = 5.0 * self.mat.smooth(place[0] / 2.2, place[1] / 2.2)
            + 3.0 * self.mat.smooth(place[0] / 9.0, place[1] / 9.0);
        let shaded = part::plate([point[0] + 5.0 * self.light[0], point[1] + 5.0 * self.light[1]]);
        let shadow = 1.0 - 0.45 * part::coverage(shaded, 9.0);
        MAT.map(|level| (level + grain) * shadow)
    }

    /// The brushed surface with its bevel and boss, and the shade and stain of a defect.
    fn plate(&self, point: Point, outline: f64, effect: &Effect) -> [f64; 3] {
        // Brushing: long streaks along the plate, and turned rings on the boss.
        let boss = part::boss(point);
        let radius = part::distance(point, [0.0, 0.0]);
        let streaks = if boss < 0.0 {
            9.0 * self.brush.smooth(radius * 1.3, 0.5) + 4.0 * self.fine.smooth(point[0] / 1.5, point[1] / 1.5)
        } else {
            8.0 * self.brush.smooth(point[0] / 34.0, point[1] / 1.1)
                + 5.0 * self.fine.smooth(point[0] / 11.0, point[1] / 0.8)
                + 4.0 * self.fine.smooth(point[0] / 40.0 + 300.0, point[1] / 30.0)
        };
        let mut shade = streaks + effect.shade;
        if outline > -4.0 {
            shade += 30.0 * part::bevel(outline, 4.0, part::outward(part::plate, point), self.light);
        }
        if boss.abs() < 3.0 {
            shade += 32.0 * part::bevel(boss, 3.0, part::outward(part::boss, point), self.light);
        }
        let bore = part::bore(point);
        if bore < 2.5 {
            shade -= 28.0 * part::bevel(bore, 2.5, part::outward(part::bore, point), self.light);
        }
        // A thin shadow around each screw's head.
        let seat = part::screw(point).1;
        shade -= 22.0 * part::coverage(seat - 1.5, 2.0);
        std::array::from_fn(|channel| (STEEL[channel] + shade) * (1.0 - effect.stain * (1.0 - STAIN[channel])))
    }

    /// The head of a screw with its slot.
    fn screw(&self, point: Point, index: usize, distance: f64) -> [f64; 3] {
        let (Some(centre), Some(turn)) = (part::SCREWS.get(index), self.slots.get(index)) else { return BRASS };
        let offset = [point[0] - centre[0], point[1] - centre[1]];
        let (sine, cosine) = turn.sin_cos();
        let across = (cosine * offset[1] - sine * offset[0]).abs();
        let slot = part::coverage(across - 1.4, 1.0) * part::coverage(distance + 1.5, 1.0);
        let dome = (offset[0] * self.light[0] + offset[1] * self.light[1]) / part::SCREW_RADIUS;
        let grain = 4.0 * self.fine.smooth(point[0] / 1.2, point[1] / 1.2);
        BRASS.map(|level| (level + 26.0 * dome + grain) * (1.0 - 0.55 * slot))
    }

    /// The hole that a missing screw leaves: a countersink and the thread's dark bore.
    fn hole(&self, point: Point, distance: f64) -> [f64; 3] {
        let (_, edge) = part::screw(point);
        let slope = part::outward(|point| part::screw(point).1, point);
        let wall = -34.0 * part::bevel(edge + 3.0, 3.0, slope, self.light);
        let deep = part::coverage(distance + 4.5, 1.5);
        mix(STEEL.map(|level| level - 22.0 + wall), HOLE, deep)
    }
}

fn mix(below: [f64; 3], above: [f64; 3], amount: f64) -> [f64; 3] {
    std::array::from_fn(|channel| below[channel] + amount * (above[channel] - below[channel]))
}
