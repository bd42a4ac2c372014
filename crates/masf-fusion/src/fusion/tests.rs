use candle_core::{DType, Device};
use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};

use super::*;
use crate::{DefectMaps, Gate, PositionAware, Weights};

fn scores(seed: u32, batch: usize) -> Scores {
    let map = |name: &str, h: usize, w: usize, factor: f32| {
        let values = (0..batch * h * w).map(|i| ((i as u32 * 7919 + seed * 31) % 101) as f32 * factor).collect();
        ScoreMap { name: name.into(), values: Tensor::from_vec(values, (batch, h, w), &Device::Cpu).unwrap() }
    };
    Scores { maps: vec![map("memory", 8, 6, 0.01), map("student", 4, 3, 100.0)], image: None }
}

fn fitted(params: FusionParams) -> Result<CalibratedFusion> {
    Ok(params.check()?.fit(&[scores(1, 1), scores(2, 2)])?)
}

#[test]
fn a_batch_gives_the_bits_of_single_images() -> Result<()> {
    let fusion = fitted(FusionParams::default())?;
    let batch = fusion.fuse(&fusion.calibrate(&scores(3, 2))?, (64, 48))?;
    assert_eq!(batch.map.dims(), [2, 64, 48]);
    for index in 0..2 {
        let mut single = scores(3, 2);
        for map in &mut single.maps {
            map.values = map.values.narrow(0, index, 1)?;
        }
        let single = fusion.fuse(&fusion.calibrate(&single)?, (64, 48))?;
        assert_eq!(single.map.get(0)?.to_vec2::<f32>()?, batch.map.get(index)?.to_vec2::<f32>()?);
        assert_eq!(single.image_score.to_vec1::<f32>()?[0], batch.image_score.to_vec1::<f32>()?[index]);
    }
    Ok(())
}

#[test]
fn branches_of_any_unit_count_alike() -> Result<()> {
    let fusion = fitted(FusionParams::default())?;
    for map in fusion.calibrate(&scores(1, 1))? {
        let largest = map.mean.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!((0.5..2.0).contains(&largest), "{} reaches {largest}", map.name);
    }
    Ok(())
}

#[test]
fn equal_weights_give_the_bits_that_they_always_gave() -> Result<()> {
    for (image_score, expected) in
        [(ImageScore::Max, [0.790_843_84, 0.333_034_2]), (ImageScore::TopFraction(0.05), [0.570_439_16, 0.305_845_35])]
    {
        let fusion = fitted(FusionParams { image_score, weights: Weights::Equal, ..FusionParams::default() })?;
        let calibrated = fusion.calibrate(&scores(3, 2))?;
        let fused = fusion.fuse(&calibrated, (64, 48))?;
        // Numbers of the first version of this fusion, which had nothing but equal weights.
        for (found, expected) in fused.image_score.to_vec1::<f32>()?.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
        }
        // And what that version computed, operation by operation.
        for image in 0..2 {
            let smoothed = |map: &CalibratedMap| -> Result<Tensor> {
                let map = map.mean.get(image)?;
                Smoother::new(map.dims2()?, (64, 48), 4.0)?.apply(&map)
            };
            let mean = ((smoothed(&calibrated[0])? + smoothed(&calibrated[1])?)? / 2.0)?;
            let bits = |map: &Tensor| -> Result<Vec<u32>> {
                Ok(map.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
            };
            assert_eq!(bits(&fused.map.get(image)?)?, bits(&mean)?);
        }
    }
    Ok(())
}

#[test]
fn branches_count_for_their_shares() -> Result<()> {
    let names = ["memory", "student.8.raw", "student.16.raw"];
    let shares = |share| Weights::Shares([("memory".to_owned(), share)].into());
    assert_eq!(branch_weights(&names, &Weights::Equal), [0.5, 0.25, 0.25]);
    assert_eq!(branch_weights(&names, &shares(3.0)), [0.75, 0.125, 0.125]);
    assert_eq!(branch_weights(&names[1..], &shares(3.0)), [0.5, 0.5]);
    let default = fitted(FusionParams::default())?;
    assert!(default.precisions().is_none() && default.weights() == [0.8, 0.2]);
    let calibrated = default.calibrate(&scores(3, 1))?;
    let mean = |fusion: &CalibratedFusion| -> Result<f32> {
        Ok(fusion.fuse(&calibrated, (64, 48))?.map.mean_all()?.to_scalar::<f32>()?)
    };
    let single = |branch: usize| -> Result<f32> { Ok(calibrated[branch].mean.mean_all()?.to_scalar::<f32>()?) };
    // Smoothing near the border shifts means a little.
    assert!((mean(&default)? - (4.0 * single(0)? + single(1)?) / 5.0).abs() < 0.03);
    Ok(())
}

