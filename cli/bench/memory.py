"""Peak memory of a network on the CPU: that of a fresh process which does nothing but load and run it."""

import json
import logging
import subprocess
import sys

logger = logging.getLogger(__name__)


def peak_of_fresh_process(spec: str, size: tuple[int, int], backend: str, precision: str) -> int | None:
    """Load and run a network in a process of its own.

    Args:
        spec: see `load_candidate`.
        size: height and width of the input.
        backend: which one, not `auto`.
        precision: `fp32`, `bf16` or `fp16`.

    Returns:
        Bytes by which the resident memory grew at the most, from after the packages were imported; None where the
        system does not tell.
    """
    task = json.dumps({"spec": spec, "size": size, "backend": backend, "precision": precision})
    command = [sys.executable, "-P", "-m", "cli.bench.memory", task]  # -P: a folder here may be called cli too
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        logger.warning("the memory of %s could not be measured: %s", spec, done.stderr.strip().splitlines()[-1:])
        return None
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def main() -> None:
    """Measure what the first argument says; print the result."""
    import torch

    from bsdnet.runtime.backends import Network
    from bsdnet.runtime.timing import PeakMemory
    from cli.bench.candidates import fold_foreign, load_candidate

    task = json.loads(sys.argv[1])
    device = torch.device("cpu")
    with PeakMemory(device) as memory, torch.inference_mode():
        candidate = load_candidate(task["spec"])
        model = candidate.model
        if candidate.checkpoint is None:
            model = fold_foreign(model) or model
        network = Network(model, device, task["precision"], task["backend"])
        x = torch.zeros(1, 3, *task["size"], dtype=network.dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2):
            network(x)
    print(f"\n{json.dumps(memory.peak_bytes)}")  # on a line of its own, whatever foreign code has printed


if __name__ == "__main__":
    main()
