//! Errors, classified by who is at fault.

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// An argument of the caller: a shape, a length, a limit.
    Argument,
    /// The scores or masks themselves: the metric is not defined on them.
    Data,
}

/// The two classes of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Free of defects.
    Normal,
    /// Defective.
    Anomalous,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Normal => "normal",
            Class::Anomalous => "anomalous",
        })
    }
}

/// Why a metric could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Scores and labels are not of the same number.
    #[error("{scores} scores but {labels} labels; give one label for each score")]
    LengthMismatch {
        /// The number of scores.
        scores: usize,
        /// The number of labels.
        labels: usize,
    },
    /// A mask has another shape than its map.
    #[error("image {image}: the mask is {mask:?} but the map is {map:?} ([height, width]); resize the mask to the map")]
    ShapeMismatch {
        /// The number of the image, counted from 0 in the order of addition.
        image: usize,
        /// The shape of the map, `[height, width]`.
        map: [usize; 2],
        /// The shape of the mask, `[height, width]`.
        mask: [usize; 2],
    },
    /// A limit on the false-positive rate is out of range.
    #[error("the limit on the false-positive rate is {limit}; expected a number above 0 and at most 1")]
    FprLimit {
        /// The limit that was given.
        limit: f64,
    },
    /// More items than 32-bit labels can number.
    #[error("{count} {items} are more than the {} that can be told apart; evaluate fewer at a time", u32::MAX)]
    TooMany {
        /// How many were given.
        count: usize,
        /// What they are.
        items: &'static str,
    },
    /// There is nothing to evaluate.
    #[error("there are no {items} to evaluate")]
    Empty {
        /// What is missing.
        items: &'static str,
    },
    /// A map has no pixels.
    #[error("image {image}: the anomaly map has no pixels")]
    EmptyMap {
        /// The number of the image, counted from 0 in the order of addition.
        image: usize,
    },
    /// A score is NaN or infinite.
    #[error("score {index} is {value}; scores must be finite")]
    NonFiniteScore {
        /// The index of the score.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A pixel of an anomaly map is NaN or infinite.
    #[error("image {image}: the anomaly map is {value} at row {row}, column {column}; scores must be finite")]
    NonFinitePixel {
        /// The number of the image, counted from 0 in the order of addition.
        image: usize,
        /// The row of the first such pixel.
        row: usize,
        /// Its column.
        column: usize,
        /// Its value.
        value: f32,
    },
    /// All items are of one class.
    #[error("all {count} {items} are {class}; the metric is defined only where both classes occur")]
    OneClass {
        /// How many there are.
        count: usize,
        /// What they are.
        items: &'static str,
        /// The class of all of them.
        class: Class,
    },
    /// No mask marks a pixel.
    #[error("no mask of the {images} images marks a pixel; pixel metrics need a defective image with its mask")]
    NoRegions {
        /// How many images there are.
        images: usize,
    },
    /// A mask leaves no normal pixel in an image that is evaluated alone.
    #[error("image {image}: the mask covers the whole image; its own AUPRO needs normal pixels")]
    NoNormalPixels {
        /// The number of the image, counted from 0.
        image: usize,
    },
}

impl Error {
    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Error::LengthMismatch { .. }
            | Error::ShapeMismatch { .. }
            | Error::FprLimit { .. }
            | Error::TooMany { .. } => Fault::Argument,
            Error::Empty { .. }
            | Error::EmptyMap { .. }
            | Error::NonFiniteScore { .. }
            | Error::NonFinitePixel { .. }
            | Error::OneClass { .. }
            | Error::NoRegions { .. }
            | Error::NoNormalPixels { .. } => Fault::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_value_and_the_fault_is_told() {
        let limit = Error::FprLimit { limit: 1.5 };
        assert_eq!(limit.fault(), Fault::Argument);
        assert!(limit.to_string().contains("is 1.5; expected"), "{limit}");
        let one_class = Error::OneClass { count: 7, items: "scores", class: Class::Normal };
        assert_eq!(one_class.fault(), Fault::Data);
        assert!(one_class.to_string().starts_with("all 7 scores are normal"), "{one_class}");
    }
}
