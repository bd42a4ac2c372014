//! Laws of the metrics, and equality with slow implementations written from the definitions.

use masf_metrics::{PixelEvaluator, PixelRanking, Ranking, label_components};
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;

/// Scores with and without many ties, labels with both classes.
fn items() -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
    let score = prop_oneof![(-4i8..4).prop_map(|score| f32::from(score) / 4.0), -10.0f32..10.0];
    prop::collection::vec((score, any::<bool>()), 2..60)
        .prop_map(|mut items| {
            items[0].1 = true;
            items[1].1 = false;
            items
        })
        .prop_shuffle()
        .prop_map(|items| items.into_iter().unzip())
}

type Image = (Array2<f32>, Option<Array2<bool>>);

/// Small maps with many ties, at least one of them with a mask that marks a pixel and leaves one.
fn images() -> impl Strategy<Value = Vec<Image>> {
    let image = |masked: BoxedStrategy<bool>| {
        (1usize..7, 2usize..7, masked).prop_flat_map(|(height, width, masked)| {
            let count = height * width;
            (prop::collection::vec(-6i8..6, count), prop::collection::vec(prop::bool::weighted(0.4), count)).prop_map(
                move |(scores, mut mask)| {
                    (mask[0], mask[1]) = (true, false);
                    let scores = scores.iter().map(|&score| f32::from(score) / 4.0).collect();
                    let map = Array2::from_shape_vec((height, width), scores).unwrap();
                    (map, masked.then(|| Array2::from_shape_vec((height, width), mask).unwrap()))
                },
            )
        })
    };
    (image(Just(true).boxed()), prop::collection::vec(image(any::<bool>().boxed()), 0..4)).prop_map(
        |(first, mut images)| {
            images.push(first);
            images
        },
    )
}

fn ranked<'a>(images: impl IntoIterator<Item = &'a Image>) -> PixelRanking {
    let mut evaluator = PixelEvaluator::new();
    for (map, mask) in images {
        evaluator.add(map.view(), mask.as_ref().map(|mask| mask.view())).unwrap();
    }
    evaluator.finish().unwrap()
}

fn flat(images: &[Image]) -> (Vec<f32>, Vec<bool>) {
    let masked = |image: &Image, index| image.1.as_ref().is_some_and(|mask| mask[index]);
    images
        .iter()
        .flat_map(|image| image.0.indexed_iter().map(move |(index, &score)| (score, masked(image, index))))
        .unzip()
}

fn distinct_descending(scores: &[f32]) -> Vec<f32> {
    let mut distinct = scores.to_vec();
    distinct.sort_by(|a, b| b.total_cmp(a));
    distinct.dedup();
    distinct
}

/// Alarms and hits at a threshold.
fn counts(scores: &[f32], labels: &[bool], threshold: f32) -> (f64, f64) {
    let alarms = scores.iter().filter(|&&score| score >= threshold).count();
    let hits = scores.iter().zip(labels).filter(|&(&score, &label)| label && score >= threshold).count();
    (alarms as f64, hits as f64)
}

/// Labels by flood fill, numbered in the order of their first pixels.
fn flood_fill(mask: ArrayView2<'_, bool>) -> (Array2<u32>, u32) {
    let mut labels = Array2::<u32>::zeros(mask.raw_dim());
    let mut count = 0;
    for (start, _) in mask.indexed_iter() {
        let mut open = vec![start];
        if !mask[start] || labels[start] != 0 {
            continue;
        }
        count += 1;
        while let Some((row, column)) = open.pop() {
            if !mask[[row, column]] || labels[[row, column]] != 0 {
                continue;
            }
            labels[[row, column]] = count;
            let rows = row.saturating_sub(1)..(row + 2).min(mask.nrows());
            for near in rows {
                open.extend((column.saturating_sub(1)..(column + 2).min(mask.ncols())).map(|other| (near, other)));
            }
        }
    }
    (labels, count)
}

/// AUPRO from the definition: thresholds at every distinct score, one pass over all pixels for each.
fn naive_aupro(images: &[Image], limit: f64) -> f64 {
    let (scores, labels) = flat(images);
    let normals = labels.iter().filter(|&&label| !label).count() as f64;
    let mut regions: Vec<Vec<f32>> = Vec::new();
    for (map, mask) in images {
        let Some(mask) = mask else { continue };
        let (numbers, count) = flood_fill(mask.view());
        regions.extend((1..=count).map(|number| {
            map.iter().zip(&numbers).filter(|&(_, &other)| other == number).map(|(&score, _)| score).collect()
        }));
    }
    let mut curve = vec![(0.0, 0.0)];
    for threshold in distinct_descending(&scores) {
        let (alarms, hits) = counts(&scores, &labels, threshold);
        let overlap =
            |region: &Vec<f32>| region.iter().filter(|&&score| score >= threshold).count() as f64 / region.len() as f64;
        curve.push(((alarms - hits) / normals, regions.iter().map(overlap).sum::<f64>() / regions.len() as f64));
    }
    let height_at = |x: f64, (x0, y0): (f64, f64), (x1, y1): (f64, f64)| y0 + (x - x0) / (x1 - x0) * (y1 - y0);
    let area: f64 = curve
        .windows(2)
        .filter(|pair| pair[0].0 < limit && pair[1].0 > pair[0].0)
        .map(|pair| {
            let end = pair[1].0.min(limit);
            (end - pair[0].0) * (pair[0].1 + height_at(end, pair[0], pair[1])) / 2.0
        })
        .sum();
    area / limit
}

