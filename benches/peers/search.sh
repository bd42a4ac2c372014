# Nearest prototypes: builds our side, then lets the Python script alternate the sides. Sourced by `run`.
# With MASF_EVAL_DIR real descriptors are extracted first. MASF_PEERS_PROFILE=dev uses the (optimised) dev profile.
require torch numpy safetensors faiss-cpu:faiss
PROFILE="${MASF_PEERS_PROFILE:-release}"
BUILT="${CARGO_TARGET_DIR:-target}/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")"
cargo build --profile "$PROFILE" --quiet -p masf-memory --features hnsw --example memory_peer
source "$PEERS/descriptors.sh"
"$PYTHON" "$PEERS/search.py" "$BUILT/examples/memory_peer" "$DESCRIPTORS"
