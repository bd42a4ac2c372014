//! Ready-made configurations.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use masf_core::Error;

use crate::{Branch, Config};

/// A ready-made configuration; see [`Config::preset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Preset {
    /// The least time per image, and to fit: the memory bank alone.
    Fast,
    /// The default configuration: memory bank and, with most backbones, student.
    #[default]
    Balanced,
    /// Both branches, with twice the prototypes.
    Accurate,
}

impl Preset {
    /// All presets, fastest first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Accurate];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Accurate => "accurate",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| Error::argument("preset", text, "fast, balanced or accurate"))
    }
}

impl Config {
    /// The configuration of a preset.
    ///
    /// `fast` has the memory bank alone. `balanced` is [`Config::for_backbone`]: with most backbones the student beside it, but not with the default one.
    /// `accurate` always has both, and twice the prototypes.
    /// What it gains and costs: `docs/fusion.md`.
    ///
    /// ```
    /// use masf::{Config, Preset};
    /// assert_eq!(Config::preset(Preset::Balanced), Config::default());
    /// assert_eq!(Config::preset(Preset::Fast).branches, [masf::Branch::Memory]);
    /// ```
    pub fn preset(preset: Preset) -> Self {
        Self::preset_for(preset, &Self::default().backbone.name)
    }

    /// The configuration of a preset with a backbone of the registry, see [`for_backbone`](Self::for_backbone).
    pub fn preset_for(preset: Preset, backbone: &str) -> Self {
        let mut config = Self::for_backbone(backbone);
        // The one place that says what each preset has. `Balanced` is the default configuration.
        match preset {
            Preset::Fast => config.branches = vec![Branch::Memory],
            Preset::Balanced => {}
            Preset::Accurate => {
                config.branches = vec![Branch::Memory, Branch::Distill];
                config.memory.prototypes *= 2;
            }
        }
        config
    }

    /// The configuration that a command line names: that of `file`, or without one that of `preset`; `backbone` takes the place of the file's,
    /// and what the file leaves out has the defaults of [`for_backbone`](Self::for_backbone) with it. Ranges are yet to be
    /// [checked](Self::check): further options may change what the file says.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML, unknown keys, and values of the wrong type.
    pub fn choose(file: Option<&Path>, preset: Preset, backbone: Option<&str>) -> Result<Self, Error> {
        match (file, backbone) {
            (Some(path), backbone) => Self::read(path, backbone),
            (None, Some(name)) => Ok(Self::preset_for(preset, name)),
            (None, None) => Ok(Self::preset(preset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_read_as_they_are_written() {
        for preset in Preset::ALL {
            Config::preset(preset).check().unwrap();
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "threshold.folds = 2").unwrap();
        let read = Config::choose(Some(file.path()), Preset::Fast, Some("dinov2-vits14")).unwrap();
        let mut expected = Config::for_backbone("dinov2-vits14");
        expected.threshold.folds = Some(2);
        assert_eq!(read, expected);
        assert!("slow".parse::<Preset>().unwrap_err().to_string().contains("balanced"));
    }
}
