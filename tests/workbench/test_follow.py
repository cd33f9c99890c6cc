"""Jobs end early when nobody waits for them any more, and only then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from workbench.engine.pool import Engine, Job

LONG = 30.0  # seconds after which a test that hangs gives up


class Work:
    """Goes on until it is let, or nobody wants it; `told` counts how often it asked."""

    def __init__(self) -> None:
        self.go, self.told = threading.Event(), 0

    def __call__(self, job: Job) -> int:
        while not self.go.wait(0.002):
            job.progress("Working", 0.5)
            self.told += 1
        return 7

    def asks_again(self) -> bool:
        """Whether it is still at work: a cancelled job would stop the next time it asks."""
        until, enough = time.monotonic() + LONG, self.told + 3
        while self.told < enough and time.monotonic() < until:
            time.sleep(0.002)
        return self.told >= enough


@pytest.fixture
def pool() -> Iterator[Engine]:
    made = Engine(workers=2)
    yield made
    for job in made._jobs.values():
        job._cancel.set()
    made._pool.shutdown(wait=True, cancel_futures=True)


def turn_away(pool: Engine, visitor: str) -> None:
    assert pool.submit(f"something else of {visitor}", lambda job: 1, visitor=visitor).wait(LONG)


def test_a_changed_choice_frees_the_worker() -> None:
    pool = Engine(workers=1)
    first = pool.submit("first", Work(), visitor="ann")
    second = pool.submit("second", lambda job: 7, visitor="ann")
    assert second.wait(LONG) and second.result == 7
    assert first.state == "cancelled"


def test_what_another_visitor_waits_for_goes_on_until_that_one_leaves_too(pool: Engine) -> None:
    work = Work()
    shared = pool.submit("shared", work, visitor="ann")
    assert pool.submit("shared", Work(), visitor="bob") is shared
    turn_away(pool, "ann")
    assert work.asks_again()
    assert pool.submit("shared", Work(), visitor="bob") is shared  # as a page does that looks again
    turn_away(pool, "bob")
    assert shared.wait(LONG) and shared.state == "cancelled"


def test_everybody_who_waits_gets_the_result(pool: Engine) -> None:
    work = Work()
    jobs = [pool.submit("shared", work, visitor=name) for name in ("ann", "bob", "cem")]
    turn_away(pool, "bob")
    turn_away(pool, "ann")
    assert work.asks_again()
    work.go.set()
    assert all(job.wait(LONG) and job.result == 7 for job in jobs) and len(set(map(id, jobs))) == 1


@pytest.mark.parametrize("first", ["ann", None])
def test_what_is_also_wanted_by_somebody_who_does_not_tell_of_leaving_is_never_cancelled(
    pool: Engine, first: str | None
) -> None:
    work = Work()
    for visitor in (first, "ann" if first is None else None):
        shared = pool.submit("shared", work, visitor=visitor)
    turn_away(pool, "ann")
    assert work.asks_again()
    work.go.set()
    assert shared.wait(LONG) and shared.state == "done"


def test_who_asks_again_for_what_is_being_cancelled_gets_it_anew(pool: Engine) -> None:
    work = Work()
    first = pool.submit("a", work, visitor="ann")
    turn_away(pool, "ann")
    again = pool.submit("a", work, visitor="ann")
    assert again is not first and work.asks_again()
    work.go.set()
    assert again.wait(LONG) and again.result == 7 and first.wait(LONG) and first.state == "cancelled"


def test_waiting_for_two_things_in_turn_keeps_only_the_last(pool: Engine) -> None:
    jobs = [pool.submit(str(number), Work(), visitor="ann") for number in range(5)]
    assert all(job.wait(LONG) and job.state == "cancelled" for job in jobs[:-1])
    assert not jobs[-1].finished


def test_a_visitor_of_whom_too_many_came_after_is_not_taken_for_gone(
    pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.engine.pool.FOLLOWERS", 2)
    work = Work()
    shared = pool.submit("shared", work, visitor="ann")
    for name in ("bob", "cem", "dee"):  # ann is forgotten
        pool.submit("shared", work, visitor=name)
    for name in ("cem", "dee"):
        turn_away(pool, name)
    assert work.asks_again()
    work.go.set()
    assert shared.wait(LONG) and shared.state == "done"
