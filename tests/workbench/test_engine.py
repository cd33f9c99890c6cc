"""The pool of workers: equal jobs once, progress, cancelling, failures, replicas, and a bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models.prediction
import saliency.attribution
import workbench.engine.analyses as analyses
from models.checkpoint import save_checkpoint
from models.clip import Clip, encode_wav, open_clip
from models.errors import CheckpointError, EarwitnessError, MediaError, SettingsError
from tests.conftest import make_recognizer
from workbench.analysis import Analysis, AnalysisSettings, analyze
from workbench.blobs import BlobStore
from workbench.engine import Engine, Job, engine
from workbench.engine.analyses import Memory, Shown, digest, safe_stem, submit_analysis, submit_downloads, submit_open

LONG = 60.0  # seconds after which a test that hangs gives up


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr("workbench.engine.pool.settle_memory", lambda: None)
    threads = torch.get_num_threads()
    made = Engine(workers=2, remembered=4)
    yield made
    made._pool.shutdown(wait=True, cancel_futures=True)
    torch.set_num_threads(threads)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    recognizer = make_recognizer("resnet_attention")
    save_checkpoint(tmp_path / "tiny", recognizer.network, recognizer.card)
    return tmp_path / "tiny"


def result(job: Job) -> Any:
    assert job.wait(LONG) and job.state == "done", job.error
    return job.result


class Gate:
    """Work that goes on only when it is let."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.calls = 0

    def __call__(self, job: Job) -> str:
        self.calls += 1
        self.begun.set()
        while not self.open.wait(0.005):
            job.progress("Waiting", 0.5)
        job.progress("Ending", 0.9)
        return f"result {self.calls}"


def test_a_job_goes_from_waiting_to_done(pool: Engine) -> None:
    gate = Gate()
    job = pool.submit("a", gate)
    assert gate.begun.wait(LONG) and job.state == "running" and not job.finished and not job.wait(0.0)
    gate.open.set()
    assert result(job) == "result 1" == job.partial
    assert job.finished and job.error is None and job.stage == "Ending" and job.share == 0.9
    assert job.seconds_left is None and pool.find("a") is job and pool.find("b") is None


def test_equal_jobs_are_computed_once(pool: Engine) -> None:
    gate = Gate()
    jobs = [pool.submit("a", gate) for _ in range(5)]
    other = pool.submit("b", lambda job: "other")
    assert result(other) == "other"  # the second worker is free meanwhile
    gate.open.set()
    assert len({id(job) for job in jobs}) == 1 and result(jobs[0]) == "result 1"
    assert pool.submit("a", gate) is jobs[0] and gate.calls == 1


def test_as_many_jobs_run_at_a_time_as_there_are_workers(pool: Engine) -> None:
    gates = [Gate() for _ in range(3)]
    jobs = [pool.submit(str(n), gate) for n, gate in enumerate(gates)]
    assert gates[0].begun.wait(LONG) and gates[1].begun.wait(LONG)
    assert jobs[2].state == "waiting" and not gates[2].begun.is_set()
    gates[0].open.set()
    assert gates[2].begun.wait(LONG)
    for gate in gates:
        gate.open.set()
    assert all(result(job) for job in jobs)


def test_cancelling_stops_at_the_next_progress_and_a_new_try_is_possible(pool: Engine) -> None:
    gate = Gate()
    job = pool.submit("a", gate, visitor="ann")
    assert gate.begun.wait(LONG)
    pool.submit("b", lambda job: 1, visitor="ann")
    again = pool.submit("a", gate)  # somebody else wants it after all
    assert again is not job
    assert job.wait(LONG) and job.state == "cancelled" and job.result is None and job.error is None
    gate.open.set()
    assert result(again) == "result 2"


def test_a_job_cancelled_before_it_began_never_begins(pool: Engine) -> None:
    gates, ran = [Gate(), Gate()], []
    jobs = [pool.submit(str(n), gate) for n, gate in enumerate(gates)]
    waiting = pool.submit("c", lambda job: ran.append(1), visitor="ann")
    pool.submit("d", lambda job: 1, visitor="ann")
    for gate in gates:
        gate.open.set()
    assert waiting.wait(LONG) and waiting.state == "cancelled" and not ran
    assert all(result(job) for job in jobs)


