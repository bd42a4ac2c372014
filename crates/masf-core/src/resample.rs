//! Bilinear resizing of maps as two matrix products.
//!
//! Sampling positions are those of half-pixel centres (`align_corners = false` in PyTorch): output pixel `i` reads at
//! `(i + 0.5) * input / output - 0.5`, clamped to the border. Written as matrix products because Candle's own bilinear
//! upsampling has no gradient; the matrices are small and the products exact in the same way on every device.

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// What each output position of bilinear resizing reads, in order: two input positions, the same one twice at a border, and their weights,
/// which add up to 1. Nothing if a length is zero.
pub fn bilinear_weights(input: usize, output: usize) -> impl Iterator<Item = [(usize, f32); 2]> {
    let scale = input as f64 / output as f64;
    let (last, count) = (input.saturating_sub(1), if input == 0 { 0 } else { output });
    (0..count).map(move |index| {
        let position = ((index as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
        let left = position.floor() as usize;
        let fraction = (position - left as f64) as f32;
        [(left, 1.0 - fraction), ((left + 1).min(last), fraction)]
    })
}

/// The interpolation matrix `[output, input]`: each row holds the at most two weights of an output position.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if a length is zero.
pub fn bilinear_matrix(input: usize, output: usize, device: &Device) -> Result<Tensor> {
    if input == 0 || output == 0 {
        return Err(crate::Error::argument("length", format!("{input} -> {output}"), "positive lengths"));
    }
    let mut weights = vec![0f32; input * output];
    for (row, reads) in weights.chunks_exact_mut(input).zip(bilinear_weights(input, output)) {
        for (position, weight) in reads {
            row[position] += weight;
        }
    }
    Ok(Tensor::from_vec(weights, (output, input), device)?)
}

/// Resizes the last two axes of `maps` `[.., h, w]` to `size` `(height, width)`; differentiable.
///
/// The result is `f32` and contiguous. Equal sizes return the values as they are.
///
/// # Errors
/// A tensor of fewer than two axes or an empty one.
pub fn bilinear(maps: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let dims = maps.dims().to_vec();
    let [.., h, w] = dims[..] else {
        return Err(crate::Error::argument("map", format!("{dims:?}"), "at least two axes [.., h, w]"));
    };
    let maps = maps.to_dtype(DType::F32)?.contiguous()?;
    if (h, w) == size {
        return Ok(maps);
    }
    let count = maps.elem_count() / (h * w).max(1);
    let rows = bilinear_matrix(h, size.0, maps.device())?;
    let columns = bilinear_matrix(w, size.1, maps.device())?.t()?.contiguous()?;
    let wide = maps.reshape((count * h, w))?.matmul(&columns)?.reshape((count, h, size.1))?;
    let rows = rows.unsqueeze(0)?.broadcast_as((count, size.0, h))?.contiguous()?;
    let mut shape = dims;
    let rank = shape.len();
    shape[rank - 2] = size.0;
    shape[rank - 1] = size.1;
    Ok(rows.matmul(&wide)?.reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_pytorch() -> Result<()> {
        // torch.nn.functional.interpolate(torch.arange(6.).reshape(1, 1, 2, 3), (3, 5), mode="bilinear")
        let maps = Tensor::arange(0f32, 6f32, &Device::Cpu)?.reshape((1, 1, 2, 3))?;
        let resized = bilinear(&maps, (3, 5))?.flatten_all()?.to_vec1::<f32>()?;
        let expected = [0.0, 0.4, 1.0, 1.6, 2.0, 1.5, 1.9, 2.5, 3.1, 3.5, 3.0, 3.4, 4.0, 4.6, 5.0];
        for (a, b) in resized.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{resized:?}");
        }
        Ok(())
    }

    #[test]
    fn the_result_is_f32_for_any_sizes() -> Result<()> {
        let maps = Tensor::arange(0f32, 6f32, &Device::Cpu)?.reshape((2, 3))?.to_dtype(DType::F16)?;
        for size in [(2, 3), (4, 4)] {
            assert_eq!(bilinear(&maps, size)?.dtype(), DType::F32);
        }
        assert_eq!(bilinear(&maps, (2, 3))?.to_vec2::<f32>()?, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
        Ok(())
    }

    #[test]
    fn weights_add_up_and_stay_inside() {
        for (input, output) in [(1, 5), (5, 1), (3, 7), (7, 3), (4, 4)] {
            assert_eq!(bilinear_weights(input, output).count(), output);
            for [(left, a), (right, b)] in bilinear_weights(input, output) {
                assert!(left <= right && right < input && (0.0..=1.0).contains(&b) && a + b == 1.0);
            }
        }
        assert_eq!(bilinear_weights(0, 3).count() + bilinear_weights(3, 0).count(), 0);
    }

    #[test]
    fn constant_maps_stay_constant() -> Result<()> {
        for (from, to) in [((1, 1), (7, 3)), ((16, 9), (5, 5)), ((3, 3), (257, 193))] {
            let maps = Tensor::full(2.5f32, (2, from.0, from.1), &Device::Cpu)?;
            let resized = bilinear(&maps, to)?;
            assert_eq!(resized.dims(), [2, to.0, to.1]);
            assert!(resized.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| (v - 2.5).abs() < 1e-6));
        }
        Ok(())
    }
}
