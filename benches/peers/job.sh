# The whole job against anomalib: builds our side, then lets the Python script run both. Sourced by `run`.
# MASF_EVAL_DIR may name a folder whose `data` has bottle and magnetic_tile; MASF_PEERS_PROFILE=release takes that profile (the dev profile is optimised too).
require torch anomalib timm safetensors onnx onnxscript openvino packaging
profile dev
DATA="${MASF_EVAL_DIR:+$MASF_EVAL_DIR/data}"
[ -n "$DATA" ] || [ ! -d ../shared/data ] || DATA=../shared/data
${CARGO:-cargo} build --profile "$PROFILE" --quiet --workspace --example train --example inspect --example job_peer
"$PYTHON" "$PEERS/job.py" "$BUILT/examples" "$DATA"
