//! Comparison with scikit-learn and with an AUPRO written in NumPy from its definition. The numbers were made by
//! `tests/reference/metrics_reference.py`.

use masf_metrics::{PixelEvaluator, Ranking, mean_image_aupro};
use ndarray::Array2;
use serde_json::Value;

const TOLERANCE: f64 = 1e-12;

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/metrics_reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn scores(value: &Value) -> Vec<f32> {
    floats(value).into_iter().map(|score| score as f32).collect()
}

#[track_caller]
fn assert_close(got: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= TOLERANCE, "{what}: {got}, expected {expected}");
}

#[track_caller]
fn assert_curve(got: impl ExactSizeIterator<Item = [f64; 3]>, expected: &Value, what: &str) {
    let expected: Vec<_> = expected.as_array().unwrap().iter().map(floats).collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.zip(&expected) {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE), "{what}: {got:?} {expected:?}");
    }
}

#[test]
fn rankings_match_scikit_learn() {
    let reference = reference();
    let cases = reference["ranking"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let labels: Vec<_> = case["labels"].as_array().unwrap().iter().map(|label| label.as_bool().unwrap()).collect();
        let ranking = Ranking::new(&scores(&case["scores"]), &labels).unwrap();
        assert_close(ranking.auroc(), &expected["auroc"], name);
        assert_close(ranking.average_precision(), &expected["average_precision"], name);
        let best = ranking.f1_max();
        assert_close(best.f1, &expected["f1_max"]["f1"], name);
        assert_close(best.threshold.into(), &expected["f1_max"]["threshold"], name);
        let roc = ranking.roc_curve(None);
        assert_curve(
            roc[1..].iter().map(|p| [p.threshold.into(), p.false_positive_rate, p.true_positive_rate]),
            &expected["roc"],
            name,
        );
        let curve = ranking.precision_recall_curve(None);
        assert_curve(
            curve.iter().map(|p| [p.threshold.into(), p.precision, p.recall]),
            &expected["precision_recall"],
            name,
        );
    }
}

#[test]
fn pixel_metrics_match_scikit_learn_and_the_definition_of_aupro() {
    let reference = reference();
    let cases = reference["pixels"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let (name, expected) = (case["name"].as_str().unwrap(), &case["expected"]);
        let images: Vec<(Array2<f32>, Option<Array2<bool>>)> = case["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|image| {
                let shape = floats(&image["shape"]);
                let shape = (shape[0] as usize, shape[1] as usize);
                let map = Array2::from_shape_vec(shape, scores(&image["map"])).unwrap();
                let mask = image["mask"]
                    .as_array()
                    .map(|mask| Array2::from_shape_vec(shape, mask.iter().map(|pixel| pixel == 1).collect()).unwrap());
                (map, mask)
            })
            .collect();
        let mut evaluator = PixelEvaluator::new();
        for (map, mask) in &images {
            evaluator.add(map.view(), mask.as_ref().map(|mask| mask.view())).unwrap();
        }
        let pixels = evaluator.finish().unwrap();
        assert_eq!(pixels.regions() as u64, expected["regions"].as_u64().unwrap(), "{name}");
        assert_close(pixels.auroc(), &expected["auroc"], name);
        assert_close(pixels.average_precision(), &expected["average_precision"], name);
        assert_close(pixels.f1_max().f1, &expected["f1_max"]["f1"], name);
        assert_close(pixels.f1_max().threshold.into(), &expected["f1_max"]["threshold"], name);
        for pair in expected["aupro"].as_array().unwrap() {
            assert_close(pixels.aupro(floats(pair)[0]).unwrap(), &pair[1], name);
        }
        let defective = images.iter().filter_map(|(map, mask)| Some((map.view(), mask.as_ref()?.view())));
        assert_close(mean_image_aupro(defective, 0.3).unwrap(), &expected["mean_image_aupro"], name);
    }
}
