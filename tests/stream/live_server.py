"""A live server in a process of its own: `live_server.py http|tcp|udp PORT [options]`; `--help` lists them.

Encodes stamped pictures in real time with PyAV and sends them as MPEG-TS to whoever connects (UDP: to the port). Writes
its port to stdout as soon as it listens. Over HTTP, `/clip.mkv` is a recording of `--frames` pictures, of
which `/cut.mkv` sends a half.
"""

import argparse
import base64
import io
import socketserver
import time
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
from stamped import HEIGHT, WIDTH, luma

ENDLESS = 10**9


def send(target: object, options: argparse.Namespace, container: str = "mpegts", *, live: bool = True) -> None:
    """Encode into a URL or an object with `write` until all is sent or the other side is gone."""
    # A packet that says its length is complete for the receiver before the next one begins.
    low_delay = {"flush_packets": "1", "omit_video_pes_length": "0"} if live else {}
    with av.open(target, "w", format=container, options=low_delay) as output:
        video = output.add_stream("libx264", rate=options.fps, options={"preset": "ultrafast", "tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # A picture after a damaged one must not depend on it, or its number cannot be told for certain.
        video.codec_context.gop_size = 1 if options.damage_every else options.fps // 2
        start_s = time.monotonic()
        for number in range(options.frames):
            if live:
                time.sleep(max(0.0, start_s + number / options.fps - time.monotonic()))
            planes = luma(number) + bytes([128]) * (WIDTH * HEIGHT // 2)
            yuv = np.frombuffer(planes, np.uint8).reshape(HEIGHT * 3 // 2, WIDTH)
            picture = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, options.fps)
            packets = video.encode(picture)
            if options.damage_every and number % options.damage_every == options.damage_every - 1:
                packets = [damaged(packet) for packet in packets]
            output.mux(packets)
        output.mux(video.encode(None))


def damaged(packet: av.Packet) -> av.Packet:
    """A packet of the same time whose slice ends in its header."""
    other = av.Packet(bytes([0, 0, 0, 1, 0x41, 0xFF]) + bytes(50))
    other.stream, other.pts, other.dts, other.time_base = packet.stream, packet.pts, packet.dts, packet.time_base
    return other


def http_server(options: argparse.Namespace) -> socketserver.BaseServer:
    """Ask for user `me` and the password, if there is one, and send to each client from its first picture on."""
    expected = "Basic " + base64.b64encode(f"me:{options.password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if options.password and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            if self.path in ("/clip.mkv", "/cut.mkv"):
                clip = io.BytesIO()
                send(clip, options, "matroska", live=False)
                data = clip.getvalue()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if self.path == "/cut.mkv" else data)
            else:
                self.end_headers()
                with suppress(OSError):  # the client is gone
                    send(self.wfile, options)

        def log_message(self, *arguments: object) -> None:
            pass

    ThreadingHTTPServer.allow_reuse_address = True
    return ThreadingHTTPServer(("127.0.0.1", options.port), Handler)


def tcp_server(options: argparse.Namespace) -> socketserver.BaseServer:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                send(self.wfile, options)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    return socketserver.ThreadingTCPServer(("127.0.0.1", options.port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["http", "tcp", "udp"])
    parser.add_argument("port", type=int)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--frames", type=int, default=ENDLESS)
    parser.add_argument("--password", default="")
    parser.add_argument("--damage_every", type=int, default=0)
    options = parser.parse_args()
    if options.kind == "udp":
        print(options.port, flush=True)
        send(f"udp://127.0.0.1:{options.port}?pkt_size=1316", options)
        return
    with (http_server if options.kind == "http" else tcp_server)(options) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
