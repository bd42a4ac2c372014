//! Reads and preprocesses many images on rayon's threads, in order and with bounded memory.
//!
//! A window of items is in flight: up to [`LoadOptions::in_flight`] are being decoded or wait for their turn. Results come in the
//! order of the items, and are the same for any number of threads and any window.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use candle_core::Tensor;
use masf_core::Progress;

use crate::error::{DataError, ImageProblem, Result};
use crate::{ImageInput, Limits, Mask, Preprocess, Sample, Size};

/// One image to load, and its mask, if any.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadItem {
    /// The image.
    pub image: ImageInput,
    /// The file of its mask; `None` for an image without a defect.
    pub mask: Option<std::path::PathBuf>,
}

impl<I: Into<ImageInput>> From<I> for LoadItem {
    fn from(image: I) -> Self {
        Self { image: image.into(), mask: None }
    }
}

impl From<&Sample> for LoadItem {
    fn from(sample: &Sample) -> Self {
        Self { image: (&sample.path).into(), mask: sample.mask.clone() }
    }
}

/// How to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// What a file may ask for.
    pub limits: Limits,
    /// How many images are being decoded or wait for their turn; 16 by default, 0 counts as 1. At most this many images
    /// are held: decoded while a thread works on one, as a tensor (12 bytes per pixel of the output) afterwards.
    pub in_flight: usize,
    /// Whether tensors have twice the height and the width of the preprocessing ([`Preprocess::doubled_tensor`]); masks do not. `false` by default.
    pub doubled: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), in_flight: 16, doubled: false }
    }
}

/// An image that has been loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// Its position among the items.
    pub index: usize,
    /// The normalised image `[3, H, W]`, `f32`, on the CPU.
    pub tensor: Tensor,
    /// The mask at the size of the preprocessing, where the item named one, by nearest neighbour; defects that this passes over altogether keep their pixels.
    pub mask: Option<Mask>,
    /// The size of the upright image before preprocessing.
    pub size: Size,
}

/// An image that could not be loaded.
#[derive(Debug)]
pub struct Failed {
    /// Its position among the items.
    pub index: usize,
    /// Why; names the file.
    pub error: DataError,
}

/// Images that have been loaded together.
#[derive(Debug)]
#[non_exhaustive]
pub struct Batch {
    /// The normalised images `[B, 3, H, W]`, `f32`, on the CPU; `None` if every image of the batch failed.
    pub tensor: Option<Tensor>,
    /// The images of the tensor, in order. Their own tensors share no memory with it.
    pub images: Vec<Loaded>,
    /// The images that failed.
    pub failed: Vec<Failed>,
}

/// Loads items in order; see the [module](self) for memory and threads.
///
/// An iterator over `Result<Loaded, Failed>`: one bad file does not end it. It works on rayon's current thread pool, and
/// may be driven from a thread of that pool too.
///
/// ```
/// use masf_core::{Normalisation, Silent};
/// use masf_data::{LoadOptions, Loader, Preprocess, Size};
///
/// let images = [image::RgbImage::new(40, 30), image::RgbImage::new(20, 50)];
/// let preprocess = Preprocess::new(Size::square(32), Normalisation::IMAGENET)?;
/// let mut loader = Loader::new(images, preprocess, LoadOptions::default(), &Silent);
/// let batch = loader.next_batch(8)?.expect("two images");
/// assert_eq!(batch.tensor.expect("both are good").dims(), [2, 3, 32, 32]);
/// assert!(loader.next_batch(8)?.is_none());
/// # Ok::<(), masf_data::DataError>(())
/// ```
pub struct Loader<'a> {
    items: std::iter::Enumerate<std::vec::IntoIter<LoadItem>>,
    /// Position and name of each item in flight, and where its result arrives.
    window: VecDeque<(usize, String, Receiver<Result<Loaded>>)>,
    task: Arc<Task>,
    in_flight: usize,
    progress: &'a dyn Progress,
}

/// What every thread needs.
struct Task {
    preprocess: Preprocess,
    doubled: bool,
    limits: Limits,
    abandoned: AtomicBool,
}

impl<'a> Loader<'a> {
    /// Prepares to load `items`. Work starts with the first call of `next`. `progress` is asked before each item whether to
    /// stop; stages and steps are the caller's to report.
    pub fn new<I: Into<LoadItem>>(
        items: impl IntoIterator<Item = I>,
        preprocess: Preprocess,
        options: LoadOptions,
        progress: &'a dyn Progress,
    ) -> Self {
        let items: Vec<LoadItem> = items.into_iter().map(Into::into).collect();
        Self {
            items: items.into_iter().enumerate(),
            window: VecDeque::new(),
            task: Arc::new(Task {
                preprocess,
                doubled: options.doubled,
                limits: options.limits,
                abandoned: AtomicBool::new(false),
            }),
            in_flight: options.in_flight.max(1),
            progress,
        }
    }

