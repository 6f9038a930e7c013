"""Run bsdnet-run into a small disk until that is full, and see what is kept and what is said. Needs root, to mount it.

python -m benchmarks.soak.full_disk

Each container is written to a tmpfs of some megabytes. The command must end with exit code 1 and one line that names
the partial file; what is there must play; a rescue on the full disk must fail and change nothing, and elsewhere it must
save all that plays. A recording in segments with a budget must run on, on the same disk, as long as it likes. Last, the
folder is removed while it is written to: that, too, must end in one line.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import click

DISK_BYTES = 12_000_000
_RUN = (sys.executable, "-m", "cli.run")
_FAST = ("demo", "--size", "64x32", "--device", "cpu")
_TIME_LIMIT_S = 300


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def run(arguments: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    command = [*_RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT_S, check=False)


def playable(path: Path) -> int:
    """Count the pictures that a plain player finds up to the first fault."""
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except av.FFmpegError:
        pass  # the last packet, of which a part was written
    return count


def fill(suffix: str) -> None:
    """Write until the disk is full."""
    with small_disk(DISK_BYTES) as disk, tempfile.TemporaryDirectory() as elsewhere:
        out, part = disk / f"out{suffix}", disk / f"out{suffix}.part"
        done = run([*_FAST, "-o", out, "--crf", "2"])
        expect(done.returncode == 1, f"exit code {done.returncode}")
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        expect(len(errors) == 1 and str(part) in errors[0] and "No space left" in errors[0], done.stderr)
        expect("Traceback" not in done.stderr and not out.exists(), done.stderr)
        frames = playable(part)
        expect(frames > 0, "nothing can be played")
        before = part.read_bytes()
        refused = run(["--rescue", part])
        expect(refused.returncode == 1 and "No space left" in refused.stderr, refused.stderr)
        expect([path.name for path in disk.iterdir()] == [part.name] and part.read_bytes() == before, "a trace is left")
        saved = run(["--rescue", shutil.copy(part, elsewhere)])
        expect(saved.returncode == 0, saved.stderr)
        rescued = playable(Path(elsewhere) / out.name)
        expect(rescued >= frames - 1, f"{rescued} of {frames} pictures were rescued")
        print(f"{suffix:5} full after {frames} pictures, {rescued} rescued: {errors[0]}")


def record_in_a_circle(frames: int) -> None:
    """Record more than fits, within a budget."""
    with small_disk(DISK_BYTES) as disk:
        arguments = ["--segment", 1, "--segment-budget", "8MB", "--frames", frames]
        done = run([*_FAST, "-o", disk / "out.mp4", "--crf", "24", *arguments])
        expect(done.returncode == 0, done.stderr)
        files = sorted(disk.iterdir())
        expect(sum(file.stat().st_size for file in files) <= 8_000_000, "beyond the budget")
        newest = int(files[-1].stem.removeprefix("out-"))
        expect(newest > len(files) and all(playable(file) for file in files), "not in a circle")
        print(f"{newest} segments were recorded within the budget, the last {len(files)} are there")


def remove_the_folder() -> None:
    """Remove the folder while it is written to."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "usb"
        folder.mkdir()
        command = [*_RUN, *_FAST, "-o", str(folder / "out.mp4")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and not (folder / "out.mp4.part").exists():
                time.sleep(0.05)
            time.sleep(1.0)
            shutil.rmtree(folder)
            _, errors = process.communicate(timeout=_TIME_LIMIT_S)
        expect(process.returncode == 1, f"exit code {process.returncode}: {errors}")
        expect("removed or renamed" in errors and "Traceback" not in errors, errors)
        print(f"folder removed: {errors.splitlines()[-1]}")


def expect(is_so: bool, otherwise: str) -> None:
    """End with a message unless something is so."""
    if not is_so:
        sys.exit(f"failed: {otherwise}")


@click.command()
@click.option("--frames", default=1000, show_default=True, help="Length of the recording in segments.")
def main(frames: int) -> None:
    """Fill small disks."""
    for suffix in (".mp4", ".mov", ".mkv", ".webm", ".avi"):
        fill(suffix)
    record_in_a_circle(frames)
    remove_the_folder()


if __name__ == "__main__":
    main()
