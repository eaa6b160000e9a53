#!/usr/bin/env bash
# From checkpoints in Hugging Face layout to a chat, in one command: small Llama and Qwen2 checkpoints are made, random
# and trained, one with PAD's value head and a LoRA adapter; all are exported, the figures of parity checked, a bundle
# is built, and it answers.
#
#   examples/export_demo.sh [DIR [OPTIONS of padlite export base]]
#
# DIR keeps what is made (default: a temporary folder). Needs: pip install 'padlite[export,train]'
set -euo pipefail
work=${1:-$(mktemp -d)}
shift || true
mkdir -p "$work"
cd "$work"
export OMP_NUM_THREADS=1  # two threads are slower than one on models of this size

echo "== checkpoints in $work"
python - <<'PYTHON'
from pathlib import Path
from padlite_export.random_checkpoint import write_adapter, write_checkpoint
from padlite_export.trained_checkpoint import train

answers = {"Hello.": "Hello, friend. How are you?", "Who are you?": "A very small model."}
for kind, sizes in (("llama", {}), ("qwen2", {"tie_word_embeddings": False})):
    write_checkpoint(Path("random", kind), model_type=kind, sizes=sizes)
    write_checkpoint(Path("trained", kind), model_type=kind, sizes=sizes, value_head=kind == "llama")
    print(f"trained {kind}: loss {train(Path('trained', kind), answers):.3f} nats a token")
write_adapter(Path("adapter"))
PYTHON

export_base() {  # CHECKPOINT NAME OPTIONS…
    echo "== base $2"
    padlite export base "$1" --out "$2.gguf" --threads 1 "${@:3}"
}
export_reward() {  # CHECKPOINT NAME OPTIONS…
    echo "== reward $2"
    padlite export reward "$1" --base trained-llama.gguf --out "$2.onnx" --json "${@:3}" > "$2.onnx.proof.json"
}
export_base random/llama random-llama --dtype f32 "$@"
export_base random/qwen2 random-qwen2 --dtype f32 "$@"
export_base trained/llama trained-llama --dtype f32 "$@"
export_base trained/qwen2 trained-qwen2 --dtype f32 --quantize q8_0 "$@"
export_reward random/qwen2 random-qwen2 --dtype fp32
for dtype in fp32 int8 int4; do
    export_reward trained/llama "trained-llama-$dtype" --adapter adapter --preference humor --dtype "$dtype"
done

echo "== parity"
python - <<'PYTHON'
import json, sys
from pathlib import Path

failed = False
for path in sorted(Path().glob("*.proof.json")):
    proof = json.loads(path.read_text())
    if path.name.endswith(".gguf.proof.json"):
        found = proof["against_source"]["overall"]
        error, same = found["logits_difference"], found["same_best"]
    else:
        error, same = proof["parity"]["largest_error"], proof["parity"]["same_best"]
    exact = proof["dtype"] in ("f32", "fp32")
    good = not exact or (error < 1e-3 and same >= 0.999)
    failed |= not good
    name = path.name.removesuffix(".proof.json")
    print(f"{name:<26}{proof['dtype']:<6}largest error {error:<10.3g}same best {same:<9.2%}{'' if good else 'FAILED'}")
sys.exit(failed)
PYTHON

echo "== bundle"
padlite models build --base trained-llama.gguf --reward trained-llama-int8.onnx --out demo
echo "== chat"
padlite chat --model ./demo --no-save -p "Hello."
padlite chat --model ./demo --no-save --weight preference=0.5 -p "Hello."
