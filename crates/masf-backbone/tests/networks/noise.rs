//! Numbers from a formula, the same as in `tests/reference/backbone_torchvision.py`.

/// Values in `[-1, 1)`: splitmix64 of the index, seeded by the FNV-1a hash of the name.
pub(crate) fn noise(name: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (1..=count as u64).map(move |index| {
        let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}
