//! What light, lens and camera do to a picture.

use super::canvas::Canvas;
use super::field::{add_noise, between, chance, log_between};
use crate::synthetic::noise::Draw;

/// Light, focus, tone, colour and noise, each sometimes.
pub(super) fn finish(draw: &mut Draw, canvas: &mut Canvas) {
    let (width, height) = (canvas.width, canvas.height);
    if chance(draw, 0.5) {
        light(draw, canvas);
    }
    if chance(draw, 0.4) {
        canvas.blur(log_between(draw, 0.5, 3.0));
    }
    let (gain, gamma) = (log_between(draw, 0.4, 1.4), log_between(draw, 0.5, 2.0));
    let offset = between(draw, -0.15, 0.25);
    let grey = chance(draw, 0.35);
    let tint: [f32; 3] = std::array::from_fn(|_| log_between(draw, 0.85, 1.18));
    canvas.change(|_, pixel| {
        let pixel: [f32; 3] =
            std::array::from_fn(|c| (pixel[c].max(0.0).powf(gamma) - 0.5) * gain * tint[c] + 0.5 + offset);
        if grey { [0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]; 3] } else { pixel }
    });
    if chance(draw, 0.7) {
        let strength = log_between(draw, 0.003, 0.06);
        let coloured = !grey && chance(draw, 0.5);
        let grain = if chance(draw, 0.7) { 1.0 } else { between(draw, 1.0, 2.5) };
        let mut noise = vec![0.0; width * height];
        for channel in 0..if coloured { 3 } else { 1 } {
            noise.fill(0.0);
            // Two sums of uniform grains are closer to Gaussian than one.
            add_noise(draw, &mut noise, width, (grain, grain), strength);
            add_noise(draw, &mut noise, width, (grain, grain), strength);
            canvas.change(|at, mut pixel| {
                if coloured {
                    pixel[channel] += noise[at];
                } else {
                    pixel = pixel.map(|value| value + noise[at]);
                }
                pixel
            });
        }
    }
}

/// A gradient, a spot of light, or soft shadows.
fn light(draw: &mut Draw, canvas: &mut Canvas) {
    let (width, height) = (canvas.width, canvas.height);
    let strength = between(draw, 0.1, 0.8);
    let kind = draw.below(3);
    let (u, v) = (between(draw, -1.0, 1.0) / width as f32, between(draw, -1.0, 1.0) / height as f32);
    let centre = (between(draw, 0.0, 1.0) * width as f32, between(draw, 0.0, 1.0) * height as f32);
    let reach = between(draw, 0.2, 1.0) * width as f32;
    let mut shadows = vec![0.0; if kind == 2 { width * height } else { 0 }];
    if kind == 2 {
        let cell = log_between(draw, 30.0, 200.0);
        add_noise(draw, &mut shadows, width, (cell, cell), 1.0);
    }
    canvas.change(|at, pixel| {
        let (x, y) = ((at % width) as f32, (at / width) as f32);
        let light = match kind {
            0 => u * x + v * y,
            1 => {
                let (dx, dy) = ((x - centre.0) / reach, (y - centre.1) / reach);
                1.5 / (1.0 + dx * dx + dy * dy) - 0.75
            }
            _ => shadows[at],
        };
        pixel.map(|value| value * (1.0 + strength * light))
    });
}
