"""What long and rough runs showed: blocks of docs/live.md, docs/output.md, docs/statistics.md and docs/viewer.md."""

from statistics import fmean
from typing import Any

from benchmarks.tables.markdown import fixed


def damage(report: dict[str, Any]) -> str:
    """Damaged copies against what FFmpeg decodes of them."""
    found, ffmpeg = report["summary"], report["machine"]["ffmpeg"].partition("-")[0]
    fewer, silent = found["with fewer frames"], found["with fewer frames, and none reported as lost"]
    besides = found["lacking a frame of the ffmpeg command's"]
    return (
        f"Of {found['copies']} copies in MP4, Matroska and\nMPEG-TS {found['wrong'] or 'none'} hung, ended in a "
        "traceback, or lacked a frame that a single thread of the same FFmpeg decodes;\n"
        f"in {besides} an older one (the command, {ffmpeg}) found a frame or more besides. "
        f"{fewer} gave fewer than the 60 frames of\n"
        f"the clip; {fewer - silent} of them said so, and {silent} could not know"
    )


def kills(report: dict[str, Any]) -> str:
    """What a killed process had written."""
    losses = [kill["loss_s"] for kill in report["kills"]]
    return (
        f"{len(losses)} processes were killed at random moments, four of each container: what plays ended "
        f"{fixed(fmean(losses), 2)} s before\nthe last picture given to the encoder on average, and "
        f"{fixed(max(losses), 2)} s at most"
    )


def latency(report: dict[str, Any]) -> str:
    """From the server's drawing to the sink, over minutes."""
    found, windows = report["latency_ms"], report["median_ms_of_windows"]
    return (
        f"over {fixed(report['minutes'], 0)} minutes of RTSP the median is {fixed(found['p50'], 0)} ms, the 99th "
        f"percentile {fixed(found['p99'], 0)} ms, the longest\n{fixed(found['p100'], 0)} ms (two frames and the "
        f"inference are {fixed(report['limit_ms'], 0)} ms). Medians of ten seconds lie between "
        f"{fixed(windows['lowest'], 0)} and {fixed(windows['highest'], 0)} ms, as\nthe two clocks drift past each "
        f"other; a straight line through all moves by {fixed(report['drift_ms_per_minute'], 2)} ms a minute"
    )


def outages(report: dict[str, Any]) -> str:
    """Memory and reconnects over a long time with a server that is killed again and again."""
    memory = report["memory_mib"]
    return (
        f"{fixed(report['minutes'], 0)} minutes, with the server killed every minute and back after five seconds: "
        f"{report['reconnects']} reconnects,\n{fixed(report['outage_s'] / report['reconnects'])} s of outage each; "
        f"memory {fixed(memory['first'])} MiB at first, {fixed(memory['last'])} MiB at last, over the second half a "
        f"slope of {fixed(memory['mib_per_hour'])} MiB\nan hour"
    )


def viewer(report: dict[str, Any]) -> str:
    """What the window takes."""
    return (
        f"{fixed(report['display_fps']['median'], 0)} frames a second are\npainted, the GUI thread takes "
        f"{fixed(100 * report['gui_thread_share_of_a_core'], 0)} % of one core and all threads together "
        f"{fixed(100 * report['all_threads_share_of_a_core'], 0)} %; in {fixed(report['seconds'] / 60, 0)} minutes "
        f"memory went from\n{fixed(report['memory_mib']['first'], 0)} to {fixed(report['memory_mib']['last'], 0)} MiB, "
        f"in the second half at a rate of {fixed(report['memory_mib']['mib_per_hour'])} MiB an hour"
    )
