"""An RTSP server by GStreamer, run by the system's Python: `rtsp_server.py PORT [--fps N] [--password P]`.

Sends stamped pictures as H.264 under `/live`; writes its port to stdout as soon as it listens.
"""

import argparse

import gi
from stamped import HEIGHT, WIDTH, luma

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( appsrc name=camera is-live=true do-timestamp=true format=time "
    "caps=video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=2000 key-int-max={gop} "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def feed(media: GstRtspServer.RTSPMedia, fps: int) -> None:
    """Push a picture at each tick of the frame rate into what a client has just asked for."""
    camera = media.get_element().get_by_name_recurse_up("camera")
    numbers = iter(range(10**9))

    def push() -> bool:
        buffer = Gst.Buffer.new_wrapped(luma(next(numbers)) + bytes([128]) * (WIDTH * HEIGHT // 2))
        return camera.emit("push-buffer", buffer) in (Gst.FlowReturn.OK, Gst.FlowReturn.FLUSHING)

    GLib.timeout_add(1000 // fps, push)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--password", default="")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=options.port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(width=WIDTH, height=HEIGHT, fps=options.fps, gop=options.fps // 2))
    factory.set_shared(True)
    factory.connect("media-configure", lambda factory, media: feed(media, options.fps))
    if options.password:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me", options.password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.from_string("user,media.factory.access=true,media.factory.construct=true")[0]
        )
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
