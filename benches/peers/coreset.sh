# Greedy k-centre: builds our side, then lets the Python script alternate the sides. Sourced by `run`.
# MASF_DESCRIPTORS may name a folder with coreset.safetensors, a tensor `descriptors [N, D]` of real ones. MASF_PEERS_PROFILE=dev uses the (optimised) dev profile.
require torch numpy safetensors scikit-learn:sklearn faiss-cpu:faiss anomalib
profile release
cargo build --profile "$PROFILE" --quiet -p masf-memory --features hnsw --example memory_peer
"$PYTHON" "$PEERS/coreset.py" "$BUILT/examples/memory_peer" "${MASF_DESCRIPTORS:-}"
