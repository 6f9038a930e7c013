#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, one after the other: the tests, then every measurement. What fails is named at the
# end and does not stop the others. Takes about 20 minutes; peers to compare with may be given as FILE.py:FACTORY.
#
#     benchmarks/gpu.sh OUT_FOLDER CAMVID_FOLDER [DDRNET.py:FACTORY ...]
set -uo pipefail
out=${1:?folder for the results} camvid=${2:?folder of CamVid}
shift 2
out=$(mkdir -p "$out" && realpath "$out")
cd "$(dirname "$0")/.."

failed=()
step() { # NAME COMMAND...
    local name=$1 begin=$SECONDS
    shift
    echo "== $name: $*"
    timeout 600 "$@" > >(tee "$out/$name.log") 2>&1 || failed+=("$name")
    echo "== $name took $((SECONDS - begin)) s"
}
bench() { # NAME OPTIONS...
    local name=$1
    shift
    step "$name" python -m cli.bench.main "$@" --json "$out/$name.json" --markdown "$out/$name.md"
}

modules=()
for module in "$@"; do modules+=(--module "$module"); done

step tests python -m pytest -m gpu -q -p no:cacheprovider
bench speed --plot "$out/speed.png"
bench backends --model s --model b --size seg50 --size seg100 --backend eager --backend cudagraph --backend compile \
    --backend tensorrt --rounds 5
bench peers --model s --model b --size seg50 --size seg100 --model-only "${modules[@]}"
bench pipeline pipeline
bench blocks blocks
step training python benchmarks/training_speed.py --data-dir "$camvid" --device cuda --workers 15 \
    --output "$out/training.json"
step training-memory python benchmarks/training_speed.py --data-dir "$camvid" --device cuda --memory --model b \
    --crop-size 1024x1024 --output "$out/training-memory.json"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
