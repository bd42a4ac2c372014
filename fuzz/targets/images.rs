#![no_main]

use std::sync::Once;

#[path = "../bodies/images.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The library catches panics of decoders and makes errors of them; the fuzzer's own hook would end the process before that. A panic
    // that gets out of the target still ends it.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    body::run(data);
});