#[test]
fn the_fine_scale_changes_maps_and_no_image_score() -> Result<()> {
    let mut two_scales = scores(3, 1);
    for (map, name) in two_scales.maps.iter_mut().zip(["student.8.raw", "student.16.raw"]) {
        map.name = name.into();
    }
    let fuse = |gain| -> Result<AnomalyMap> {
        let fine_scale = FineScale { gain, ..FineScale::default() };
        let fusion = FusionParams { fine_scale, ..FusionParams::default() }.check()?.fit(&[two_scales.clone()])?;
        fusion.fuse(&fusion.calibrate(&two_scales)?, (64, 48))
    };
    let (with, without) = (fuse(0.5)?, fuse(0.0)?);
    assert_eq!(with.image_score.to_vec1::<f32>()?, without.image_score.to_vec1::<f32>()?);
    assert_eq!(with.uncertainty.to_vec3::<f32>()?, without.uncertainty.to_vec3::<f32>()?);
    assert_ne!(with.map.to_vec3::<f32>()?, without.map.to_vec3::<f32>()?);
    Ok(())
}

/// A fusion as files had it before maps had details.
struct Older(CalibratedFusion);

#[derive(serde::Serialize, serde::Deserialize)]
struct OlderSection {
    params: FusionParams,
    calibrations: Vec<Calibration>,
}

impl Artifact for Older {
    fn tag(&self) -> &'static str {
        CalibratedFusion::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        let CalibratedFusion { params, calibrations, .. } = self.0.clone();
        writer.section(&OlderSection { params, calibrations })
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        CalibratedFusion::read(reader).map(Self)
    }
}

#[test]
fn files_of_before_are_read_without_what_they_did_not_have() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
    let path = folder.path().join("fusion.masf");
    save(
        &Older(fitted(FusionParams { weights: Weights::Equal, ..Default::default() })?),
        &path,
        SaveOptions::default(),
    )?;
    let Older(fusion) = Older::read(&ModelFile::open(&path, ReadOptions::default())?.root()?)?;
    assert!(!fusion.params().fine_scale.is_on() && !fusion.params().detail.is_on());
    assert_eq!(fusion.weights(), [0.5, 0.5]);
    Ok(())
}

#[test]
fn image_scores() -> Result<()> {
    let map: Vec<f32> = (0..100u8).map(f32::from).collect();
    for (image_score, expected) in
        [(ImageScore::Max, 99.0), (ImageScore::TopFraction(0.02), 98.5), (ImageScore::TopFraction(1e-9), 99.0)]
    {
        let fusion = fitted(FusionParams { image_score, ..FusionParams::default() })?;
        assert_eq!(fusion.image_score(&map, &map), (expected, expected));
        assert_eq!(fusion.read_image_score(&map), expected);
    }
    Ok(())
}

#[test]
fn other_maps_are_refused() -> Result<()> {
    let fusion = fitted(FusionParams::default())?;
    let mut other = scores(1, 1);
    other.maps.pop();
    let error = fusion.calibrate(&other).unwrap_err().to_string();
    assert!(error.contains("student"), "{error}");
    let error = FusionParams::default().check()?.fit(&[scores(1, 1), other]).unwrap_err();
    assert!(matches!(error, FusionError::Maps { .. }));
    let refusal = |maps: &[CalibratedMap]| fusion.fuse(maps, (8, 8)).unwrap_err().to_string();
    let mut maps = fusion.calibrate(&scores(1, 1))?;
    for wrong in [&maps[..0], &maps[..1], &[maps[1].clone(), maps[0].clone()][..]] {
        assert!(refusal(wrong).contains("the calibration knows"), "{}", refusal(wrong));
    }
    maps[1] = fusion.calibrate(&scores(1, 2))?.remove(1);
    assert!(refusal(&maps).contains("`student`: it has shape [2, "), "{}", refusal(&maps));
    let zeros = Tensor::zeros((0, 2, 2), DType::F32, &Device::Cpu)?;
    for map in &mut maps {
        (map.mean, map.variance) = (zeros.clone(), zeros.clone());
    }
    assert!(refusal(&maps).contains("at least one image"), "{}", refusal(&maps));
    Ok(())
}

#[test]
fn reloaded_it_is_the_same() -> Result<()> {
    let fusion = fitted(FusionParams { smoothing_sigma: 0.1 + 0.2, ..FusionParams::default() })?;
    let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
    let path = folder.path().join("fusion.masf");
    save(&fusion, &path, SaveOptions::default())?;
    let file = ModelFile::open(&path, ReadOptions::default())?;
    assert_eq!(CalibratedFusion::read(&file.root()?)?, fusion);
    Ok(())
}

