//! Against anomalib's own PatchCore and PaDiM on identical features; see `tests/reference/baselines_anomalib.py`.

use candle_core::{Device, Tensor};
use masf_baselines::{PadimParams, PatchCoreParams};
use masf_core::{
    FeatureCache, FeatureCacheBuilder, FeatureLevel, FeaturePyramid, Fit, LevelSpec, Result, Scorer, Silent,
};

#[derive(serde::Deserialize)]
struct Reference {
    shapes: Vec<(usize, usize, usize)>,
    train: usize,
    test: usize,
    /// One level after another, `[train + test, C, h, w]`.
    maps: Vec<Vec<f32>>,
    patchcore: Vec<f32>,
    patchcore_image: Vec<f32>,
    channels: Vec<usize>,
    padim: Vec<f32>,
}

impl Reference {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/baselines_anomalib.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The images from `start` on.
    fn pyramid(&self, start: usize, count: usize) -> Result<FeaturePyramid> {
        let mut levels = Vec::new();
        for ((stride, &(channels, height, width)), values) in [4, 8, 16].into_iter().zip(&self.shapes).zip(&self.maps) {
            let map = Tensor::from_slice(values, (self.train + self.test, channels, height, width), &Device::Cpu)?;
            levels.push(FeatureLevel { spec: LevelSpec { stride, channels }, map: map.narrow(0, start, count)? });
        }
        FeaturePyramid::new(levels, (32, 48))
    }

    fn train(&self) -> Result<FeatureCache> {
        let mut cache = FeatureCacheBuilder::new(1 << 20);
        cache.push(&self.pyramid(0, self.train)?)?;
        cache.finish()
    }

    fn test(&self) -> Result<FeaturePyramid> {
        self.pyramid(self.train, self.test)
    }
}

/// Equal to one part in a thousand.
fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-3 * b.abs(), "{index}: {a} instead of {b}");
    }
}

fn values(map: &Tensor) -> Result<Vec<f32>> {
    Ok(map.flatten_all()?.to_vec1()?)
}

#[test]
fn patchcore_is_that_of_anomalib() -> Result<()> {
    let reference = Reference::read();
    let params = PatchCoreParams { reweight_neighbours: 9, ..PatchCoreParams::default() };
    let fitted = params.check()?.fit(&reference.train()?, &Silent)?;
    assert_eq!(fitted.bank().search().count(), 9 * 24);
    let scores = fitted.score(&reference.test()?)?;
    assert_eq!(scores.maps[0].name, "patchcore");
    assert_eq!(scores.maps[0].values.dims(), [2, 4, 6]);
    assert_close(&values(&scores.maps[0].values)?, &reference.patchcore);
    assert_close(&values(&scores.image.expect("image scores are on"))?, &reference.patchcore_image);
    Ok(())
}

#[test]
fn padim_is_that_of_anomalib() -> Result<()> {
    let reference = Reference::read();
    let fit = PadimParams::default().check()?.with_channels(reference.channels.clone());
    let scores = fit.fit(&reference.train()?, &Silent)?.score(&reference.test()?)?;
    assert_eq!(scores.maps[0].name, "padim");
    assert_eq!(scores.maps[0].values.dims(), [2, 8, 12]);
    assert_close(&values(&scores.maps[0].values)?, &reference.padim);
    Ok(())
}