def test_cancelling_what_is_done_changes_nothing(pool: Engine) -> None:
    job = pool.submit("a", lambda job: 1, visitor="ann")
    result(job)
    result(pool.submit("b", lambda job: 1, visitor="ann"))
    assert job.state == "done" and pool.submit("a", lambda job: 2) is job


def boom(error: BaseException) -> Callable[[Job], Any]:
    def work(job: Job) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MediaError("The file is broken.", "Take another."), "The file is broken."),
        (MemoryError(), "not enough memory"), (ZeroDivisionError("secret path"), r"inside Earwitness \(ZeroDivisionError\)"),
        (KeyError("x"), "KeyError"),
    ],
)  # fmt: skip
def test_failures_become_sentences_and_workers_live_on(error: Exception, message: str, pool: Engine) -> None:
    jobs = [pool.submit(f"bad {n}", boom(error)) for n in range(4)]
    for job in jobs:
        assert job.wait(LONG) and job.state == "failed" and job.result is None
        assert isinstance(job.error, EarwitnessError) and job.error.message and job.error.advice
        with pytest.raises(EarwitnessError, match=message):
            raise job.error
        assert "secret" not in str(job.error)
    assert sorted(result(pool.submit(f"good {n}", lambda job: 7)) for n in range(4)) == [7] * 4
    assert result(pool.submit("bad 0", lambda job: "second try")) == "second try"


def test_old_results_go_and_unfinished_jobs_stay(pool: Engine) -> None:
    gate = Gate()
    pool.submit("long", gate)
    for number in range(4):
        result(pool.submit(str(number), lambda job: 1))
        assert result(pool.submit("0", lambda job: 1))  # used again and again
    result(pool.submit("last", lambda job: 1))
    result(pool.submit("really last", lambda job: 1))
    kept = [key for key in ("long", "0", "1", "2", "3", "last", "really last") if pool.find(key) is not None]
    assert kept == ["long", "0", "last", "really last"]
    gate.open.set()


def test_the_time_left_is_estimated_from_the_share_done() -> None:
    job = Job("a", state="running")
    job.progress("Explaining", 0.0)
    assert job.seconds_left is None
    job.started -= 30.0
    job.progress("Explaining", 0.75)
    assert job.seconds_left == pytest.approx(10.0, abs=0.5)
    job.progress("Checking", 0.2)  # a new stage is timed by itself
    assert job.seconds_left == pytest.approx(0.0, abs=0.5)
    job.state = "done"
    assert job.seconds_left is None


