# The masked student against a reverse-distillation student in PyTorch. Needs MASF_EVAL_DIR (data, weights). Sourced by `run`.
# MASF_CATEGORIES names categories; MASF_PEERS_PROFILE=dev uses the (optimised) dev profile.
require torch numpy safetensors scikit-learn:sklearn scipy
profile release
cargo build --workspace --profile "$PROFILE" --quiet --example distill_peer --example descriptors
"$PYTHON" "$PEERS/distill.py" "$BUILT/examples" "${MASF_EVAL_DIR:?names the folder of data and weights}"
