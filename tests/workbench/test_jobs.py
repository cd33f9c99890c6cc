"""Jobs in real processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

import workbench.jobs.store as store_module
from models.errors import EarwitnessError, SettingsError
from tests.workbench.job_kinds import CountSettings
from workbench.cli import app
from workbench.home import data_home
from workbench.jobs import JobRecord, JobStore
from workbench.jobs.kinds import KINDS, find_kind
from workbench.jobs.records import as_json

ROOT = Path(__file__).parents[2]
ME, YOU = "a" * 32, "b" * 32
LONG = 180.0  # seconds after which a test that hangs gives up
HOSTILE = "<script>alert(1)</script> ![x](http://example.com/x.png)\n\x00 " + "long " * 200


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_HOME", str(tmp_path))
    monkeypatch.setenv("EARWITNESS_JOB_KINDS", "tests.workbench.job_kinds")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return data_home()


@pytest.fixture
def store(home: Path) -> Iterator[JobStore]:
    made = JobStore(home, at_once=2, grace=0.5)
    yield made
    for job in made.active():
        made.remove(job.id)
    made.close()


def until(store: JobStore, job_id: str, holds: Callable[[JobRecord], bool]) -> JobRecord:
    """Look after the jobs until something holds of one of them."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        store.tick()
        job = store.find(job_id)
        assert job is not None
        if holds(job):
            return job
        time.sleep(0.02)
    pytest.fail(f"{job} \n{store.log(job_id)}")


def ended(job: JobRecord) -> bool:
    return not job.active


def counting(job: JobRecord) -> bool:
    return job.stage == "Counting"


def test_a_job_is_done_and_told(store: JobStore) -> None:
    job_id = store.submit(ME, "count", HOSTILE, CountSettings(steps=3))
    assert store.find(job_id).state == "waiting"  # type: ignore[union-attr]
    job = until(store, job_id, ended)
    assert job.state == "done", store.log(job_id)
    assert job.result == {"counted": 3, "first": 0, "threads": job.result["threads"], "odd": None}  # type: ignore[index]
    assert job.share == 1.0 and job.ended is not None and job.attempts == 1
    assert store.history(job_id) == [{"step": 0, "loss": 1.0}, {"step": 1, "loss": None}, {"step": 2, "loss": 1 / 3}]
    assert "begun" in store.log(job_id) and "done" in store.log(job_id)
    # Hostile text stays text, on one line and bounded.
    assert job.title.startswith("<script>alert(1)</script> ![x](") and len(job.title) <= 120
    assert "\n" not in job.title and "\x00" not in job.title


def test_progress_is_seen_and_it_can_be_cancelled(store: JobStore) -> None:
    job_id = store.submit(ME, "count", "long", CountSettings(steps=100, pause=0.2))
    job = until(store, job_id, lambda j: j.share > 0)
    assert job.state == "running" and job.seconds_left == 1.0 and job.pid is not None
    process = psutil.Process(job.pid)
    assert process.nice() >= 10 and os.getpgid(job.pid) == job.pid
    store.cancel(job_id)
    assert until(store, job_id, ended).state == "cancelled"
    until(store, job_id, lambda _: not process.is_running())
    assert store.find_all(YOU) == [] and [j.id for j in store.find_all(ME)] == [job_id]


@pytest.mark.parametrize("deaf", [False, True])
def test_cancelled_in_its_first_step(store: JobStore, deaf: bool) -> None:
    """A step that does not listen is ended; nothing that it was started from changes."""
    job_id = store.submit(ME, "count", "first step", CountSettings(steps=1, pause=300, deaf=deaf))
    job = until(store, job_id, lambda j: (store.folder_of(j.id) / "state.txt").exists())
    store.cancel(job_id)
    assert until(store, job_id, ended).state == "cancelled"
    assert job.pid is not None
    until(store, job_id, lambda _: not psutil.pid_exists(job.pid))  # type: ignore[arg-type]


def test_cancelled_before_its_process_is_ready(store: JobStore) -> None:
    job_id = store.submit(ME, "count", "at once", CountSettings(steps=1, pause=300))
    store.tick()
    store.cancel(job_id)
    assert until(store, job_id, ended).state == "cancelled"


def test_cancelled_while_it_waits(store: JobStore) -> None:
    job_id = store.submit(ME, "count", "waits", CountSettings())
    store.cancel(job_id)
    assert store.find(job_id).state == "cancelled"  # type: ignore[union-attr]
    store.tick()
    assert store.find(job_id).attempts == 0  # type: ignore[union-attr]


def test_a_killed_job_is_lost_and_resumed_where_it_stopped(store: JobStore) -> None:
    job_id = store.submit(ME, "count", "dies", CountSettings(steps=6, die_at=3))
    job = until(store, job_id, ended)
    assert job.state == "lost" and job.resumable and "Resume" in job.advice
    store.resume(job_id)
    with pytest.raises(EarwitnessError, match="cannot be resumed"):
        store.resume(job_id)
    job = until(store, job_id, ended)
    assert job.state == "done" and job.result is not None and job.result["first"] == 3 and job.message == ""
    assert "resumed" in store.log(job_id)