    /// The number of items that have not been returned yet.
    pub fn remaining(&self) -> usize {
        self.items.len() + self.window.len()
    }

    /// The next `size` items (fewer at the end) as a batch, those that failed included in the count; `None` at the end.
    ///
    /// # Errors
    /// [`DataError::Argument`] for a size of 0, [`DataError::Cancelled`] once the progress says so, [`DataError::Backend`] if the
    /// images cannot be stacked.
    pub fn next_batch(&mut self, size: usize) -> Result<Option<Batch>> {
        if size == 0 {
            return Err(DataError::argument("batch size", size, "at least 1"));
        }
        let (mut images, mut failed) = (Vec::new(), Vec::new());
        for result in self.by_ref().take(size) {
            match result {
                Ok(loaded) => images.push(loaded),
                Err(Failed { error: DataError::Cancelled, .. }) => return Err(DataError::Cancelled),
                Err(failure) => failed.push(failure),
            }
        }
        if images.is_empty() && failed.is_empty() {
            return Ok(None);
        }
        let tensors: Vec<_> = images.iter().map(|loaded| &loaded.tensor).collect();
        let tensor = if tensors.is_empty() { None } else { Some(Tensor::stack(&tensors, 0)?) };
        Ok(Some(Batch { tensor, images, failed }))
    }

    /// Starts work until the window is full.
    fn fill_window(&mut self) {
        while self.window.len() < self.in_flight {
            let Some((index, item)) = self.items.next() else { return };
            let name = item.image.name();
            let (sender, receiver) = sync_channel(1);
            let task = Arc::clone(&self.task);
            rayon::spawn_fifo(move || {
                if task.abandoned.load(Ordering::Relaxed) {
                    return;
                }
                // A panic here would end the process; dropping the sender instead makes it the item's error.
                if let Ok(result) = catch_unwind(AssertUnwindSafe(|| task.load(index, &item))) {
                    // The receiver is gone if the loader was dropped meanwhile.
                    let _ = sender.send(result);
                }
            });
            self.window.push_back((index, name, receiver));
        }
    }
}

impl Iterator for Loader<'_> {
    type Item = Result<Loaded, Failed>;

    /// The next image. After cancellation one [`DataError::Cancelled`], then the end.
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining() > 0 && self.progress.is_cancelled() {
            let waiting = self.window.front().map(|(index, ..)| *index);
            let index = waiting.or_else(|| self.items.next().map(|(index, _)| index)).unwrap_or(0);
            self.task.abandoned.store(true, Ordering::Relaxed);
            self.items = Vec::new().into_iter().enumerate();
            self.window.clear();
            return Some(Err(Failed { index, error: DataError::Cancelled }));
        }
        self.fill_window();
        let (index, name, receiver) = self.window.pop_front()?;
        Some(wait(&name, &receiver).map_err(|error| Failed { index, error }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.remaining()))
    }
}

impl Drop for Loader<'_> {
    fn drop(&mut self) {
        self.task.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Task {
    fn load(&self, index: usize, item: &LoadItem) -> Result<Loaded> {
        let LoadItem { image: input, mask } = item;
        let decoded;
        let image = match input {
            ImageInput::Image(image) => image,
            _ => {
                decoded = input.decode(&self.limits)?;
                &decoded
            }
        };
        let size = Size::of(image);
        let tensor = if self.doubled { self.preprocess.doubled_tensor(image) } else { self.preprocess.tensor(image) };
        let tensor = tensor.map_err(|error| error.named(input.name()))?;
        let mask = match mask {
            Some(path) => {
                let mask = Mask::read_for(path, &self.limits, &input.name(), size)?;
                if !mask.any() {
                    let problem = ImageProblem::Values("an empty mask; outline the defect, or remove the file".into());
                    return Err(DataError::Image { image: path.display().to_string(), problem });
                }
                Some(mask.sample_defect(&self.preprocess.geometry(size)?))
            }
            None => None,
        };
        Ok(Loaded { index, tensor, mask, size })
    }
}

/// Waits for a result. A thread of the pool works on other tasks meanwhile: it might have to do this one itself.
fn wait(name: &str, receiver: &Receiver<Result<Loaded>>) -> Result<Loaded> {
    let lost = || DataError::io(name, std::io::Error::other("loading it ended in a panic"));
    if rayon::current_thread_index().is_none() {
        return receiver.recv().unwrap_or_else(|_| Err(lost()));
    }
    loop {
        match receiver.try_recv() {
            Ok(result) => return result,
            Err(TryRecvError::Disconnected) => return Err(lost()),
            Err(TryRecvError::Empty) => {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_loading_names_the_image() {
        let lost = || {
            let (sender, receiver) = sync_channel(1);
            drop(sender);
            wait("part.png", &receiver)
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for result in [lost(), pool.install(lost)] {
            assert_eq!(result.unwrap_err().to_string(), "part.png: loading it ended in a panic");
        }
    }
}
