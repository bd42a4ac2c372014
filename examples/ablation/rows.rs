//! The rows of the ablation: what each changes in the full configuration. Parts that are off by default have rows that turn them on.

use masf::{BackboneConfig, Branch, Config, Detail, FineScale, Gate, Method, PositionAware, Preset, Weights};

/// A row: the full configuration with one part off or another one on, or a baseline.
pub(crate) struct Row {
    /// What it is called on the command line and in file names.
    pub(crate) name: &'static str,
    /// What it shows, for the table.
    pub(crate) what: &'static str,
    /// Whether branches learn anew, so that one seed has to do; other rows only score differently.
    pub(crate) trains_again: bool,
    /// Turns the full configuration into this one.
    pub(crate) change: fn(&mut Config),
}

/// The row in which nothing is changed.
pub(crate) const FULL: &str = "full";

/// All rows; a further part is one more entry.
pub(crate) const ROWS: &[Row] = &[
    Row { name: FULL, what: "the settings as they are", trains_again: false, change: |_| {} },
    Row {
        name: "memory-only",
        what: "the memory bank alone: preset `fast`",
        trains_again: false,
        change: |config| keep_input(config, Config::preset_for(Preset::Fast, &config.backbone.name)),
    },
    Row {
        name: "no-student",
        what: "without the distilled student (AMFD)",
        trains_again: false,
        change: |config| config.branches = vec![Branch::Memory],
    },
    Row {
        name: "student-only",
        what: "without the memory bank (SAMB); the student then drops no values",
        trains_again: false,
        change: |config| config.branches = vec![Branch::Distill],
    },
    Row {
        name: "patchcore",
        what: "the baseline PatchCore",
        trains_again: false,
        change: |config| {
            let plain = Config { method: Method::PatchCore, ..Config::for_backbone(&config.backbone.name) };
            keep_input(config, plain);
        },
    },
    Row {
        name: "no-masks",
        what: "the student learns from whole features (AMFD without masking)",
        trains_again: true,
        change: |config| (config.distill.token_mask, config.distill.frequency_mask) = (0.0, 0.0),
    },
    Row {
        name: "steady-masks",
        what: "the student loses tokens to the last step, masks do not fade",
        trains_again: true,
        change: |config| config.distill.mask_fade = 0.0,
    },
    Row {
        name: "both-masks",
        what: "the student loses tokens and bands of frequencies (off by default)",
        trains_again: true,
        change: |config| config.distill.frequency_mask = 0.5,
    },
    Row {
        name: "frequency-mask",
        what: "the student loses bands of frequencies, no tokens",
        trains_again: true,
        change: |config| (config.distill.token_mask, config.distill.frequency_mask) = (0.0, 0.5),
    },
    Row {
        name: "no-dropout",
        what: "the student's bottleneck drops no values in training",
        trains_again: true,
        change: |config| config.distill.dropout = Some(0.0),
    },
    Row {
        name: "random-start",
        what: "the student starts at random weights, not at the best linear student",
        trains_again: true,
        change: |config| config.distill.linear_start = false,
    },
    Row {
        name: "no-ssca",
        what: "the student without spectral-spatial cross-attention (SSCA)",
        trains_again: true,
        change: |config| config.distill.spectral_attention = false,
    },
    Row {
        name: "no-global-filter",
        what: "the student without learnable global filters",
        trains_again: true,
        change: |config| config.distill.global_filter = false,
    },
    Row {
        name: "anchors",
        what: "the memory bank's distances with spectral anchors (SAMB; off by default)",
        trains_again: true,
        change: |config| config.memory.anchor_weight = 0.1,
    },
    Row {
        name: "turns",
        what: "the memory bank learns from images at four angles, too (off by default)",
        trains_again: true,
        change: |config| config.memory.turns = 4,
    },
    Row {
        name: "equal-weights",
        what: "all branches weighed alike (UGHF without shares)",
        trains_again: false,
        change: |config| config.fusion.weights = Weights::Equal,
    },
    Row {
        name: "learned-weights",
        what: "branches and scales weighed by synthetic defects (UGHF's precision; off by default)",
        trains_again: false,
        change: |config| config.fusion.weights = Weights::Learned,
    },
    Row {
        name: "gate",
        what: "a gate by the disagreement of the branches (UGHF; off by default)",
        trains_again: false,
        change: |config| config.fusion.gate = Gate { views: 0.0, disagreement: 1.0 },
    },
    Row {
        name: "views",
        what: "four test-time views by phase noise (TTSA; off by default)",
        trains_again: false,
        change: |config| config.views.noise = 4,
    },
    Row {
        name: "no-fine-scale",
        what: "anomaly maps in which all scales count alike",
        trains_again: false,
        change: |config| config.fusion.fine_scale = FineScale::OFF,
    },
    Row {
        name: "no-detail",
        what: "anomaly maps without the detail of the image",
        trains_again: false,
        change: |config| config.fusion.detail = Detail::OFF,
    },
    Row {
        name: "positions",
        what: "calibration by position where it explains the scores",
        trains_again: false,
        change: |config| config.fusion.position_aware = PositionAware::Auto,
    },
    Row {
        name: "bank-per-level",
        what: "a memory bank for each stride instead of one",
        trains_again: true,
        change: |config| config.memory.per_level = true,
    },
];

/// Another configuration with the input, backbone, threshold and seed of this one; levels are part of the other.
fn keep_input(config: &mut Config, other: Config) {
    let kept = config.clone();
    let backbone = BackboneConfig { strides: other.backbone.strides, ..kept.backbone };
    let Config { seed, memory_budget, orientations, input, threshold, .. } = kept;
    *config = Config { seed, memory_budget, orientations, input, threshold, backbone, ..other };
}
