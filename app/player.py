"""Between the window and the pipeline: all calls return at once, all that takes time is done on other threads."""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal

from app.compose import Composed, Look
from app.composer import Composer
from app.engine import Engine, Load, load_segmenter
from app.engine_holder import EngineHolder
from app.jobs import Jobs
from app.phase import Phase
from app.position import Position
from app.problems import Problem, source_problem, stream_problem
from app.recording import Recording
from app.source_opener import OpenSource, SourceOpener, open_any_source
from app.stream_segmenter import StreamSegmenter
from app.view_geometry import ViewGeometry
from bsdnet.errors import BsdnetError, SourceError
from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.interfaces import VideoSource

if TYPE_CHECKING:  # they import PyTorch, which the window does not wait for
    from bsdnet.stream.pipeline import StreamPipeline
    from bsdnet.stream.stats import StreamStats

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
"""The longest that closing takes; what hangs in a driver for longer is left behind."""

_POLL_MS = 50


class Player(QObject):
    """Plays one source at a time through one network, and shows the newest frame.

    Frames never travel through signals: `frame_ready` says that `take` has one, and is not repeated before that.

    Args:
        open_source: opens what a user names; called on a thread of its own.
        load: makes segmenters; called on a thread of its own.
        parent: Qt's owner.
    """

    phase_changed = Signal(object)  # Phase
    frame_ready = Signal()
    failed = Signal(object)  # Problem: nothing can be shown
    notice = Signal(str)  # something that the user should know, while all goes on
    silent = Signal(float)  # seconds for which a live stream has given nothing; 0 once it gives again
    closed = Signal(bool)  # whether all threads have ended; else some hang in foreign code

    def __init__(
        self, open_source: OpenSource = open_any_source, load: Load = load_segmenter, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._opener = SourceOpener(open_source)
        self.jobs = Jobs(self)
        """What takes its time; `closed` comes when all of it has ended."""
        self.network = EngineHolder(self.jobs, load, self)
        self.network.replaced.connect(self._engine_replaced)
        self.network.failed.connect(self._lack_network)
        self.recording = Recording(self.jobs, self)
        self.recording.failed.connect(self.notice)
        self._phase = Phase.EMPTY
        self._spec = ""
        self._opening = 0  # counts calls of open, so that an outcome that nobody waits for any more is known
        self._source: VideoSource | None = None  # open, but not playing yet
        self._info: StreamInfo | None = None
        self._pipeline: StreamPipeline | None = None
        self._segmenter: StreamSegmenter | None = None  # the pipeline's
        self._speed = 1.0
        self.loop = False
        self._position = Position()
        self._silent_s = 0  # whole seconds that were told
        self._plays_on = False
        self._lacks_network = False
        self._closing = False
        self._composer = Composer(self._tell_of_frame)
        self._poll = QTimer(self)
        self._poll.setInterval(_POLL_MS)
        self._poll.timeout.connect(self._watch)

    # What is going on

    @property
    def phase(self) -> Phase:
        """What the player is doing."""
        return self._phase

    @property
    def spec(self) -> str:
        """What was opened, as the user named it."""
        return self._spec

    @property
    def info(self) -> StreamInfo | None:
        """The stream, once it is open."""
        return self._info

    @property
    def stats(self) -> "StreamStats | None":
        """How the stream is doing; None if there is none."""
        return self._pipeline.stats if self._pipeline else None

    def _tell_of_frame(self) -> None:
        """Pass on, from the composer's thread, that there is a picture."""
        with contextlib.suppress(RuntimeError):  # Qt's half of this object is gone
            self.frame_ready.emit()

    def take(self) -> Composed | None:
        """Fetch the newest picture, to be painted; None if it was fetched before."""
        composed = self._composer.take()
        if composed is not None:
            time_s = composed.result.frame.time_s
            self._position.show(time_s, self._frame_s, plays=self._phase is Phase.PLAYING)
        return composed

    @property
    def position_s(self) -> float:
        """The time of the frame that was fetched last, in seconds."""
        return self._position.time_s

    @property
    def _frame_s(self) -> float:
        return 1 / self._info.fps if self._info is not None and self._info.fps > 0 else 1.0

    @property
    def _is_at_end(self) -> bool:
        """Whether there is nothing more to play, as after the last step."""
        return bool(self._pipeline and self._pipeline.state.value == "paused" and self._pipeline.at_end)

    # What the user wants

    def open(self, spec: str) -> None:
        """Open a source and play it; what is playing is stopped. A network that could not be had is tried again."""
        self._stop_stream()
        if self._lacks_network:
            self._lacks_network = False
            self.network.choose(self.network.choice)
        self._spec = spec
        number = self._opening
        self._set_phase(Phase.OPENING)
        self.jobs.start(
            "open",
            self._opener.opening(spec),
            done=lambda source: self._source_opened(number, source),
            failed=lambda error: self._source_failed(number, error),
            unwanted=lambda source: source.close(),
        )

    def retry(self) -> None:
        """Try again what has failed."""
        if self._spec:
            self.open(self._spec)
        elif self._lacks_network:
            self.network.choose(self.network.choice)

    def close_stream(self) -> None:
        """Stop and show nothing."""
        self._stop_stream()
        self._spec = ""
        self._set_phase(Phase.EMPTY)

    def toggle(self) -> None:
        """Play or pause."""
        if self._phase is Phase.PLAYING:
            self._command(lambda pipeline: pipeline.pause(), Phase.PAUSED)
        elif self._phase is Phase.PAUSED and not self._is_at_end:
            self._command(lambda pipeline: pipeline.resume(), Phase.PLAYING)
        elif self._phase in (Phase.PAUSED, Phase.ENDED) and self._info is not None:
            self._play_from(0.0) if self._info.seekable else self.open(self._spec)

    def step(self) -> None:
        """Show the next frame; pauses first."""
        if self._phase is Phase.PLAYING:
            self.toggle()
        if self._phase is Phase.PAUSED:
            self._command(lambda pipeline: pipeline.step(), Phase.PAUSED)

    def step_back(self) -> None:
        """Show the frame before, if the stream can be sought in; pauses first."""
        if self._phase is Phase.PLAYING:
            self.toggle()
        if self._info is not None and self._info.fps > 0:
            # From a frame's own time a whole frame would miss one where timestamps are rounded.
            self.seek_by(-self._frame_s if self._position.is_awaiting else -0.5 * self._frame_s)

    def seek(self, time_s: float) -> None:
        """Go to a time of the file in seconds."""
        if self._info is None or not self._info.seekable:
            return
        end_s = self._info.num_frames / self._info.fps if self._info.num_frames and self._info.fps > 0 else math.inf
        time_s = min(max(0.0, time_s), end_s)
        self._position.aim_at(time_s)
        if self._phase is Phase.ENDED:
            self._set_phase(Phase.PAUSED)
        if self._phase is Phase.PLAYING:  # the pipeline may have paused at its end a moment ago, unseen by `_watch`
            self._play_from(time_s)
        else:
            self._command(lambda pipeline: pipeline.seek(time_s), self._phase)

    def hold(self, held: bool) -> None:
        """Pause while the user drags the position, and play on afterwards."""
        if held:
            self._plays_on = self._phase is Phase.PLAYING
        if self._plays_on and (self._phase is Phase.PLAYING) == held:
            phase = Phase.PAUSED if held else Phase.PLAYING
            self._command(lambda pipeline: pipeline.pause() if held else pipeline.resume(), phase)

    def _label_anew(self) -> None:
        """Have the frame that is shown go through the network again."""
        if self._phase in (Phase.PAUSED, Phase.ENDED) and self._info is not None and self._info.seekable:
            self._command(lambda pipeline: pipeline.seek(self._position.aim_s), self._phase)

    def seek_by(self, seconds: float) -> None:
        """Go back or ahead, from where the user has last sought to, if its frame is not there yet."""
        self.seek(self._position.aim_s + seconds)

    def set_speed(self, speed: float) -> None:
        """Play files slower or faster."""
        self._speed = speed
        if self._pipeline:
            self._pipeline.speed = speed

    def show(self, look: Look, geometry: ViewGeometry | None) -> None:
        """Paint the newest frame, and coming ones, this way."""
        self.recording.show(look)
        self._composer.show(look, geometry)

    def want_confidence(self, wanted: bool) -> None:
        """Have confidences computed or not: they are seen at the cursor only."""
        self.network.want_confidence(wanted)
        if wanted and not self.network.smooth:
            self._label_anew()

    def set_smooth(self, smooth: bool) -> None:
        """Steady the labels or not, from the next frame on; one that is shown paused loses its past."""
        self.network.smooth = smooth
        self._label_anew()

    def _lack_network(self, problem: Problem) -> None:
        self._lacks_network = True
        self._fail(problem)

    def _engine_replaced(self, old: Engine | None, new: Engine) -> None:
        if self._lacks_network:  # another one was chosen, or the same one has come about
            self._lacks_network = False
            self.open(self._spec) if self._spec else self.close_stream()
            return
        segmenter = self._segmenter
        if self._pipeline is None or segmenter is None or old is None:
            if old is not None:
                self.network.give_up(old)
            self._begin()
            return
        try:
            self._pipeline.replace_segmenter(segmenter, release=lambda: segmenter.change(new))
        except BsdnetError:  # the stream has just ended
            self.network.give_up(old)
        else:
            self._label_anew()

    # The stream

    def _source_opened(self, number: int, source: VideoSource) -> None:
        if number != self._opening:
            self.jobs.start("close", source.close)
            return
        self._source = source
        self._begin()

    def _source_failed(self, number: int, error: Exception) -> None:
        if number == self._opening:
            self._fail(source_problem(self._spec, error))

    def _begin(self) -> None:
        """Play, once there are both a source and a network."""
        engine = self.network.engine
        if self._source is None or engine is None or self._closing:
            return
        from bsdnet.stream.pipeline import StreamPipeline
        from bsdnet.stream.sink import CallbackSink

        source, self._source = self._source, None
        self._info = source.info
        self.network.frame_size = source.info.size
        view = CallbackSink(
            partial(self._composer.offer, self._opening),
            live=True,
            wants=frozenset({"labels", "confidence"}),
            name="view",
        )
        self._segmenter = StreamSegmenter(engine, lambda: self.network.smooth)
        self._pipeline = StreamPipeline(
            source,
            self._segmenter,
            [view, self.recording.follow(self._spec, self._info)],
            on_frame=self._segmenter.follow,
            keep_open=not self._info.live,
            realtime=not self._info.live,
            speed=self._speed,
        )
        self._pipeline.start()
        self._position.begin()
        self._poll.start()
        self._set_phase(Phase.PLAYING)

    def _watch(self) -> None:
        """Look at how the pipeline is; its threads could tell, but not without having to know of Qt."""
        pipeline = self._pipeline
        if pipeline is None or self._info is None:
            return
        if pipeline.state.ended:
            ended = SourceError("the stream has ended: its sender sends no more")
            self._fail(stream_problem(self._spec, pipeline.error or ended))
        elif self._phase is Phase.PLAYING and self._is_at_end:
            if self.loop and self._info.seekable:
                self._play_from(0.0)
            else:
                self._set_phase(Phase.ENDED)
        elif self._info.live:
            self._tell_silence(math.ceil(pipeline.stats.signal.silent_s))

    def _tell_silence(self, silent_s: int) -> None:
        if silent_s != self._silent_s:
            self._silent_s = silent_s
            self.silent.emit(float(silent_s))

    def _play_from(self, time_s: float) -> None:
        self._position.aim_at(time_s)

        def go_and_play(pipeline: "StreamPipeline") -> None:
            pipeline.seek(time_s)
            pipeline.resume()

        self._command(go_and_play, Phase.PLAYING)

    def _command(self, command: "Callable[[StreamPipeline], None]", phase: Phase) -> None:
        """Give a command; a pipeline that has just ended takes none, which `_watch` will see."""
        if self._pipeline is None:
            return
        try:
            command(self._pipeline)
        except BsdnetError as error:
            logger.debug("the stream takes no command: %s", error)
        else:
            self._set_phase(phase)

    def _stop_stream(self) -> None:
        """Let go of the stream; its end comes about on another thread."""
        self._opening += 1
        self._composer.clear(self._opening)
        self.recording.leave()
        self._poll.stop()
        source, self._source = self._source, None
        pipeline, self._pipeline = self._pipeline, None
        self._info = None
        self._tell_silence(0)
        if source is not None:
            self.jobs.start("close", source.close)
        if pipeline is not None:
            self.jobs.start("stop", self._opener.stopping(pipeline.stop))

    def _fail(self, problem: Problem) -> None:
        self._stop_stream()
        self._set_phase(Phase.FAILED)
        self.failed.emit(problem)

    def _set_phase(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self.phase_changed.emit(phase)

    # The end

    def shutdown(self) -> None:
        """End everything; `closed` comes within `CLOSE_S`, from whatever state."""
        if self._closing:
            return
        self._closing = True
        self._stop_stream()
        self._composer.close()
        self.network.close()
        deadline_s = time.monotonic() + CLOSE_S
        # Twice: what ends while the first one waits, such as a load, is given up by a thread that is begun here then.
        self._wait(deadline_s, lambda _: self._wait(deadline_s, self._ended))

    def _wait(self, deadline_s: float, done: Callable[[bool], None]) -> None:
        self.jobs.start("end", lambda: self.jobs.wait(max(0.0, deadline_s - time.monotonic())), done=done)

    def _ended(self, all_threads: bool) -> None:
        self.jobs.close()
        self.closed.emit(all_threads)
