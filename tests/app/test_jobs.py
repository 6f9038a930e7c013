"""Work on threads of its own, whose outcome comes back to this one."""

import threading
import time

import pytest

from app.jobs import Jobs


@pytest.fixture
def jobs(qtbot) -> Jobs:
    return Jobs()


def test_the_outcome_comes_back_to_the_thread_that_asked(qtbot, jobs):
    seen = []
    jobs.start(
        "add", lambda: (1 + 1, threading.get_ident()), done=lambda got: seen.append((got, threading.get_ident()))
    )
    qtbot.waitUntil(lambda: bool(seen), timeout=5000)
    (outcome, worker), here = seen[0]
    assert outcome == 2
    assert worker != here == threading.get_ident()


def test_what_work_raised_comes_back_too(qtbot, jobs):
    seen = []
    jobs.start("divide", lambda: 1 / 0, done=pytest.fail, failed=seen.append)
    qtbot.waitUntil(lambda: bool(seen), timeout=5000)
    assert isinstance(seen[0], ZeroDivisionError)


def test_what_comes_too_late_is_given_up_where_it_was_made(qtbot, jobs):
    gate, unwanted = threading.Event(), []
    jobs.start("open", lambda: gate.wait(5) and "source", done=pytest.fail, unwanted=unwanted.append)
    jobs.close()
    assert not jobs.wait(0.05)
    gate.set()
    assert jobs.wait(5)
    assert unwanted == ["source"]


def test_what_fails_too_late_is_told_where_it_failed(qtbot, jobs):
    gate, late = threading.Event(), []
    jobs.start("save", lambda: gate.wait(5) and 1 / 0, failed=pytest.fail, failed_late=late.append)
    jobs.close()
    gate.set()
    assert jobs.wait(5)
    assert [type(error) for error in late] == [ZeroDivisionError]


def test_threads_beside_others_are_waited_for_with_them(qtbot, jobs):
    gate, beside = threading.Event(), Jobs(beside=jobs)
    beside.start("save", lambda: gate.wait(5), done=pytest.fail)
    beside.close()
    assert not jobs.wait(0.05)
    gate.set()
    assert jobs.wait(5)
    seen = []
    jobs.start("go on", lambda: 1, done=seen.append)
    qtbot.waitUntil(lambda: seen == [1], timeout=5000)


def test_all_threads_share_one_deadline(jobs):
    for seconds in (1.0, *[0.1] * 7):
        jobs.start("take", lambda seconds=seconds: time.sleep(seconds))
    assert jobs.wait(4), "one may need more than an eighth of the time"
    gate = threading.Event()
    for number in range(8):
        jobs.start(f"hang {number}", lambda: gate.wait(10))
    began = time.monotonic()
    assert not jobs.wait(0.3)
    assert 0.3 <= time.monotonic() - began < 2.0, "not 0.3 s for each"
    gate.set()


def test_a_thread_that_is_being_started_is_waited_for(jobs, monkeypatch):
    begun, start = threading.Event(), threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        if thread.name == "bsdnet-view late":
            begun.set()
            time.sleep(0.2)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    gate = threading.Event()
    starter = threading.Thread(target=jobs.start, args=("late", lambda: gate.wait(5)))
    starter.start()
    assert begun.wait(5)
    assert not jobs.wait(0.05), "it has not ended, and is no reason to fail"
    gate.set()
    assert jobs.wait(5)
    starter.join()