@pytest.mark.slow
def test_a_job_outlives_its_server(home: Path) -> None:
    """The server ends, the job goes on; the next server finds it, and knows a dead one."""
    code = (
        "import time; from workbench.jobs import JobStore; from workbench.home import data_home\n"
        "from tests.workbench.job_kinds import CountSettings\n"
        "s = JobStore(data_home()); a = s.submit('a'*32, 'count', 'a', CountSettings(steps=200, pause=0.05))\n"
        "b = s.submit('a'*32, 'count', 'b', CountSettings(steps=200, pause=0.05)); s.tick()\n"
        "while not all(j.stage == 'Counting' for j in s.active()): time.sleep(0.05)\n"
        "print(a, b)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first, second = out.split()
    store = JobStore(home, grace=2.0)
    store.tick()
    before = store.find(first)
    assert before is not None and before.state == "running" and before.pid is not None
    later = until(store, first, lambda j: j.share > before.share)
    assert later.pid == before.pid
    victim = store.find(second)
    assert victim is not None and victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    assert until(store, second, ended).state == "lost"
    store.cancel(first)
    assert until(store, first, ended).state == "cancelled"
    store.close()


def test_a_number_given_to_another_process_is_not_the_job(store: JobStore) -> None:
    job_id = store.submit(ME, "count", "x", CountSettings())
    store.change(job_id, state="running", pid=os.getpid(), pid_started=1.0)
    store.tick()
    assert store.find(job_id).state == "lost"  # type: ignore[union-attr]
    store.remove(job_id)
    assert psutil.pid_exists(os.getpid())


def test_only_so_many_at_a_time_and_everybody_gets_a_turn(store: JobStore) -> None:
    mine = [store.submit(ME, "count", f"mine {n}", CountSettings(steps=100, pause=0.2)) for n in range(3)]
    yours = store.submit(YOU, "count", "yours", CountSettings(steps=100, pause=0.2))
    store.tick()
    running = {job.id for job in store.active() if job.state == "running"}
    # Who has nothing running comes before who has.
    assert running == {mine[0], yours}
    store.cancel(mine[0])
    until(store, mine[0], ended)
    store.tick()
    assert {j.id for j in store.active() if j.state == "running"} == {mine[1], yours}


def test_one_visitor_cannot_fill_the_queue(store: JobStore) -> None:
    for number in range(store_module.EACH):
        store.submit(ME, "count", str(number), CountSettings())
    with pytest.raises(EarwitnessError, match="under way"):
        store.submit(ME, "count", "one more", CountSettings())
    store.submit(YOU, "count", "another's", CountSettings())
    for job in store.find_all():
        store.cancel(job.id)


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("disk", "The server's disk is full."),
        ("known", "It cannot be counted <b>so</b>."),
        ("defect", "ZeroDivisionError"),
    ],
)
def test_failures_are_told(store: JobStore, fail: str, message: str) -> None:
    job_id = store.submit(ME, "count", "fails", CountSettings(fail=fail))
    job = until(store, job_id, ended)
    assert job.state == "failed" and message in job.message and job.advice and job.resumable
    # The details of a defect are for the log, not for the visitor's message.
    assert "secret detail" not in job.message
    assert ("secret detail" in store.log(job_id)) == (fail == "defect")


def test_a_full_disk_refuses_new_jobs(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.home.SPARE_BYTES", 2**62)
    with pytest.raises(EarwitnessError, match="disk is full"):
        store.submit(ME, "count", "x", CountSettings())
    assert store.find_all() == []


def test_what_a_visitor_left_is_removed_unless_it_is_kept(home: Path) -> None:
    store = JobStore(home, session_seconds=100.0)
    gone, kept, here = (store.submit(who, "count", "x", CountSettings()) for who in (ME, YOU, "c" * 32))
    for job_id in (gone, kept, here):
        store.change(job_id, state="done", created=time.time() - 1000, ended=time.time() - 1000)
    store.keep(kept)
    store.here("c" * 32)
    lessons = home / "lessons" / ME
    lessons.mkdir(parents=True)
    with store.writing() as connection:
        connection.exec_driver_sql("INSERT INTO visits VALUES (?, ?)", (ME, time.time() - 1000))
    store.sweep()
    assert {job.id for job in store.find_all()} == {kept, here}
    assert not store.folder_of(gone).exists() and store.folder_of(kept).exists() and not lessons.exists()
    store.discard(kept)
    assert [job.id for job in store.find_all()] == [here] and store.restore(kept)
    assert {job.id for job in store.find_all()} == {kept, here}
    store.change(kept, discarded=time.time() - store_module.UNDO - 1)
    store.sweep()
    assert store.find(kept) is None and not store.restore(kept)
    store.close()


def test_the_wrong_settings_and_names_are_refused(store: JobStore) -> None:
    with pytest.raises(SettingsError, match="no kind"):
        store.submit(ME, "no such", "x", CountSettings())
    with pytest.raises(SettingsError, match="not the settings"):
        store.submit(ME, "teach", "x", CountSettings())
    for name in ("../../etc", "a/b", "", "é"):
        with pytest.raises(EarwitnessError, match="no such job"):
            store.folder_of(name)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_can_be_imported(name: str) -> None:
    kind = find_kind(name)
    assert callable(kind.work_function()) and kind.settings_class().model_fields


def test_json_has_no_odd_numbers() -> None:
    assert as_json({"a": [float("nan"), 1.5], "b": Path("x")}) == '{"a": [null, 1.5], "b": "x"}'


@pytest.mark.slow
def test_the_command_line(store: JobStore) -> None:
    run = CliRunner().invoke
    assert "There are no jobs" in run(app, ["jobs", "list"]).output
    job_id = store.submit(ME, "count", "by hand", CountSettings(steps=300, pause=0.2))
    until(store, job_id, counting)
    listed = run(app, ["jobs", "list", "--json"])
    assert job_id in listed.output and ME not in listed.output
    assert "running" in run(app, ["jobs", "show", job_id[:6]]).output
    assert "begun" in run(app, ["jobs", "log", job_id]).output
    assert "cancelled" in run(app, ["jobs", "cancel", job_id]).output
    assert isinstance(run(app, ["jobs", "show", "zz"]).exception, EarwitnessError)
