//! The methods that a detector can be fitted with.

use std::fmt;
use std::str::FromStr;

use masf_core::Error;

/// What is learned from the features of the backbone.
///
/// ```
/// use masf::Method;
/// assert_eq!("padim".parse::<Method>()?, Method::Padim);
/// assert_eq!(Method::default().to_string(), "masf");
/// # Ok::<(), masf::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Method {
    /// masf's own branches.
    #[default]
    Masf,
    /// [PatchCore](masf_baselines::PatchCore).
    PatchCore,
    /// [PaDiM](masf_baselines::Padim).
    Padim,
    /// [CFA](masf_baselines::Cfa).
    Cfa,
    /// [RD++](masf_baselines::Rdpp).
    Rdpp,
    /// [ADTR](masf_baselines::Adtr).
    Adtr,
    /// [ISSTAD](masf_baselines::Isstad).
    Isstad,
}

impl Method {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Masf, "masf"),
        (Self::PatchCore, "patchcore"),
        (Self::Padim, "padim"),
        (Self::Cfa, "cfa"),
        (Self::Rdpp, "rdpp"),
        (Self::Adtr, "adtr"),
        (Self::Isstad, "isstad"),
    ];

    /// All methods, masf itself first.
    pub const ALL: [Self; Self::NAMES.len()] = {
        let mut all = [Self::Masf; Self::NAMES.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = Self::NAMES[index].0;
            index += 1;
        }
        all
    };
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(method, _)| method == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(method, _)| *method).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(_, name)| *name).collect();
            Error::argument("method", text, format!("one of {}", names.join(", ")))
        })
    }
}
