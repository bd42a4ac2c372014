//! Configurations in TOML.

use masf::Config;

/// Reads the bytes as a configuration; one that is accepted can be written and read back.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = Config::from_toml(text) {
        let written = config.to_toml().expect("what was read can be written");
        assert_eq!(Config::from_toml(&written).expect("what was written can be read"), config);
    }
}
