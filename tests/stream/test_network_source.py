"""Network sources on real servers: processes of their own that send over loopback, are killed and come back."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import pytest

from bsdnet.errors import SourceError
from bsdnet.stream.network_source import NetworkSource, public_name
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.receiver import ReconnectPolicy
from bsdnet.stream.source import open_source

from .fakes import FakeSegmenter, FakeSink, eventually
from .media import numbered, write_clip
from .running import STOP_LIMIT_S, timed_stop
from .servers import Server, serving
from .stamped import HEIGHT, WIDTH, clock_ms, read_stamp

FPS = 30
FRAME_MS = 1000 / FPS
SLACK_MS = 150.0  # of a machine that does other things as well; frames that queued would be 670 ms later by then
POLICY = ReconnectPolicy(open_s=5, silence_s=2, notice_s=0.5, first_delay_s=0.1, longest_delay_s=0.2)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


class TestServers:
    @pytest.mark.parametrize("kind", ["tcp", "http", "udp", "rtsp"])
    def test_stamps_latency_and_timestamps(self, serve, kind):
        with NetworkSource(serve(kind).address(), POLICY) as source:
            assert source.info.live
            assert source.info.name == f"{kind}://127.0.0.1:{source.info.name.rpartition(':')[2]}"
            assert source.info.size == (HEIGHT, WIDTH)
            frames = [source.read() for _ in range(60)][-30:]
        numbers, made_ms = zip(*(read_stamp(frame.rgb) for frame in frames), strict=True)
        assert numbers[-1] - numbers[0] >= 29
        assert frames[-1].time_s - frames[0].time_s == pytest.approx((made_ms[-1] - made_ms[0]) / 1000, abs=0.1)
        captured_after_ms = sorted(
            frame.captured_at_s * 1000 % 2**32 - ms for frame, ms in zip(frames, made_ms, strict=True)
        )
        assert 0 <= captured_after_ms[15] < 2 * FRAME_MS

    @pytest.mark.parametrize("kind", ["tcp", "rtsp"])
    def test_a_slow_consumer_gets_fresh_frames_for_ever(self, serve, kind):
        latencies_ms = []
        sink = FakeSink(on_write=lambda result: latencies_ms.append(clock_ms() - read_stamp(result.frame.rgb)[1]))
        source = NetworkSource(serve(kind).address(), POLICY)
        with StreamPipeline(source, FakeSegmenter(infer_s=0.1), [sink]) as pipeline:
            pipeline.start()
            assert eventually(lambda: len(latencies_ms) >= 25, 10)
            reported_ms = pipeline.stats.latency["total"].p50_ms
        first, last = sorted(latencies_ms[5:15])[5], sorted(latencies_ms[-10:])[5]
        assert 100 < last < 100 + 2 * FRAME_MS + SLACK_MS
        assert last == pytest.approx(first, abs=FRAME_MS + SLACK_MS)  # a frame is just missed, or just not
        assert reported_ms == pytest.approx(last, abs=2 * FRAME_MS + SLACK_MS)

    @pytest.mark.parametrize("kind", ["http", "udp", "rtsp"])
    def test_a_killed_server_is_found_again(self, serve, kind):
        server = serve(kind)
        with NetworkSource(server.address(), POLICY) as source:
            frames = [source.read()]
            while len(frames) < 10 or frames[-1].repeated:  # on a busy machine a server may falter as it starts
                frames.append(source.read())
            server.kill()
            while not frames[-1].repeated:
                frames.append(source.read())
            assert source.signal.silent_s >= 0.5
            server.start()
            while frames[-1].repeated:
                frames.append(source.read())
            assert source.signal.silent_s == 0
            assert source.signal.outage_s > 0.5
            assert source.signal.reconnects == (0 if kind == "udp" else 1)  # UDP knows no connection
        assert [frame.pts for frame in frames] == sorted({frame.pts for frame in frames})
        assert frames[-1].time_s - frames[0].time_s > source.signal.outage_s


class TestConnection:
    def test_damaged_packets_are_counted_and_the_others_shown(self, serve):
        with NetworkSource(serve("tcp", damage_every=10).address(), POLICY) as source:
            numbers = [read_stamp(source.read().rgb)[0] for _ in range(45)]
            assert 2 <= source.lost_frames <= 12
        assert not any(number % 10 == 9 for number in numbers[5:])
        assert numbers == sorted(set(numbers))

    def test_what_waited_to_be_read_is_older_or_left_out(self, serve, monkeypatch):
        ages_s: list[float] = []
        numbers: list[int] = []
        left_out = 0
        caught_up = False

        def delay_s(*_: object, is_keyframe: bool, **__: object) -> float | None:
            nonlocal left_out, caught_up
            if len(numbers) < 5:
                return 0.5
            caught_up = caught_up or (is_keyframe and left_out >= 10)
            left_out += not caught_up
            return 0.7 if caught_up else None

        monkeypatch.setattr("bsdnet.stream.arrival.Backlog.delay_s", delay_s)
        with NetworkSource(serve("tcp").address(), POLICY) as source:
            while len(numbers) < 15:
                frame = source.read()
                ages_s.append(time.perf_counter() - frame.captured_at_s)
                numbers.append(read_stamp(frame.rgb)[0])
        assert ages_s[0] >= 0.5
        assert ages_s[-1] >= 0.7
        assert left_out >= 10
        assert max(later - earlier for earlier, later in pairwise(numbers)) > left_out


class TestStalls:
    @pytest.fixture
    def silent_address(self) -> Iterator[str]:
        """Accepts, and never says a word."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"

    def test_who_never_says_a_word_is_an_error(self, silent_address):
        policy = ReconnectPolicy(open_s=0.5, silence_s=5)
        started_s = time.monotonic()
        with pytest.raises(SourceError, match=r"tcp://127\.0\.0\.1:\d+: no data for 0\.5 s"):
            NetworkSource(silent_address, policy)
        assert time.monotonic() - started_s < 4.5, "not the five seconds of a stream that falls silent"

    def test_a_server_that_falls_silent_is_left_within_two_seconds(self, serve, stalling):
        address, stall, _ = stalling
        source = NetworkSource(address, ReconnectPolicy(notice_s=0.3))
        sink = FakeSink()
        pipeline = StreamPipeline(source, FakeSegmenter(), [sink])
        pipeline.start()
        assert eventually(lambda: len(sink.results) > 5)
        stall()
        assert eventually(lambda: pipeline.stats.signal.silent_s > 0.5)
        assert timed_stop(pipeline) < STOP_LIMIT_S

    def test_the_watchdog_connects_again(self, stalling):
        address, stall, resume = stalling
        with NetworkSource(address, POLICY) as source:
            stall()
            assert eventually(lambda: source.signal.silent_s > 1)
            resume()
            assert eventually(lambda: source.signal.reconnects == 1, 8)
            assert source.read() is not None

    @pytest.fixture
    def stalling(self, serve) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
        """An address, how to let the connections to it fall silent, and how to serve new ones again."""
        target = serve("tcp").port
        silent = threading.Event()
        over = threading.Event()

        def relay(client: socket.socket) -> None:
            with suppress(OSError), client, socket.create_connection(("127.0.0.1", target)) as server:
                while not silent.is_set() and (data := server.recv(65536)):
                    client.sendall(data)
                over.wait(30)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=relay, args=(client,), daemon=True).start()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=accept, daemon=True).start()
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", silent.set, silent.clear
            listener.shutdown(socket.SHUT_RDWR)
            over.set()

    def test_a_process_ends_although_its_reader_hangs(self, silent_address):
        program = (
            "import sys, threading, time\n"
            "from bsdnet.stream.network_source import NetworkSource\n"
            "threading.Thread(target=NetworkSource, args=(sys.argv[1],), daemon=True).start()\n"
            "time.sleep(1)\n"
        )
        ended = subprocess.run([sys.executable, "-c", program, silent_address], capture_output=True, timeout=20)
        assert (ended.returncode, ended.stderr) == (0, b"")


