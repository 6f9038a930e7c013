import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bsdnet.runtime import engine_cache
from bsdnet.runtime.engine_cache import EngineCache, EngineKey, default_folder, fingerprint, hardware

KEY = EngineKey(backend="eager", size=(64, 96), precision="fp32", network="abc", environment={"torch": "2.13"})
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and locks")


class Builder:
    """Builds engines that are short texts, none like the other, and counts them."""

    def __init__(self, cache):
        self.cache = cache
        self.built = 0

    def fetch(self, key=KEY):
        return self.cache.fetch(key, load=lambda path: path.read_text().strip(), build=self._build)

    def _build(self, path):
        self.built += 1
        path.write_text("engine" + self.built * " ")
        path.with_suffix(".timing").write_text("beside it")
        return "engine"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "engines"


@pytest.fixture
def builder(folder):
    return Builder(EngineCache(folder))


def engines(folder):
    return sorted(folder.glob("[!.]*.pt2"))


def test_an_engine_is_built_once_and_loaded_by_whoever_comes_later(builder, folder):
    assert builder.fetch() == "engine"
    later = Builder(EngineCache(folder))
    assert later.fetch() == "engine"
    assert (builder.built, later.built) == (1, 0)
    assert sorted(path.name for path in folder.iterdir()) == [engines(folder)[0].name, "lock"]
    assert engines(folder)[0].name.startswith("eager-96x64-fp32-")


@posix
def test_nobody_else_may_read_or_write_what_is_kept(builder, folder):
    previous = os.umask(0)
    try:
        builder.fetch()
    finally:
        os.umask(previous)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "compile"},
        {"size": (96, 64)},
        {"precision": "bf16"},
        {"network": "abd"},
        {"environment": {"torch": "2.14"}},
        {"environment": {"torch": "2.13", "tensorrt": "11.0"}},
    ],
)
def test_another_key_has_an_engine_of_its_own(builder, change):
    builder.fetch()
    builder.fetch(replace(KEY, **change))
    assert builder.built == 2


def test_a_new_format_of_engines_leaves_the_old_ones_alone(builder, monkeypatch):
    builder.fetch()
    monkeypatch.setattr(engine_cache, "ENGINE_FORMAT", engine_cache.ENGINE_FORMAT + 1)
    builder.fetch()
    assert builder.built == 2


def damage(path):
    path.write_bytes(b"E" + path.read_bytes()[1:])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def swap_for_a_link(path):
    elsewhere = path.rename(path.parent / "elsewhere")
    elsewhere.chmod(0o666)
    path.symlink_to(elsewhere)


def let_the_group_write(path):
    path.chmod(0o620)


def let_everybody_write(path):
    path.chmod(0o602)


def give_away(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, 12345, -1)


@posix
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, "damaged"),
        (truncate, "damaged"),
        (swap_for_a_link, "somebody else"),
        (let_the_group_write, "somebody else"),
        (let_everybody_write, "somebody else"),
        (give_away, "somebody else"),
    ],
)
def test_what_is_not_as_it_was_written_is_built_again(builder, folder, caplog, spoil, reason):
    builder.fetch()
    spoil(engines(folder)[0])
    assert builder.fetch() == "engine"
    assert builder.built == 2
    assert reason in caplog.text
    assert builder.fetch() == "engine"
    assert builder.built == 2
    assert len(engines(folder)) == 1


def test_the_engine_of_another_key_under_this_name_is_built_again(builder, folder, caplog):
    other = replace(KEY, network="other")
    builder.fetch(other)
    path = engines(folder)[0]
    path.rename(folder / path.name.replace(other.name, KEY.name))
    builder.fetch()
    assert builder.built == 2
    assert "another key" in caplog.text


def test_an_engine_that_does_not_load_is_built_again(builder, folder, caplog):
    builder.fetch()

    def refuse(path):
        raise SystemError("version 9 of the format\nis not known")

    assert builder.cache.fetch(KEY, load=refuse, build=builder._build) == "engine"
    assert builder.built == 2
    assert caplog.messages[0].endswith("is not used, but built again: version 9 of the format")


