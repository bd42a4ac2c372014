# Fourier transforms: builds our side, then lets the Python script alternate the sides. Sourced by `run`.
require torch numpy
cargo build --release --quiet -p masf-spectral --example fft_peer
"$PYTHON" "$PEERS/fft.py" "${CARGO_TARGET_DIR:-target}/release/examples/fft_peer"
