//! Metrics of any scores, labels, maps and masks.

use masf_metrics::ndarray::Array2;
use masf_metrics::{PixelEvaluator, Ranking};

/// Takes 5 bytes for a score and its label, and the first byte for the width of a map. Whether there are metrics of both.
pub(crate) fn run(data: &[u8]) -> bool {
    let Some((width, rest)) = data.split_first() else { return false };
    let (scores, labels): (Vec<f32>, Vec<bool>) =
        rest.chunks_exact(5).map(|b| (f32::from_le_bytes([b[0], b[1], b[2], b[3]]), b[4] & 1 == 1)).unzip();
    let unit = |value: f64| assert!((0.0..=1.0).contains(&value), "{value}");
    let ranking = Ranking::new(&scores, &labels);
    if let Ok(ranking) = &ranking {
        unit(ranking.auroc());
        unit(ranking.average_precision());
        unit(ranking.f1_max().f1);
        assert!(!ranking.roc_curve(Some(usize::from(*width))).is_empty());
        assert!(!ranking.precision_recall_curve(None).is_empty());
    }
    let width = usize::from(*width % 17) + 1;
    let shape = (scores.len() / width, width);
    let cut = shape.0 * shape.1;
    let map = Array2::from_shape_vec(shape, scores[..cut].to_vec()).expect("the shape fits");
    let mask = Array2::from_shape_vec(shape, labels[..cut].to_vec()).expect("the shape fits");
    let mut evaluator = PixelEvaluator::new();
    let _ = evaluator.add(map.view(), Some(mask.view()));
    let _ = evaluator.add(map.view(), None);
    let pixels = evaluator.finish();
    if let Ok(ranking) = &pixels {
        unit(ranking.auroc());
        unit(ranking.average_precision());
        for limit in [0.05, 0.3, 1.0] {
            unit(ranking.aupro(limit).expect("the limit is in range"));
        }
        assert!(ranking.pro_curve(Some(9)).len() <= 11);
    }
    ranking.is_ok() && pixels.is_ok()
}
