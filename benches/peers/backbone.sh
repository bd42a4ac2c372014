# Backbones: builds our side, then lets the Python script alternate the sides. Sourced by `run`.
require torch numpy safetensors onnx onnxruntime openvino
cargo build --release --quiet -p masf-backbone --example backbone_peer
"$PYTHON" "$PEERS/backbone.py" "${CARGO_TARGET_DIR:-target}/release/examples/backbone_peer"
