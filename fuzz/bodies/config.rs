//! Configurations in TOML.

use masf::Config;

/// Reads the bytes as a configuration; one that is accepted can be written and read back. Whether it is.
pub(crate) fn run(data: &[u8]) -> bool {
    let Some(config) = std::str::from_utf8(data).ok().and_then(|text| Config::from_toml(text).ok()) else {
        return false;
    };
    let written = config.to_toml().expect("what was read can be written");
    assert_eq!(Config::from_toml(&written).expect("what was written can be read"), config);
    true
}
