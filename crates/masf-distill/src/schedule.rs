//! The one-cycle schedule of the learning rate (Smith and Topin 2019).

/// The share of steps over which the learning rate rises.
const RISE: f64 = 0.15;

/// The learning rate of a step: a linear rise, then half a cosine down to nearly nothing.
pub(crate) fn one_cycle(step: usize, steps: usize, largest: f64) -> f64 {
    let position = (step as f64 + 0.5) / steps as f64;
    if position < RISE {
        return largest * (0.05 + 0.95 * position / RISE);
    }
    let fall = (position - RISE) / (1.0 - RISE);
    largest * (0.001 + 0.999 * 0.5 * (1.0 + (std::f64::consts::PI * fall).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| one_cycle(step, 100, 1.0)).collect();
        let top = (0..100).max_by(|a, b| rates[*a].total_cmp(&rates[*b])).unwrap();
        assert!((13..17).contains(&top) && rates[top] > 0.99 && rates[0] < 0.1 && rates[99] < 0.01);
        assert!(rates[..top].is_sorted() && rates[top..].is_sorted_by(|a, b| a >= b));
    }
}