@pytest.mark.parametrize("shortage", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_an_engine_stays_where_there_is_no_memory_to_load_it(builder, folder, shortage):
    builder.fetch()

    def fail(path):
        raise shortage

    with pytest.raises(type(shortage)):
        builder.cache.fetch(KEY, load=fail, build=builder._build)
    assert builder.fetch() == "engine"
    assert builder.built == 1


def fill(monkeypatch, *full):
    """Let folders seem to lie on a full disk."""
    usage = engine_cache.shutil.disk_usage

    def free(folder):
        is_full = any(Path(folder).is_relative_to(other) for other in full)
        return usage(folder)._replace(free=2**20 if is_full else 2**40)

    monkeypatch.setattr(engine_cache.shutil, "disk_usage", free)


def test_on_a_full_disk_the_engine_is_built_elsewhere(builder, folder, caplog, monkeypatch):
    fill(monkeypatch, folder)
    assert builder.fetch() == "engine"
    assert "built for this run alone" in caplog.text
    assert "1 of 256 MiB are free" in caplog.text
    assert not engines(folder)


def test_on_a_full_disk_an_engine_is_loaded_all_the_same(builder, folder, monkeypatch):
    builder.fetch()
    fill(monkeypatch, folder)
    assert builder.fetch() == "engine"
    assert builder.built == 1


def test_where_no_disk_has_room_nothing_is_built(builder, folder, monkeypatch):
    fill(monkeypatch, "/")
    with pytest.raises(OSError, match="No space left on device"):
        builder.fetch()
    assert builder.built == 0


@posix
def test_a_folder_that_others_may_write_to_is_not_used(builder, folder, caplog):
    builder.fetch()
    folder.chmod(0o770)
    assert builder.fetch() == "engine"
    assert builder.fetch() == "engine"
    assert builder.built == 3
    assert f"chmod 700 {folder}" in caplog.text
    assert len(engines(folder)) == 1


def test_without_a_folder_the_engine_is_built_for_this_run(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    builder = Builder(EngineCache(tmp_path / "file"))
    assert builder.fetch() == "engine"
    assert "the engine is built for this run alone" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_in_a_folder_that_cannot_be_written_to_engines_are_found_but_not_kept(builder, folder, caplog):
    builder.fetch()
    folder.chmod(0o500)
    assert builder.fetch() == "engine"
    assert builder.fetch(replace(KEY, network="new")) == "engine"
    folder.chmod(0o700)
    assert builder.built == 2
    assert len(engines(folder)) == 1


def test_a_failed_build_leaves_nothing_and_blocks_nobody(builder, folder):
    def fail(path):
        path.write_text("half of an eng")
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        builder.cache.fetch(KEY, load=Path.read_text, build=fail)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert builder.fetch() == "engine"


def test_an_engine_that_cannot_be_written_is_used_and_built_again_next_time(builder, folder):
    for _ in range(2):
        assert builder.cache.fetch(KEY, load=Path.read_text, build=lambda path: "in memory") == "in memory"
    assert not engines(folder)


def test_the_engines_that_were_not_used_for_longest_go(builder, folder, monkeypatch):
    monkeypatch.setattr(engine_cache, "MAX_ENGINES", 2)
    keys = [replace(KEY, network=name) for name in ("first", "second", "third")]
    for age_s, key in zip((300, 200), keys, strict=False):
        builder.fetch(key)
        path = next(folder.glob(f"{key.name}-*"))
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    builder.fetch(keys[0])  # used again: now the second is the oldest
    builder.fetch(keys[2])
    assert builder.built == 3
    builder.fetch(keys[0])
    builder.fetch(keys[2])
    assert builder.built == 3
    builder.fetch(keys[1])
    assert builder.built == 4


PROCESS = """
import sys, time
from pathlib import Path
from bsdnet.runtime.engine_cache import EngineCache, EngineKey
from cli.command import configure_logging

configure_logging("bsdnet-run", debug=False)
folder, finish = Path(sys.argv[1]), Path(sys.argv[2])

def build(path):
    path.write_text("engine")
    print("building", flush=True)
    while not finish.exists():
        time.sleep(0.01)
    return "engine"

key = EngineKey(backend="eager", size=(64, 96), precision="fp32", network="abc", environment={"torch": "2.13"})
print(EngineCache(folder).fetch(key, load=Path.read_text, build=build), flush=True)
"""


def start(folder, finish):
    command = [sys.executable, "-c", PROCESS, str(folder), str(finish)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@posix
def test_of_two_processes_one_builds_and_the_other_waits_and_loads(folder, tmp_path):
    first = start(folder, tmp_path / "finish")
    assert first.stdout.readline() == "building\n"
    second = start(folder, tmp_path / "finish")
    assert second.stderr.readline() == "bsdnet-run: info: waiting for another process that is building an engine\n"
    (tmp_path / "finish").touch()
    told = first.communicate(timeout=60)
    assert told[0] == "engine\n"
    assert "info: building the eager engine for 96x64: this can take minutes, once\n" in told[1]
    assert "info: built the eager engine for 96x64 in " in told[1]
    assert second.communicate(timeout=60) == ("engine\n", "")


@posix
def test_a_builder_that_was_killed_blocks_nobody_and_what_it_left_goes(builder, folder, tmp_path):
    process = start(folder, tmp_path / "never")
    assert process.stdout.readline() == "building\n"
    process.kill()
    process.communicate(timeout=60)
    assert list(folder.glob(".building-*"))
    assert builder.fetch() == "engine"
    assert builder.built == 1
    assert not list(folder.glob(".building-*"))


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"BSDNET_CACHE": "/vehicle/engines", "XDG_CACHE_HOME": "/x"}, "/vehicle/engines"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/bsdnet"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/bsdnet"),
        ("linux", {}, "/home/me/.cache/bsdnet"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/bsdnet"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/bsdnet"),
    ],
)
def test_the_folder_is_where_the_system_keeps_such_things(monkeypatch, platform, environment, expected):
    for name in ("BSDNET_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert default_folder() == Path(expected)


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch, builder, caplog):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    for name in ("BSDNET_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(OSError, match="set BSDNET_CACHE"):
        default_folder()
    homeless = Builder(EngineCache())
    assert homeless.fetch() == "engine"
    assert "set BSDNET_CACHE" in caplog.text


def test_a_fingerprint_tells_weights_and_structure_apart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = fingerprint(model)
    assert fingerprint(model) == before
    assert fingerprint(model.half()) != before
    model = model.float()
    changed = fingerprint(model)
    model[1].running_mean[2] += 1
    assert fingerprint(model) != changed
    assert fingerprint(nn.AvgPool2d(2)) != fingerprint(nn.AvgPool2d(3))


def test_a_fingerprint_tells_apart_what_modules_of_the_same_shape_compute(tmp_path, monkeypatch):
    source = tmp_path / "network_of_mine.py"
    source.write_text("from torch import nn\nclass Net(nn.Module):\n    def forward(self, x): return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import network_of_mine

    before = fingerprint(network_of_mine.Net())
    source.write_text(source.read_text().replace("x + 1", "x + 2"))
    assert fingerprint(network_of_mine.Net()) != before


def test_the_hardware_of_a_gpu_is_its_model_and_what_that_can_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert hardware(torch.device("cuda:1")).items() >= {"device": "cuda:1", "gpu": "H200", "capability": "9.0"}.items()


def test_the_hardware_of_a_cpu_is_its_model_with_its_instruction_sets():
    facts = hardware(torch.device("cpu"))
    assert facts["torch"] == torch.__version__
    assert json.dumps(facts)
    if Path("/proc/cpuinfo").exists():
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("fl", "Feat")))
        assert flags in facts["cpu"]
