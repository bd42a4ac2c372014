//! Large images in tiles: the backbone sees one tile at a time, and the features are put together without seams.
//!
//! Tiles overlap. Near the border of a tile, features see padding where the image goes on; so where tiles overlap, their
//! features are averaged with weights that rise from the border of a tile over the overlap. What comes out is the pyramid of the whole image: branches,
//! views, fusion and maps do not know that there were tiles. The memory of the backbone is that of a few tiles.

use candle_core::{DType, Device, Tensor};
use masf_core::{
    Artifact, ArtifactReader, ArtifactWriter, Error, FeatureExtractor, FeatureLevel, FeaturePyramid, LevelSpec,
    Normalisation, Result,
};

use crate::config::InputConfig;
use crate::detector::BATCH;

/// A backbone that works on tiles.
pub(crate) struct Tiled {
    inner: Box<dyn FeatureExtractor>,
    /// Height and width.
    tile: (usize, usize),
    overlap: usize,
}

/// The backbone of a configuration: tiled, if the input is.
///
/// # Errors
/// [`Error::Argument`] for sides of tile or image that the largest stride does not divide, or an overlap that is too large.
pub(crate) fn wrap(inner: Box<dyn FeatureExtractor>, input: &InputConfig) -> Result<Box<dyn FeatureExtractor>> {
    let Some(tile) = input.tile else { return Ok(inner) };
    let largest = inner.levels().iter().map(|level| level.stride).max().unwrap_or(1);
    input.check_tiles(largest)?;
    let tile = (tile.height as usize, tile.width as usize);
    Ok(Box::new(Tiled { inner, tile, overlap: input.tile_overlap as usize }))
}

impl Tiled {
    fn largest_stride(&self) -> usize {
        self.inner.levels().iter().map(|level| level.stride).max().unwrap_or(1)
    }

    /// The features of one image `[1, 3, H, W]`.
    fn extract_image(&self, image: &Tensor, size: (usize, usize)) -> Result<Vec<FeatureLevel>> {
        let stride = self.largest_stride();
        let rows = offsets(size.0, self.tile.0, self.overlap, stride);
        let columns = offsets(size.1, self.tile.1, self.overlap, stride);
        let mut canvases: Vec<Canvas> = self
            .inner
            .levels()
            .iter()
            .map(|spec| Canvas::new(*spec, size, self.tile, self.overlap, &rows, &columns))
            .collect();
        let places: Vec<(usize, usize)> =
            (0..rows.len()).flat_map(|row| (0..columns.len()).map(move |column| (row, column))).collect();
        for places in places.chunks(BATCH) {
            let tiles = places
                .iter()
                .map(|(row, column)| {
                    image.narrow(2, rows[*row], self.tile.0)?.narrow(3, columns[*column], self.tile.1)?.contiguous()
                })
                .collect::<Result<Vec<_>, _>>()?;
            let pyramid = self.inner.extract(&Tensor::cat(&tiles, 0)?)?;
            for (canvas, level) in canvases.iter_mut().zip(pyramid.levels()) {
                for (index, place) in places.iter().enumerate() {
                    canvas.add(&level.map.get(index)?, *place)?;
                }
            }
        }
        canvases.into_iter().map(|canvas| canvas.finish(&self.inner.device())).collect()
    }
}

/// Where tiles begin along an axis: steps of at most the tile less the overlap, whole strides, the last tile at the end.
fn offsets(length: usize, tile: usize, overlap: usize, stride: usize) -> Vec<usize> {
    let last = length.saturating_sub(tile);
    let step = (tile.saturating_sub(overlap) / stride * stride).max(stride);
    let mut offsets: Vec<usize> = (0..last).step_by(step).collect();
    offsets.push(last);
    offsets
}

/// The weight of every step of each tile along an axis; over all tiles, the weights at a place add up to 1.
fn axis_weights(length: usize, tile: usize, overlap: usize, stride: usize, offsets: &[usize]) -> Vec<Vec<f32>> {
    let (steps, of_tile) = (length / stride, tile / stride);
    let ramp = |step: usize| {
        let place = (step as f64 + 0.5) * stride as f64;
        let from_border = place.min(tile as f64 - place);
        if overlap == 0 { 1.0 } else { (from_border / overlap as f64).clamp(1e-3, 1.0) }
    };
    let mut sums = vec![0.0; steps];
    for offset in offsets {
        for (step, sum) in sums.iter_mut().skip(offset / stride).take(of_tile).enumerate() {
            *sum += ramp(step);
        }
    }
    let weights = |offset: &usize| {
        let sums = sums.iter().skip(offset / stride).take(of_tile);
        sums.enumerate().map(|(step, sum)| (ramp(step) / sum) as f32).collect()
    };
    offsets.iter().map(weights).collect()
}