def test_there_is_one_engine_for_the_server() -> None:
    found: list[Engine] = []
    threads = [threading.Thread(target=lambda: found.append(engine())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len({id(e) for e in found}) == 1 and found[0].workers >= 1


# --- models ------------------------------------------------------------------------------------------------------------


def test_every_worker_has_its_own_replica_of_one_loaded_model(
    pool: Engine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.checkpoint

    loads: list[str] = []
    load = models.checkpoint.load_recognizer

    def counting(name: str) -> Any:
        loads.append(name)
        return load(name)

    monkeypatch.setattr("models.checkpoint.load_recognizer", counting)
    together = threading.Barrier(2, timeout=LONG)

    def work(job: Job) -> tuple[str, list[Any]]:
        together.wait()  # both workers are busy, so each has one of the jobs
        return threading.current_thread().name, [pool.recognizer(str(checkpoint)) for _ in range(2)]

    jobs = [pool.submit(str(n), work) for n in range(2)]
    (name_a, (a, a_again)), (name_b, (b, b_again)) = (result(job) for job in jobs)
    assert name_a != name_b and a is a_again and b is b_again and a is not b
    assert not {id(m) for m in a.modules()} & {id(m) for m in b.modules()}
    assert [p.data_ptr() for p in a.parameters()] == [p.data_ptr() for p in b.parameters()]
    assert loads == [str(checkpoint)]


def test_a_checkpoint_that_was_replaced_is_loaded_again(pool: Engine, checkpoint: Path) -> None:
    first = pool.recognizer(str(checkpoint))
    newer = make_recognizer("resnet_attention")
    next(newer.network.parameters()).data += 1.0
    time.sleep(0.01)
    save_checkpoint(checkpoint, newer.network, newer.card)
    second = pool.recognizer(str(checkpoint))
    assert first.card.content_hash != second.card.content_hash and pool.recognizer(str(checkpoint)) is second


def test_a_model_that_is_not_there_is_refused(pool: Engine) -> None:
    with pytest.raises(CheckpointError):
        pool.recognizer("nonsense")


# --- analyses ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the expensive steps; what earlier tests computed is forgotten."""
    for name, size in (("_predictions", 8), ("_attributions", 8), ("_sounds", 8)):
        monkeypatch.setattr(analyses, name, Memory(size))
    monkeypatch.setattr(analyses, "STORE", BlobStore())
    calls = {"attribute": 0, "keep": 0}

    def counting(module: Any, name: str) -> None:
        function = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapped)

    counting(saliency.attribution, "attribute")
    counting(saliency.reconstruction, "keep")
    return calls


QUICK = AnalysisSettings(method="input_x_gradient", target="rain")


def test_steps_are_remembered_across_settings(
    pool: Engine, checkpoint: Path, chirp: np.ndarray, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip.from_array(chirp, 16000)
    name = str(checkpoint)
    heard: list[int] = []
    predict = models.prediction.predict

    def counting(recognizer: Any, waveform: Any, **kwargs: Any) -> Any:
        heard.append(len(waveform))
        return predict(recognizer, waveform, **kwargs)

    monkeypatch.setattr(models.prediction, "predict", counting)  # the checks have a name of their own for it
    shown = [result(submit_analysis(pool, clip, name, QUICK, "mel"))]
    assert counted == {"attribute": 1, "keep": 1} and len(heard) == 1
    submit_analysis(pool, clip, name, QUICK, "mel")  # the very same job
    shown.append(result(submit_analysis(pool, clip, name, QUICK, "log")))  # another picture
    assert counted == {"attribute": 1, "keep": 1} and len(heard) == 1
    less = QUICK.model_copy(update={"keep": QUICK.keep.model_copy(update={"fraction": 0.02})})
    shown.append(result(submit_analysis(pool, clip, name, less, "mel")))  # keeps less
    assert counted == {"attribute": 1, "keep": 2} and len(heard) == 1
    other = QUICK.model_copy(update={"target": "dog"})
    shown.append(result(submit_analysis(pool, clip, name, other, "mel")))  # asks why another class
    assert counted == {"attribute": 2, "keep": 3} and len(heard) == 1
    louder = Clip.from_array(0.5 * chirp, 16000)
    result(submit_analysis(pool, louder, name, QUICK, "mel"))
    assert counted == {"attribute": 3, "keep": 4} and len(heard) == 2
    assert [s.analysis.target for s in shown] == ["rain", "rain", "rain", "dog"]
    assert shown[2].analysis.energy_share < shown[0].analysis.energy_share


def test_a_job_s_analysis_is_that_of_analyze(
    pool: Engine, checkpoint: Path, chirp: np.ndarray, counted: dict[str, int]
) -> None:
    clip = Clip.from_array(chirp, 16000, "chirp")
    job = submit_analysis(pool, clip, str(checkpoint), QUICK, "mel")
    shown: Shown = result(job)
    expected = analyze(clip, pool.recognizer(str(checkpoint)), QUICK)
    assert shown.analysis.summary() == expected.summary()
    assert shown.analysis.attribution is not None and expected.attribution is not None
    np.testing.assert_array_equal(shown.analysis.attribution.values, expected.attribution.values)
    assert shown.sound is not None and job.partial is shown
    np.testing.assert_allclose(shown.sound.kept + shown.sound.removed, clip.waveform, atol=1e-5)

    files = result(submit_downloads(pool, clip, shown))
    names = {file.name: file.data for file in files}
    assert len(names) == len(files) == 6 and all(name.startswith("chirp") for name in names)
    assert Analysis.load(names["chirp.earwitness"]).summary() == expected.summary()
    np.testing.assert_array_equal(open_clip(names["chirp-heard.wav"], name="x").waveform, shown.sound.kept)
    assert (
        names["chirp.png"][:8] == b"\x89PNG\r\n\x1a\n" and names["chirp-report.html"][:15].lower() == b"<!doctype html>"
    )


@pytest.mark.parametrize("settings", [{"target": "unicorn"}, {"method": "magic"}], ids=str)
def test_impossible_analyses_fail_with_advice_and_come_to_rest(
    settings: dict[str, str], pool: Engine, checkpoint: Path, chirp: np.ndarray, counted: dict[str, int]
) -> None:
    clip, wanted = Clip.from_array(chirp, 16000), QUICK.model_copy(update=settings)
    job = submit_analysis(pool, clip, str(checkpoint), wanted, "mel")
    assert job.wait(LONG) and job.state == "failed" and isinstance(job.error, SettingsError)
    # A page that looks again in a moment does not start it again.
    assert submit_analysis(pool, clip, str(checkpoint), wanted, "mel") is job


def test_uploads_are_decoded_or_refused(pool: Engine, chirp: np.ndarray) -> None:
    data = encode_wav(chirp[None], 16000, "FLOAT")
    job = submit_open(pool, data, "bird.wav")
    clip: Clip = result(job)
    np.testing.assert_array_equal(clip.waveform[0], chirp)
    assert clip.name == "bird.wav" and submit_open(pool, data, "bird.wav") is job
    assert submit_open(pool, data, "other.wav") is not job
    bad = submit_open(pool, b"not a sound", "letter.wav")
    assert bad.wait(LONG) and bad.state == "failed" and isinstance(bad.error, MediaError)


def test_memory_makes_a_value_once_and_forgets_the_least_recently_used() -> None:
    memory = Memory(3)
    made: list[str] = []

    def value(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key.upper()

        return memory.get(key, make)

    assert [value(k) for k in "abcabc"] == list("ABCABC") and made == list("abc")
    value("a")
    value("d")  # b goes: a was used since
    made.clear()
    assert [value(k) for k in "cda"] == list("CDA") and made == []
    value("b")
    assert made == ["b"]
    with pytest.raises(ZeroDivisionError):
        memory.get("x", lambda: 1 // 0)
    assert memory.get("x", lambda: 5) == 5  # a failure is not remembered
    assert memory.get("nothing", lambda: None) is None
    assert memory.get("nothing", lambda: 1) is None  # None is a value


def test_keys_tell_apart_what_differs_and_ignore_the_order_of_names() -> None:
    assert digest("a", {"x": 1, "y": [2]}) == digest("a", {"y": [2], "x": 1})
    different = [
        digest(),
        digest("a"),
        digest("a", "b"),
        digest("ab"),
        digest(["a", "b"]),
        digest(1),
        digest("1"),
        digest(None),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("dog.wav", "dog"), ("my dog.v2.flac", "my-dog.v2"), ("../../etc/passwd.wav", "etc-passwd"), ("../../etc/passwd", "clip"),
        ("", "clip"),
        (".wav", "clip"), ("...", "clip"), ("käse.mp3", "käse"), ("a" * 300 + ".wav", "a" * 60),
        ('"><script>.wav', "script"), ("a\r\nSet-Cookie: x.wav", "a--Set-Cookie--x"), ("C:\\x.wav", "C--x"),
    ],
)  # fmt: skip
def test_names_of_downloads_are_harmless(name: str, stem: str) -> None:
    assert safe_stem(name) == stem


def test_results_are_bounded_by_what_they_hold() -> None:
    engine = Engine(workers=1, remembered=100, remembered_bytes=3_000_000)
    for number in range(6):
        assert engine.submit(f"big{number}", lambda job: {"sound": np.zeros(250_000, dtype=np.float32)}).wait(10)
    assert engine.submit("last", lambda job: None).wait(10)
    kept = [number for number in range(6) if engine.find(f"big{number}") is not None]
    assert kept == [3, 4, 5]


def test_memory_is_bounded_by_bytes_and_keeps_the_newest() -> None:
    memory = analyses.Memory(100, most_bytes=2_000_000)
    made: list[int] = []

    def make(number: int) -> np.ndarray:
        made.append(number)
        return np.zeros(1_500_000, dtype=np.uint8)

    for number in (0, 1, 1, 0):
        memory.get(str(number), lambda number=number: make(number))
    assert made == [0, 1, 0]
