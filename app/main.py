"""bsdnet-view: a window that shows what the network sees."""

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from app.engine import EngineChoice

logger = logging.getLogger(__name__)

EXIT_ERROR = 1
NAMED_SIZES = {"auto": None, "seg50": (512, 1024), "seg75": (768, 1536), "seg100": (1024, 2048)}
MIN_SIDE_PX, MAX_SIDE_PX = 32, 9999
SYSTEM_LIBRARIES = (  # of Debian 12: with what these depend on, all that Qt's wheel loads to open a window under X
    "libegl1 libgl1 libglib2.0-0 libfontconfig1 libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 "
    "libxcb-keysyms1 libxcb-shape0"
)


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int] | None:
    """Turn `640x352` or a name into (height, width), and `auto` into None."""
    text = value.strip().lower()
    if text in NAMED_SIZES:
        return NAMED_SIZES[text]
    match = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    if match is None or min(int(side) for side in match.groups()) < MIN_SIDE_PX:
        expected = f"WIDTHxHEIGHT with sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, or {', '.join(NAMED_SIZES)}"
        raise click.BadParameter(f"{value!r} is no size; expected {expected}", context, parameter)
    return int(match[2]), int(match[1])


def parse_device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Take the name of a device, which this machine need not have."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise click.BadParameter(f"{value!r} is none; expected auto, cpu, cuda or cuda:N", context, parameter)
    return value


def parse_camera(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Take a camera's number or device path, but neither an empty one nor a file."""
    if value is not None and (not value or re.fullmatch(r"-\d+", value)):
        raise click.BadParameter(f"{value!r} is none; expected a number from 0 or a device path", context, parameter)
    if value is not None and Path(value).is_file():
        raise click.BadParameter(f"{value} is a file: give it as SOURCE", context, parameter)
    return value


def parse_weights(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Take a name or a path of weights, but not an empty one, as an unset variable of a script gives."""
    if value == "":
        raise click.BadParameter("the name is empty", context, parameter)
    return value


@click.command(context_settings={"max_content_width": 110})
@click.argument("source", required=False)
@click.option(
    "--camera", callback=parse_camera, metavar="N|PATH", help="Open a camera, by its number from 0 or its device path."
)
@click.option(
    "--weights",
    callback=parse_weights,
    help="Weights: s, b, or a .safetensors file from bsdnet-train.  [default: s]",
)
@click.option(
    "--device",
    callback=parse_device,
    default="auto",
    show_default=True,
    help="Where to compute: auto, cpu, cuda or cuda:N.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "eager", "compile", "cudagraph", "tensorrt"]),
    default="auto",
    show_default=True,
    help="How the network is run; auto takes the best that works here.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Number format of the network.",
)
@click.option(
    "--size",
    callback=parse_size,
    metavar="SIZE",
    default="auto",
    show_default=True,
    help="Size at which the network sees frames: WIDTHxHEIGHT in pixels, seg50 (1024x512), "
    "seg75 (1536x768), seg100 (2048x1024), or auto: the training pictures' short side.",
)
@click.option(
    "--smooth/--no-smooth",
    default=None,
    help="Steady the classes by averaging along the motion of the picture.  [default: as it was last]",
)
@click.option("--debug", is_flag=True, help="Show more of what happens on stderr.")
@click.version_option(package_name="bsdnet")
def cli(**options: Any) -> int:  # noqa: ANN401 - click's values
    """Show SOURCE in a window, with the classes of every pixel.

    SOURCE is a video file, a folder or glob pattern of images, an address of a live stream, camera:0, or demo, a
    street that bsdnet draws itself. Without it the window offers to open one.
    """
    if options["source"] is not None and options["camera"] is not None:
        raise click.UsageError(f"both {options['source']} and --camera {options['camera']} are given; give one")
    level = logging.DEBUG if options["debug"] else logging.WARNING
    logging.basicConfig(format="bsdnet-view: %(message)s", force=True)
    for package in ("app", "bsdnet"):
        logging.getLogger(package).setLevel(level)
    spec = options["source"] if options["camera"] is None else f"camera:{options['camera']}"
    return run(spec, _choice(options), options["smooth"])


def run(spec: str | None, choice: "EngineChoice", smooth: bool | None) -> int:
    """Show the window until it is closed; gives the exit code."""
    problem = _missing_screen()
    if problem is None:
        try:
            from PySide6.QtCore import QTimer
            from PySide6.QtWidgets import QApplication
        except ImportError as error:  # Qt's wheel leaves some libraries to the system
            problem = f"Qt cannot be loaded: {error}; on Debian: apt install {SYSTEM_LIBRARIES}"
    if problem is not None:
        click.echo(f"bsdnet-view: error: {problem}", err=True)
        return EXIT_ERROR
    from app.player import Player
    from app.settings import Settings
    from app.window import Window

    app = QApplication(["bsdnet-view"])
    app.setApplicationDisplayName("bsdnet-view")
    app.setQuitOnLastWindowClosed(False)  # the player says when all has ended
    player = Player()
    window = Window(player, Settings())
    player.closed.connect(lambda ended: app.exit(0 if ended else _LEFT_BEHIND))
    if smooth is not None:
        window.engine.smooth.setChecked(smooth)
    window.show()
    came = _close_on_signals(window)
    QTimer.singleShot(0, lambda: _begin(window, spec, choice))  # once the window is there
    outcome = app.exec()
    code = 128 + came[0] if came else 0
    if outcome == _LEFT_BEHIND or _threads_left():  # in a driver, a compiler or a decoder that does not return
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


_LEFT_BEHIND = 99


def _threads_left() -> bool:
    """Tell whether a thread of ours is still at work: Python would end it amid foreign code, and so abort."""
    return any(thread.daemon and thread.name.startswith("bsdnet") for thread in threading.enumerate())


def _begin(window: Any, spec: str | None, choice: "EngineChoice") -> None:  # noqa: ANN401 - imported with Qt only
    window.player.network.choose(choice)
    if spec is not None:
        window.open(spec)


def _close_on_signals(window: Any) -> list[int]:  # noqa: ANN401 - imported with Qt only
    """Have Ctrl-C, SIGTERM and a closed terminal close the window, which finishes a recording; gives those that came.

    Python notes them when it runs next, which the window's statistics see to four times a second.
    """
    from PySide6.QtCore import QTimer

    came: list[int] = []

    def close(number: int, _frame: object) -> None:
        came.append(number)
        QTimer.singleShot(0, window.close)  # not in the middle of whatever Python runs now

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # not all systems have the last
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, close)
    return came


def _choice(options: dict[str, Any]) -> "EngineChoice":
    from app.engine import EngineChoice

    return EngineChoice(**{name: options[name] for name in ("weights", "device", "backend", "precision", "size")})


def _missing_screen() -> str | None:
    """Say why Qt would abort the process: it does so where an error message would do."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform != "linux" or any(os.environ.get(name) for name in names):
        return None
    return f"there is no screen: none of {', '.join(names)} is set; over ssh, connect with -X"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; wrong usage is said on stderr, all else in the window."""
    try:
        code = cli.main(arguments, prog_name="bsdnet-view", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = EXIT_ERROR
    sys.exit(code)


if __name__ == "__main__":
    main()