class TestRecordings:
    def test_every_frame_of_a_file_on_a_web_server_and_then_the_end(self, serve):
        with NetworkSource(serve("http", frames=90).address("clip.mkv"), POLICY) as source:
            assert not source.info.live
            frames = []
            for frame in source:
                time.sleep(0.005)
                frames.append(frame)
        assert [read_stamp(frame.rgb)[0] for frame in frames] == list(range(90))
        assert [frame.time_s for frame in frames] == pytest.approx(
            [number / FPS for number in range(90)], abs=0.001
        )  # Matroska's clock
        assert source.signal.outage_s == 0

    def test_a_file_that_breaks_off_is_an_error(self, serve):
        with NetworkSource(serve("http", frames=90).address("cut.mkv"), POLICY) as source:
            frames = []
            with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:\d+: input/output error"):
                for frame in source:
                    frames.append(frame)
        assert 10 < len(frames) < 80


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "name"),
        [
            ("rtsp://camera/1", "rtsp://camera"),
            ("RTSP://me:secret@10.0.0.1:554/secret?a=secret#secret", "rtsp://10.0.0.1:554"),
            ("https://host?key=secret", "https://host"),
            ("http://me:sec@ret@[::1]:80/x", "http://[::1]:80"),
            ("rtsp://me:sec/ret@host/1", "rtsp://..."),
            ("rtsp://me:sec?ret@host/1", "rtsp://..."),
            ("https://host/live?key=a@b", "https://..."),
            ("rtmp://host/app/secret", "rtmp://host"),
        ],
    )
    def test_names_hold_no_secrets(self, address, name):
        assert public_name(address) == name

    def test_unknown_schemes_are_refused(self):
        with pytest.raises(SourceError, match=r"gopher://.*rtsp://"):
            open_source("gopher://me:secret@host/1")

    @pytest.mark.parametrize(
        "address",
        ["rtsp://me:secret@host.invalid/1", "http://.invalid/", "tcp://host.invalid:99", "rtsp://[camera.local]/1"],
    )
    def test_a_host_that_nobody_knows(self, address):
        with pytest.raises(SourceError, match="no host of that name is known") as raised:
            NetworkSource(address, POLICY)
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize("address", ["rtsp://127.0.0.1/1", "rtsp://me:sec/ret@host.invalid/1", "udp://:5000"])
    def test_another_failure_is_not_blamed_on_the_name(self, address, monkeypatch):
        def fail(*args, **options):
            raise av.error.OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(av, "open", fail)
        with pytest.raises(SourceError, match="input/output error"):
            NetworkSource(address, POLICY)

    def test_local_files_are_out_of_a_servers_reach(self, tmp_path):
        clip = write_clip(tmp_path / "secret.ts", [numbered(number) for number in range(20)])
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n".encode()
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                client, _ = server.accept()
                with client:
                    client.recv(65536)
                    head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(playlist)}\r\n\r\n".encode()
                    client.sendall(head + playlist)

            threading.Thread(target=answer, daemon=True).start()
            with pytest.raises(SourceError):
                NetworkSource(f"http://127.0.0.1:{server.getsockname()[1]}/a.m3u8", POLICY)