/// Two branches on a grid of 8 x 8, and the size of their maps.
const SIZE: (usize, usize) = (32, 32);

/// Scores of an image: noise, and in both branches or one a defect around a place.
fn image(number: usize, defect: Option<(usize, bool)>) -> Scores {
    let map = |name: &str, salt: usize, sees: bool| {
        let values = (0..64)
            .map(|place| {
                let noise = ((number * 7919 + place * 104_729 + salt * 1_299_709) % 1009) as f32 / 1009.0;
                let near =
                    defect.is_some_and(|(at, _)| (at / 8).abs_diff(place / 8) + (at % 8).abs_diff(place % 8) <= 1);
                noise + if near && sees { 4.0 } else { 0.0 }
            })
            .collect();
        ScoreMap { name: name.into(), values: Tensor::from_vec(values, (1, 8, 8), &Device::Cpu).unwrap() }
    };
    let both = defect.is_some_and(|(_, both)| both);
    Scores { maps: vec![map("memory", 1, true), map("student", 2, both)], image: None }
}

fn learned(weights: Weights, gate: Gate, both: bool) -> Result<CalibratedFusion> {
    let params = FusionParams { weights, gate, ..FusionParams::default() };
    let normals: Vec<Scores> = (0..40).map(|number| image(number, None)).collect();
    let fusion = params.check()?.fit(&normals)?;
    let calibrated = normals.iter().map(|scores| fusion.calibrate(scores)).collect::<Result<Vec<_>>>()?;
    let defects = (0..24)
        .map(|number| {
            let place = 9 + number * 2 % 45;
            let maps = fusion.calibrate(&image(100 + number, Some((place, both))))?;
            let cell = |pixel: u32| (pixel as usize / 32 / 4, pixel as usize % 32 / 4);
            let inside = (0..1024).filter(|pixel| cell(*pixel) == (place / 8, place % 8)).collect();
            Ok(DefectMaps { maps, inside })
        })
        .collect::<Result<Vec<_>>>()?;
    fusion.learn(&calibrated, &defects, SIZE)
}

#[test]
fn a_branch_that_sees_no_defects_loses_its_weight() -> Result<()> {
    let fusion = learned(Weights::Learned, Gate::default(), false)?;
    let [memory, student] = fusion.precisions().unwrap() else { panic!("two maps") };
    assert!(memory.image_auroc > 0.99 && memory.pixel_auroc > 0.99, "{memory:?}");
    assert!((0.3..0.7).contains(&student.image_auroc), "{student:?}");
    assert!(memory.weight > 0.95 && student.weight < 0.05, "{memory:?} {student:?}");
    // Where both see the defects, both count.
    let fusion = learned(Weights::Learned, Gate::default(), true)?;
    assert!(fusion.precisions().unwrap().iter().all(|precision| (0.3..0.7).contains(&precision.weight)));
    Ok(())
}

#[test]
fn learned_weights_see_more_of_a_defect_than_equal_ones() -> Result<()> {
    let contrast = |fusion: &CalibratedFusion| -> Result<f32> {
        let fused = |scores: &Scores| fusion.fuse(&fusion.calibrate(scores)?, SIZE);
        let (defect, normal) = (fused(&image(500, Some((27, false))))?, fused(&image(500, None))?);
        Ok(defect.image_score.to_vec1::<f32>()?[0] - normal.image_score.to_vec1::<f32>()?[0])
    };
    let equal = contrast(&learned(Weights::Equal, Gate::default(), false)?)?;
    let learned = contrast(&learned(Weights::Learned, Gate::default(), false)?)?;
    assert!(learned > 1.5 * equal, "{learned} and {equal}");
    Ok(())
}

#[test]
fn nothing_is_learned_where_nothing_is_asked_for_or_there_is_one_map() -> Result<()> {
    let plain = learned(Weights::Equal, Gate::default(), false)?;
    assert!(plain.precisions().is_none() && !plain.needs_learning());
    let params =
        FusionParams { weights: Weights::Learned, gate: Gate { views: 1.0, disagreement: 1.0 }, ..Default::default() };
    let single = |number| {
        let mut scores = image(number, None);
        scores.maps.pop();
        scores
    };
    let fusion = params.check()?.fit(&[single(0), single(1)])?;
    assert!(!fusion.needs_defects() && !fusion.needs_learning());
    assert_eq!(fusion.clone().learn(&[], &[], SIZE)?, fusion);
    let fused = fusion.fuse(&fusion.calibrate(&single(2))?, SIZE)?;
    assert_eq!(fused.uncertainty.flatten_all()?.max(0)?.to_scalar::<f32>()?, 0.0);
    Ok(())
}

