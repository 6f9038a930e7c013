#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, part by part: the tests, then every measurement, what matters most first. What
# fails or takes too long is named at the end and stops nothing else; each part writes what it found when it is done.
#
#     benchmarks/gpu.sh OUT_FOLDER [PEER.py:FACTORY ...]
#
# It runs from the folder that it is in; bsdnet need not be installed. The pipeline, training and the tests of both need
# PyAV. Environment:
#     PYTHON    interpreter; python3
#     LIMIT_S   seconds for all; a part is cut off there, later ones are left out; 3000
#     ONLY      names of parts, such as "headline speed"; all
#     CAMVID    folder of CamVid: adds the speed of training
#     DEVICE    cuda; with cpu and TINY=1 the script itself can be tried without a GPU
#     TINY      1: the smallest sizes and fewest rounds, and ten times the patience
set -uo pipefail
out=${1:?folder for the results}
shift
out=$(mkdir -p "$out" && realpath "$out")
modules=()
for module in "$@"; do modules+=(--module "$(realpath "${module%:*}"):${module##*:}"); done
cd "$(dirname "$0")/.." || exit
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

python=${PYTHON:-python3} limit_s=${LIMIT_S:-3000} device=${DEVICE:-cuda} only=${ONLY:-}
sizes=(--size seg50 --size seg100) small=seg50 middle=seg75 large=seg100 rounds=6 frames=200 crop=1024x1024 patience=1
if [[ ${TINY:-} ]]; then
    sizes=(--size 64x64) small=64x64 middle=64x64 large=64x64 rounds=1 frames=8 crop=64x64 patience=10
fi

heeding=() # what a script in the background starts ignores SIGINT
env --default-signal=INT true 2>/dev/null && heeding=(env --default-signal=INT)
failed=()
part() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$(($2 * patience)) begin=$SECONDS
    shift 2
    [[ -z $only || " $only " == *" $name "* ]] || return 0
    ((seconds = seconds < limit_s - begin ? seconds : limit_s - begin))
    if ((seconds < 5)); then
        failed+=("$name (no time left)")
        return 0
    fi
    echo "== $name: $*"
    # Cut off as by Ctrl-C, the benchmark writes what it has.
    timeout --signal=INT --kill-after=15 "$seconds" "${heeding[@]}" "$@" 2>&1 |
        tee "$out/$name.log" || failed+=("$name")
    echo "== $name took $((SECONDS - begin)) s of $seconds"
}
bench() { # NAME SECONDS OPTIONS...
    local name=$1 seconds=$2
    shift 2
    part "$name" "$seconds" "$python" -m cli.bench.main "$@" --device "$device" --rounds "$rounds" \
        --json "$out/$name.json" --markdown "$out/$name.md"
}
tests() { # NAME SECONDS OPTIONS...
    local name=$1 seconds=$2
    shift 2
    # Another version of a package may warn of something: that is not what is tested here.
    part "$name" "$seconds" "$python" -m pytest -q -W default -p no:cacheprovider --continue-on-collection-errors "$@"
}

part machine 60 bash -c 'nvidia-smi; "$0" -m torch.utils.collect_env' "$python"
marked() { grep -rlE --include='*.py' 'mark\.gpu\b' tests | grep -E "$@"; } # PATTERN
tests tests-cuda 150 -m gpu -k 'not compile' tests/runtime/test_cuda.py tests/runtime/test_backends.py
tests tests-kernels 150 ${TINY:+--collect-only} tests/runtime/test_kernels.py
bench headline 90 --model s --size "$middle" --no-memory
bench headline-b 90 --model b --size "$large" --no-memory
part profile-s 60 "$python" -m benchmarks.profile_gpu --device "$device" --model s --size "$middle"
part profile-b 60 "$python" -m benchmarks.profile_gpu --device "$device" --model b --size "$large"
if [[ ${TINY:-} ]]; then
    bench speed 300 "${sizes[@]}"
else
    bench speed 300 --plot "$out/speed.png"
fi
bench pipeline 120 pipeline --frames "$frames"
if ((${#modules[@]})); then
    bench peers 200 --model s --model b "${sizes[@]}" --model-only --no-memory "${modules[@]}"
fi
bench blocks 200 blocks --model b --size "$large"
bench backends 200 --model s --model b "${sizes[@]}" --backend eager --backend cudagraph --backend tensorrt --no-memory
bench compile-s 200 --model s --size "$small" --backend cudagraph --backend compile --no-memory
bench compile-b 300 --model b --size "$large" --backend cudagraph --backend compile --no-memory
# Apart from one another: without PyAV the trainer's conftest.py ends all that pytest was given together with it.
tests tests-others 400 -m gpu $(marked -v '^tests/(stream|trainer)/')
tests tests-stream 100 -m gpu $(marked '^tests/stream/')
tests tests-training 100 -m gpu $(marked '^tests/trainer/')
if [[ ${CAMVID:-} ]]; then
    part training 200 "$python" -m benchmarks.training_speed --data-dir "$CAMVID" --device "$device" --workers "$(($(nproc) - 1))" \
        --output "$out/training.json"
fi
part training-memory 100 "$python" -m benchmarks.training_speed --device "$device" --memory --model b \
    --crop-size "$crop" --output "$out/training-memory.json"

if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
