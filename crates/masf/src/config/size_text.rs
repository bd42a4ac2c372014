//! Sizes of images in TOML: `"640x256"`, or `256` for a square.

use masf_data::Size;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn serialize<S: Serializer>(size: &Size, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(size)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
    match SizeText::deserialize(deserializer)? {
        SizeText::Side(side) => Ok(Size::square(side)),
        SizeText::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "an image size such as 256 or \"640x256\"")]
enum SizeText {
    Side(u32),
    Text(String),
}

/// Sizes that may be left out.
pub(super) mod optional {
    use super::{Deserialize, Deserializer, Serializer, Size};

    pub(in super::super) fn serialize<S: Serializer>(size: &Option<Size>, serializer: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => super::serialize(size, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Size>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "super")] Size);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}
