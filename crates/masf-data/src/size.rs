//! The size of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DataError;

/// Height and width in pixels, in this order everywhere; written `HEIGHTxWIDTH`.
///
/// ```
/// use masf_data::Size;
/// assert_eq!("640x256".parse::<Size>()?, Size::new(640, 256));
/// assert_eq!("256".parse::<Size>()?, Size::square(256));
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Size {
    /// A size from its height and its width.
    pub const fn new(height: u32, width: u32) -> Self {
        Self { height, width }
    }

    /// As high as wide.
    pub const fn square(side: u32) -> Self {
        Self::new(side, side)
    }

    /// The number of pixels.
    pub const fn pixels(self) -> u64 {
        self.height as u64 * self.width as u64
    }

    pub(crate) const fn doubled(self) -> Self {
        Self::new(2 * self.height, 2 * self.width)
    }

    pub(crate) fn of(image: &image::DynamicImage) -> Self {
        Self::new(image.height(), image.width())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

impl FromStr for Size {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let side = |part: &str| part.trim().parse::<u32>().ok();
        match text.split_once(['x', 'X']) {
            Some((height, width)) => side(height).zip(side(width)).map(|(height, width)| Self { height, width }),
            None => side(text).map(Self::square),
        }
        .ok_or_else(|| DataError::argument("image size", text, "SIDE or HEIGHTxWIDTH, such as 256 or 640x256"))
    }
}