class TestCredentials:
    """A password is in no output of the command, whatever happens, not even with --debug."""

    def run(self, address: str, tmp_path: Path, *more: str) -> tuple[int, str]:
        command = [sys.executable, "-c", "from cli.run import main; main()", address]
        command += ["-o", str(tmp_path / "out.mp4"), "--debug", *more]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
        return ended.returncode, ended.stdout + ended.stderr

    @pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp", "rtmp", "srt", "gopher"])
    def test_nobody_there(self, scheme, tmp_path):
        code, output = self.run(f"{scheme}://me:hunter2@127.0.0.1:9/hunter2?key=hunter2", tmp_path)
        assert code == 1
        assert f"{scheme}://" in output
        assert "hunter2" not in output

    @pytest.mark.parametrize("kind", ["http", "rtsp"])
    def test_with_a_wrong_password(self, serve, kind, tmp_path):
        code, output = self.run(serve(kind, password="hunter2").address(login="me:hunter3@"), tmp_path)
        assert code == 1
        assert "401" in output
        assert "hunter" not in output

    def test_with_the_right_password(self, serve, tmp_path):
        server = serve("http", password="hunter2")
        code, output = self.run(server.address("live?hunter2", login="me:hunter2@"), tmp_path, "--frames", "3")
        assert code == 0, output
        assert f"http://127.0.0.1:{server.port}" in output
        assert "hunter" not in output