/// The features of one level, put together tile by tile.
struct Canvas {
    spec: LevelSpec,
    height: usize,
    width: usize,
    rows: Vec<(usize, Vec<f32>)>,
    columns: Vec<(usize, Vec<f32>)>,
    /// `[height, width, channels]`.
    values: Vec<f32>,
}

impl Canvas {
    fn new(
        spec: LevelSpec,
        size: (usize, usize),
        tile: (usize, usize),
        overlap: usize,
        rows: &[usize],
        columns: &[usize],
    ) -> Self {
        let axis = |length, tile, offsets: &[usize]| {
            let weights = axis_weights(length, tile, overlap, spec.stride, offsets);
            offsets.iter().map(|offset| offset / spec.stride).zip(weights).collect()
        };
        let (height, width) = (size.0 / spec.stride, size.1 / spec.stride);
        Self {
            spec,
            height,
            width,
            rows: axis(size.0, tile.0, rows),
            columns: axis(size.1, tile.1, columns),
            values: vec![0.0; height * width * spec.channels],
        }
    }

    /// Adds the map `[C, h, w]` of a tile at a row and column of the tiles.
    fn add(&mut self, map: &Tensor, place: (usize, usize)) -> Result<()> {
        let channels = self.spec.channels;
        let ((top, vertical), (left, horizontal)) = (&self.rows[place.0], &self.columns[place.1]);
        let expected = [channels, vertical.len(), horizontal.len()];
        if map.dims() != expected {
            let problem = format!("has shape {:?} instead of {expected:?}", map.dims());
            return Err(Error::data(format!("feature map of a tile at stride {}", self.spec.stride), problem));
        }
        let values =
            map.permute((1, 2, 0))?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        for (row, (down, line)) in vertical.iter().zip(values.chunks_exact(horizontal.len() * channels)).enumerate() {
            let start = ((top + row) * self.width + left) * channels;
            let target = self.values[start..].chunks_exact_mut(channels);
            for ((across, feature), target) in horizontal.iter().zip(line.chunks_exact(channels)).zip(target) {
                let weight = down * across;
                for (target, value) in target.iter_mut().zip(feature) {
                    *target += weight * value;
                }
            }
        }
        Ok(())
    }

    fn finish(self, device: &Device) -> Result<FeatureLevel> {
        let shape = (1, self.height, self.width, self.spec.channels);
        let map = Tensor::from_vec(self.values, shape, &Device::Cpu)?.to_device(device)?;
        Ok(FeatureLevel { spec: self.spec, map: map.permute((0, 3, 1, 2))? })
    }
}

impl FeatureExtractor for Tiled {
    fn levels(&self) -> &[LevelSpec] {
        self.inner.levels()
    }

    fn normalisation(&self) -> Normalisation {
        self.inner.normalisation()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn device(&self) -> Device {
        self.inner.device()
    }

    fn release(&self) {
        self.inner.release();
    }

    fn extract(&self, images: &Tensor) -> Result<FeaturePyramid> {
        let (batch, _, height, width) = images.dims4()?;
        let stride = self.largest_stride();
        if batch == 0 || height < self.tile.0 || width < self.tile.1 || height % stride != 0 || width % stride != 0 {
            let expected = format!(
                "at least one image of at least {}x{}, with sides that are multiples of {stride}",
                self.tile.0, self.tile.1
            );
            return Err(Error::argument("images", format!("{:?}", images.dims()), expected));
        }
        let image = |index| {
            let levels = self.extract_image(&images.narrow(0, index, 1)?, (height, width))?;
            FeaturePyramid::new(levels, (height, width))
        };
        FeaturePyramid::cat(&(0..batch).map(image).collect::<Result<Vec<_>>>()?)
    }
}

/// In a model file it is the backbone itself; the tiles are part of the configuration.
impl Artifact for Tiled {
    fn tag(&self) -> &'static str {
        self.inner.tag()
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        self.inner.write(writer)
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        Err(reader.invalid("tiles are read with the configuration of a detector"))
    }
}

#[cfg(test)]
mod tests {
    use masf_data::Size;

    use super::*;

    /// Mean colours of blocks of 8 and 16 pixels: features that do not look beyond their block.
    struct Blocks;

    const LEVELS: [LevelSpec; 2] = [LevelSpec { stride: 8, channels: 3 }, LevelSpec { stride: 16, channels: 3 }];

    impl FeatureExtractor for Blocks {
        fn levels(&self) -> &[LevelSpec] {
            &LEVELS
        }

        fn normalisation(&self) -> Normalisation {
            Normalisation::SYMMETRIC
        }

        fn name(&self) -> &str {
            "blocks"
        }

        fn extract(&self, images: &Tensor) -> Result<FeaturePyramid> {
            let (_, _, height, width) = images.dims4()?;
            let level = |spec: LevelSpec| Ok(FeatureLevel { spec, map: images.avg_pool2d(spec.stride)? });
            FeaturePyramid::new(LEVELS.into_iter().map(level).collect::<Result<_>>()?, (height, width))
        }
    }