proptest! {
    #[test]
    fn auroc_counts_pairs((scores, labels) in items()) {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (a, _) in scores.iter().zip(&labels).filter(|(_, label)| **label) {
            for (b, _) in scores.iter().zip(&labels).filter(|(_, label)| !**label) {
                pairs += 1.0;
                wins += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
            }
        }
        prop_assert_eq!(Ranking::new(&scores, &labels).unwrap().auroc(), wins / pairs);
    }

    #[test]
    fn auroc_of_negated_scores_is_the_complement((scores, labels) in items()) {
        let negated: Vec<_> = scores.iter().map(|score| -score).collect();
        let auroc = Ranking::new(&scores, &labels).unwrap().auroc();
        let complement = Ranking::new(&negated, &labels).unwrap().auroc();
        prop_assert!((auroc + complement - 1.0).abs() < 1e-15);
    }

    #[test]
    fn monotone_maps_change_thresholds_only((scores, labels) in items()) {
        // The square of a score's rank, shifted: far from linear, strictly monotone and exact in f32.
        let distinct = distinct_descending(&scores);
        let mapped = |score: f32| {
            let rank = distinct.iter().filter(|&&other| other < score).count();
            (rank * rank) as f32 - 100.0
        };
        let others: Vec<_> = scores.iter().map(|&score| mapped(score)).collect();
        let (ranking, other) = (Ranking::new(&scores, &labels).unwrap(), Ranking::new(&others, &labels).unwrap());
        prop_assert_eq!(ranking.auroc(), other.auroc());
        prop_assert_eq!(ranking.average_precision(), other.average_precision());
        prop_assert_eq!(ranking.f1_max().f1, other.f1_max().f1);
        prop_assert_eq!(mapped(ranking.f1_max().threshold), other.f1_max().threshold);
    }

    #[test]
    fn average_precision_and_f1_follow_their_definitions((scores, labels) in items()) {
        let positives = labels.iter().filter(|&&label| label).count() as f64;
        let (mut average, mut recall, mut best) = (0.0, 0.0, 0.0f64);
        for threshold in distinct_descending(&scores) {
            let (alarms, hits) = counts(&scores, &labels, threshold);
            average += (hits / positives - recall) * hits / alarms;
            recall = hits / positives;
            best = best.max(2.0 * hits / (alarms + positives));
        }
        let ranking = Ranking::new(&scores, &labels).unwrap();
        prop_assert!((ranking.average_precision() - average).abs() < 1e-12);
        let found = ranking.f1_max();
        prop_assert_eq!(found.f1, best);
        let (alarms, hits) = counts(&scores, &labels, found.threshold);
        prop_assert_eq!((found.precision, found.recall), (hits / alarms, hits / positives));
        prop_assert!((2.0 * hits / (alarms + positives) - best).abs() < 1e-15);
        prop_assert!(scores.contains(&found.threshold));
        for higher in scores.iter().filter(|&&score| score > found.threshold) {
            let (alarms, hits) = counts(&scores, &labels, *higher);
            prop_assert!(2.0 * hits / (alarms + positives) < best);
        }
    }

    #[test]
    fn order_does_not_matter(
        (original, shuffled) in items().prop_flat_map(|(scores, labels)| {
            let pairs: Vec<_> = scores.into_iter().zip(labels).collect();
            (Just(pairs.clone()), Just(pairs).prop_shuffle())
        }),
    ) {
        let rank = |pairs: Vec<(f32, bool)>| {
            let (scores, labels): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            Ranking::new(&scores, &labels).unwrap()
        };
        let (a, b) = (rank(original), rank(shuffled));
        prop_assert_eq!(a.auroc(), b.auroc());
        prop_assert_eq!(a.average_precision(), b.average_precision());
        prop_assert_eq!(a.f1_max(), b.f1_max());
        prop_assert_eq!(a.precision_recall_curve(None), b.precision_recall_curve(None));
    }

    #[test]
    fn the_area_under_the_roc_curve_is_the_auroc((scores, labels) in items()) {
        let ranking = Ranking::new(&scores, &labels).unwrap();
        let curve = ranking.roc_curve(None);
        let area: f64 = curve
            .windows(2)
            .map(|pair| {
                let width = pair[1].false_positive_rate - pair[0].false_positive_rate;
                width * (pair[0].true_positive_rate + pair[1].true_positive_rate) / 2.0
            })
            .sum();
        prop_assert!((area - ranking.auroc()).abs() < 1e-12);
    }

    #[test]
    fn thinned_curves_are_short_and_keep_their_ends((scores, labels) in items(), most in 2usize..40) {
        let ranking = Ranking::new(&scores, &labels).unwrap();
        let (full, thinned) = (ranking.roc_curve(None), ranking.roc_curve(Some(most)));
        prop_assert!(thinned.len() <= most);
        prop_assert_eq!((full.first(), full.last()), (thinned.first(), thinned.last()));
        prop_assert!(thinned.iter().all(|point| full.contains(point)));
        let (full, thinned) = (ranking.precision_recall_curve(None), ranking.precision_recall_curve(Some(most)));
        prop_assert!(thinned.len() <= most);
        prop_assert_eq!((full.first(), full.last()), (thinned.first(), thinned.last()));
        prop_assert!(thinned.iter().all(|point| full.contains(point)));
    }

    #[test]
    fn pixels_rank_like_a_flat_list(images in images()) {
        let pixels = ranked(&images);
        let (scores, labels) = flat(&images);
        let ranking = Ranking::new(&scores, &labels).unwrap();
        prop_assert_eq!(pixels.auroc(), ranking.auroc());
        prop_assert_eq!(pixels.average_precision(), ranking.average_precision());
        prop_assert_eq!(pixels.f1_max(), ranking.f1_max());
        prop_assert_eq!(pixels.roc_curve(Some(9)), ranking.roc_curve(Some(9)));
    }

    #[test]
    fn aupro_follows_its_definition(images in images(), limit in prop_oneof![Just(0.3), Just(1.0), 0.001f64..1.0]) {
        let aupro = ranked(&images).aupro(limit).unwrap();
        let naive = naive_aupro(&images, limit);
        prop_assert!((aupro - naive).abs() < 1e-12, "{} {}", aupro, naive);
    }

    #[test]
    fn aupro_does_not_depend_on_the_order_of_images(images in images(), limit in 0.01f64..1.0) {
        let (pixels, reversed) = (ranked(&images), ranked(images.iter().rev()));
        prop_assert_eq!(pixels.aupro(limit), reversed.aupro(limit));
        prop_assert_eq!(pixels.pro_curve(None), reversed.pro_curve(None));
    }

    #[test]
    fn pro_curves_rise_to_one_and_thin_like_the_others(images in images(), most in 2usize..20) {
        let pixels = ranked(&images);
        let (full, thinned) = (pixels.pro_curve(None), pixels.pro_curve(Some(most)));
        prop_assert!(full.windows(2).all(|pair| pair[0].overlap <= pair[1].overlap
            && pair[0].false_positive_rate <= pair[1].false_positive_rate
            && pair[0].threshold > pair[1].threshold));
        let last = full.last().unwrap();
        prop_assert_eq!((last.false_positive_rate, last.overlap), (1.0, 1.0));
        prop_assert!(thinned.len() <= most);
        prop_assert_eq!((full.first(), full.last()), (thinned.first(), thinned.last()));
    }

    #[test]
    fn components_are_those_of_flood_fill(
        mask in (1usize..14, 1usize..14, 0.1f64..0.9).prop_flat_map(|(height, width, density)| {
            prop::collection::vec(prop::bool::weighted(density), height * width)
                .prop_map(move |pixels| Array2::from_shape_vec((height, width), pixels).unwrap())
        }),
    ) {
        let found = label_components(mask.view()).unwrap();
        let (labels, count) = flood_fill(mask.view());
        prop_assert_eq!(&found.labels, &labels);
        prop_assert_eq!(found.components.len(), count as usize);
        for (component, number) in found.components.iter().zip(1..) {
            let pixels: Vec<_> =
                labels.indexed_iter().filter(|(_, label)| **label == number).map(|(index, _)| index).collect();
            let (rows, columns): (Vec<_>, Vec<_>) = pixels.iter().copied().unzip();
            let bounds = component.bounding_box;
            prop_assert_eq!(component.area, pixels.len());
            prop_assert_eq!(Some(&bounds.top), rows.iter().min());
            prop_assert_eq!(Some(&(bounds.top + bounds.height - 1)), rows.iter().max());
            prop_assert_eq!(Some(&bounds.left), columns.iter().min());
            prop_assert_eq!(Some(&(bounds.left + bounds.width - 1)), columns.iter().max());
        }
    }
}

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Ranking>();
    check::<PixelEvaluator>();
    check::<PixelRanking>();
    check::<masf_metrics::Components>();
    check::<masf_metrics::Error>();
}