#[test]
fn few_or_misfitting_defects_are_refused() -> Result<()> {
    let params = FusionParams { weights: Weights::Learned, ..FusionParams::default() };
    let fusion = params.check()?.fit(&[image(0, None), image(1, None)])?;
    let normals = vec![fusion.calibrate(&image(0, None))?];
    let defect = |pixels: u32| -> Result<DefectMaps> {
        Ok(DefectMaps { maps: fusion.calibrate(&image(5, Some((27, true))))?, inside: (0..pixels).collect() })
    };
    let learn = |normals: &[Vec<CalibratedMap>], defects: &[DefectMaps]| {
        fusion.clone().learn(normals, defects, SIZE).unwrap_err().to_string()
    };
    assert!(learn(&normals, &vec![defect(1024)?; 7]).contains("7 synthetic defects"));
    assert!(learn(&normals, &vec![defect(1025)?; 8]).contains("is 1024"));
    assert!(learn(&[], &vec![defect(1024)?; 8]).contains("at least 1"));
    assert!(learn(&[normals[0][..1].to_vec()], &vec![defect(1024)?; 8]).contains("student"));
    Ok(())
}

#[test]
fn the_uncertainty_tells_views_and_branches_that_disagree() -> Result<()> {
    let fusion = learned(Weights::Equal, Gate::default(), true)?;
    let mut maps = fusion.calibrate(&image(300, None))?;
    let agreeing = fusion.fuse(&maps, SIZE)?;
    maps[0].variance = maps[0].variance.affine(0.0, 4.0)?;
    let varying = fusion.fuse(&maps, SIZE)?;
    let mean = |map: &AnomalyMap| map.uncertainty.mean_all()?.to_scalar::<f32>().map_err(Error::from);
    // Half of a variance of 4.
    assert!(mean(&varying)? > 1.3 && mean(&agreeing)? < 0.5, "{} {}", mean(&varying)?, mean(&agreeing)?);
    assert!(varying.image_uncertainty.to_vec1::<f32>()?[0] > 1.3);
    // Equal weights without a gate: the score does not depend on the doubt.
    assert_eq!(varying.map.to_vec3::<f32>()?, agreeing.map.to_vec3::<f32>()?);
    // A gate takes weight from the branch in doubt.
    let gated = learned(Weights::Equal, Gate { views: 1.0, disagreement: 0.0 }, true)?;
    let mut maps = gated.calibrate(&image(300, Some((27, false))))?;
    let before = gated.fuse(&maps, SIZE)?.image_score.to_vec1::<f32>()?[0];
    maps[0].variance = maps[0].variance.affine(0.0, 400.0)?;
    let after = gated.fuse(&maps, SIZE)?.image_score.to_vec1::<f32>()?[0];
    assert!(after < 0.8 * before, "{after} and {before}");
    Ok(())
}

#[test]
fn learned_parts_are_reloaded_and_damaged_ones_refused() -> Result<()> {
    let params = FusionParams { position_aware: PositionAware::Always, ..FusionParams::default() };
    let normals: Vec<Scores> = (0..24).map(|number| image(number, None)).collect();
    let positional = params.check()?.fit(&normals)?;
    assert_eq!(positional.follows_positions(), [true, true]);
    let gate = Gate { views: 0.5, disagreement: 0.1 + 0.2 };
    let mut fusion = learned(Weights::Learned, gate, true)?;
    fusion.calibrations = positional.calibrations;
    let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
    let path = folder.path().join("fusion.masf");
    let read = |fusion: &CalibratedFusion| {
        save(fusion, &path, SaveOptions::default())?;
        let file = ModelFile::open(&path, ReadOptions::default())?;
        CalibratedFusion::read(&file.root()?)
    };
    assert_eq!(read(&fusion)?, fusion);
    let mut wrong = fusion.clone();
    wrong.precisions.as_mut().unwrap()[0].weight = 0.9;
    assert!(read(&wrong).unwrap_err().to_string().contains("add up to"));
    let mut wrong = fusion.clone();
    wrong.precisions.as_mut().unwrap()[0].name = "other".into();
    assert!(read(&wrong).unwrap_err().to_string().contains("calibrated maps"));
    let mut wrong = fusion.clone();
    wrong.units.as_mut().unwrap().pop();
    assert!(read(&wrong).unwrap_err().to_string().contains("gate"));
    let mut wrong = fusion.clone();
    wrong.units.as_mut().unwrap()[0].views = 0.0;
    assert!(read(&wrong).is_err());
    let mut wrong = fusion;
    let mut scales = wrong.calibrations[0].positions().unwrap().clone();
    scales.factor[0] = 100.0;
    wrong.calibrations[0].set_positions(scales);
    assert!(read(&wrong).unwrap_err().to_string().contains("factor"));
    Ok(())
}
