# Nearest prototypes: builds our side, then lets the Python script alternate the sides. Sourced by `run`.
# MASF_DESCRIPTORS may name a folder with search.safetensors, a tensor `descriptors [N, D]` of real ones. MASF_PEERS_PROFILE=dev uses the (optimised) dev profile.
require numpy safetensors faiss-cpu:faiss
profile release
cargo build --profile "$PROFILE" --quiet -p masf-memory --features hnsw --example memory_peer
"$PYTHON" "$PEERS/search.py" "$BUILT/examples/memory_peer" "${MASF_DESCRIPTORS:-}"
