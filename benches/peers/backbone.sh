# Backbones: builds our side, then lets the Python script alternate the sides. Sourced by `run`.
require torch numpy safetensors onnx onnxruntime openvino
cargo build --release --quiet --locked -p masf-backbone --example backbone_peer
cargo build --release --quiet --manifest-path "$PEERS/candle/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-target}/candle"
"$PYTHON" "$PEERS/backbone.py" "${CARGO_TARGET_DIR:-target}/release/examples/backbone_peer" "${CARGO_TARGET_DIR:-target}/candle/release/candle-peer"
