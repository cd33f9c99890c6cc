"""Jobs that nobody waits for any more are cancelled."""

from __future__ import annotations

import threading
import time

from workbench.engine.pool import Engine, Job


def endless(job: Job) -> None:
    while True:
        job.progress("Working", 0.5)
        time.sleep(0.005)


def test_a_changed_choice_frees_the_worker() -> None:
    engine = Engine(workers=1)
    first = engine.submit("first", endless)
    engine.follow("ann", first)
    second = engine.submit("second", lambda job: 7)
    engine.follow("ann", second)
    assert second.wait(10) and second.result == 7
    assert first.state == "cancelled"


def test_what_another_visitor_waits_for_goes_on() -> None:
    engine = Engine(workers=2)
    go = threading.Event()
    shared = engine.submit("shared", lambda job: go.wait(10))
    engine.follow("ann", shared)
    engine.follow("bob", shared)
    engine.follow("ann", engine.submit("other", lambda job: 1))
    assert not shared._cancel.is_set()
    go.set()
    assert shared.wait(10) and shared.state == "done"