    impl Artifact for Blocks {
        fn tag(&self) -> &'static str {
            "test.blocks"
        }

        fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
            writer.section(&())
        }

        fn read(_: &ArtifactReader<'_>) -> Result<Self> {
            Ok(Self)
        }
    }

    fn input(size: Size, tile: Size, overlap: u32) -> InputConfig {
        InputConfig { size, tile: Some(tile), tile_overlap: overlap, ..InputConfig::default() }
    }

    fn images(batch: usize, height: usize, width: usize) -> Tensor {
        let values: Vec<f32> = (0..batch * 3 * height * width).map(|i| ((i * 7919) % 1009) as f32 / 100.0).collect();
        Tensor::from_vec(values, (batch, 3, height, width), &Device::Cpu).unwrap()
    }

    fn flat(level: &FeatureLevel) -> Vec<f32> {
        level.map.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn features_that_see_their_own_block_are_those_of_the_whole_image() -> Result<()> {
        for (height, width, tile, overlap) in
            [(96, 160, Size::new(64, 64), 32), (64, 64, Size::new(64, 64), 0), (112, 64, Size::new(48, 32), 16)]
        {
            let tiled = wrap(Box::new(Blocks), &input(Size::new(height, width), tile, overlap))?;
            let images = images(2, height as usize, width as usize);
            let (whole, found) = (Blocks.extract(&images)?, tiled.extract(&images)?);
            assert_eq!(found.input_size(), whole.input_size());
            for (whole, found) in whole.levels().iter().zip(found.levels()) {
                assert_eq!(found.map.dims(), whole.map.dims());
                for (a, b) in flat(whole).into_iter().zip(flat(found)) {
                    assert!((a - b).abs() < 1e-5, "{a} and {b}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_features_of_an_image_do_not_depend_on_its_batch() -> Result<()> {
        let tiled = wrap(Box::new(Blocks), &input(Size::square(96), Size::square(64), 32))?;
        let images = images(3, 96, 96);
        let batch = tiled.extract(&images)?;
        for index in 0..3 {
            let alone = tiled.extract(&images.narrow(0, index, 1)?)?;
            for (alone, batch) in alone.levels().iter().zip(batch.image(index)?.levels()) {
                assert_eq!(flat(alone), flat(batch));
            }
        }
        Ok(())
    }

    #[test]
    fn tiles_cover_everything_and_their_weights_add_up_to_one() {
        for (length, tile, overlap, stride) in
            [(1024, 256, 64, 16), (272, 256, 64, 16), (256, 256, 0, 32), (640, 128, 0, 8)]
        {
            let offsets = offsets(length, tile, overlap, stride);
            assert_eq!((offsets[0], offsets[offsets.len() - 1]), (0, length - tile));
            for pair in offsets.windows(2) {
                assert!(pair[0] < pair[1] && pair[1] + overlap <= pair[0] + tile, "{offsets:?}");
            }
            let mut sums = vec![0f32; length / stride];
            for (offset, weights) in offsets.iter().zip(axis_weights(length, tile, overlap, stride, &offsets)) {
                for (sum, weight) in sums[offset / stride..].iter_mut().zip(weights) {
                    *sum += weight;
                }
            }
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sums:?}");
        }
    }

    #[test]
    fn weights_fall_towards_the_border_of_a_tile_where_another_goes_on() {
        let offsets = offsets(384, 256, 128, 16);
        assert_eq!(offsets, [0, 128]);
        let weights = axis_weights(384, 256, 128, 16, &offsets);
        // The first half of the first tile is its own; then its weight falls.
        assert!(weights[0][..8].iter().all(|weight| *weight == 1.0));
        assert!(weights[0][8..].windows(2).all(|pair| pair[0] > pair[1]), "{weights:?}");
    }

    #[test]
    fn tiles_that_do_not_fit_are_refused() {
        let wrong = [
            (input(Size::square(128), Size::square(60), 16), "tile"),
            (input(Size::square(120), Size::square(64), 16), "size"),
            (input(Size::square(128), Size::square(256), 16), "tile"),
            (input(Size::square(128), Size::square(64), 64), "overlap"),
            (input(Size::square(128), Size::square(64), 60), "at most 48"),
        ];
        for (input, name) in wrong {
            let error = wrap(Box::new(Blocks), &input).err().expect("it must be refused").to_string();
            assert!(error.contains(name), "{error}");
        }
        let tiled = wrap(Box::new(Blocks), &input(Size::square(128), Size::square(64), 16)).unwrap();
        assert!(tiled.extract(&images(1, 72, 64)).is_err());
        assert!(tiled.extract(&images(1, 48, 64)).is_err());
    }
}
