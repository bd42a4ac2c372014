# Extracts real patch descriptors where MASF_EVAL_DIR has images and weights; DESCRIPTORS names their folder, or is empty.
# Sourced by search.sh and coreset.sh, after BUILT and PROFILE are set. Existing files are kept.
DESCRIPTORS=""
if [[ -n "${MASF_EVAL_DIR:-}" ]]; then
    DESCRIPTORS="${CARGO_TARGET_DIR:-target}/peers-descriptors"
    mkdir -p "$DESCRIPTORS"
    cargo build --profile "$PROFILE" --quiet -p masf-examples --example descriptors
    extract() {
        [[ -f "$DESCRIPTORS/$1" ]] || "$BUILT/examples/descriptors" --backbone resnet50-v2 \
            --weights "$MASF_EVAL_DIR/weights/resnet50_v2_layers123.safetensors" --out "$DESCRIPTORS/$1" "${@:2}"
    }
    extract search.safetensors --data "$MASF_EVAL_DIR/data/magnetic_tile" --every 6 --count 110000 --dimensions 512 --anchors
    extract coreset.safetensors --data "$MASF_EVAL_DIR/data/bottle" --count 214016 --dimensions 384
fi
