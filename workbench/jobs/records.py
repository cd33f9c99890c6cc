"""What is known of jobs: a table in SQLite that the server, the jobs themselves and the command line share."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    select,
    update,
)
from sqlalchemy.exc import OperationalError

from models.errors import EarwitnessError

FILES = "files"  # folder of a job that holds what it was given
ACTIVE = ("waiting", "running")

_METADATA = MetaData()
JOBS = Table(
    "jobs", _METADATA,
    Column("id", String, primary_key=True), Column("workspace", String, index=True), Column("kind", String),
    Column("title", String), Column("settings", Text), Column("state", String, index=True),
    Column("stage", String, default=""), Column("share", Float, default=0.0), Column("seconds_left", Float),
    Column("told", Float), Column("result", Text), Column("message", Text, default=""), Column("advice", Text, default=""),
    Column("kept", Boolean, default=False), Column("cancel_asked", Float), Column("discarded", Float),
    Column("attempts", Integer, default=0), Column("created", Float), Column("started", Float), Column("ended", Float),
    Column("pid", Integer), Column("pid_started", Float),
)  # fmt: skip
VISITS = Table("visits", _METADATA, Column("workspace", String, primary_key=True), Column("seen", Float))


@dataclass(frozen=True)
class JobRecord:
    """One job as the table knows it.

    Attributes
    ----------
    id, workspace, kind, title
        `title` is text from a visitor.
    settings, result
        Plain data; `result` is None until the job is done.
    state
        ``waiting``, ``running``, ``done``, ``failed``, ``cancelled``, or ``lost``: its process died.
    stage, share, seconds_left, told
        Where it stands, 0 to 1, and when it said so.
    message, advice
        Why it failed and what to do.
    kept
        Whether it stays when its visitor is gone.
    discarded
        When it was thrown away; it can be brought back for a while.
    attempts
        How many times it was begun; more than one: resumed.
    created, started, ended
        Seconds since the epoch.
    """

    id: str
    workspace: str
    kind: str
    title: str
    settings: dict[str, Any]
    state: str
    stage: str
    share: float
    seconds_left: float | None
    told: float | None
    result: dict[str, Any] | None
    message: str
    advice: str
    kept: bool
    cancel_asked: float | None
    discarded: float | None
    attempts: int
    created: float
    started: float | None
    ended: float | None
    pid: int | None
    pid_started: float | None

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE

    @property
    def resumable(self) -> bool:
        """Whether it can be begun again where it stopped."""
        return self.state in ("lost", "failed", "cancelled")


class JobRecords:
    """The table of jobs in a folder, and the folder of each job beside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "jobs"
        with mended_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = create_engine(
                f"sqlite:///{home / 'jobs.sqlite'}", connect_args={"timeout": 30, "check_same_thread": False}
            )
            event.listen(self._database, "connect", _prepare)
            _METADATA.create_all(self._database)

    def close(self) -> None:
        """Let go of the file."""
        self._database.dispose()

    def folder_of(self, job_id: str) -> Path:
        """A job's own folder."""
        if not (job_id.isalnum() and job_id.isascii()):
            raise EarwitnessError("There is no such job.")
        return self.folder / job_id

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that no other process can come between."""
        with mended_errors(), self._database.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def add(
        self,
        workspace: str,
        kind: str,
        title: str,
        settings: dict[str, Any],
        files: Mapping[str, Path] | None = None,
    ) -> str:
        """A new waiting job with its files; returns its id, which nobody can guess."""
        job_id = secrets.token_hex(8)
        folder = self.folder_of(job_id)
        try:
            with mended_errors():
                (folder / FILES).mkdir(mode=0o700, parents=True)
                for name, source in (files or {}).items():
                    _link(source, folder / FILES / Path(name).name)
        except EarwitnessError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self.writing() as connection:
            connection.execute(
                JOBS.insert().values(
                    id=job_id,
                    workspace=workspace,
                    kind=kind,
                    title=title,
                    settings=as_json(settings),
                    state="waiting",
                    created=time.time(),
                )
            )
        return job_id

    def find(self, job_id: str) -> JobRecord | None:
        """A job by its id."""
        with mended_errors(), self._database.connect() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
        return None if row is None else _record(row)

    def find_all(self, workspace: str | None = None, *, discarded: bool = False) -> list[JobRecord]:
        """Jobs, the newest first: of one workspace or of all."""
        query = select(JOBS).order_by(JOBS.c.created.desc())
        if workspace is not None:
            query = query.where(JOBS.c.workspace == workspace)
        if not discarded:
            query = query.where(JOBS.c.discarded.is_(None))
        with mended_errors(), self._database.connect() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def active(self) -> list[JobRecord]:
        """Jobs that wait or run, the oldest first."""
        query = select(JOBS).where(JOBS.c.state.in_(ACTIVE)).order_by(JOBS.c.created)
        with mended_errors(), self._database.connect() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def change(self, job_id: str, *states: str, **values: Any) -> bool:
        """Set fields of a job, if it is in one of `states` (none given: in whatever state); False if it was not."""
        query = update(JOBS).where(JOBS.c.id == job_id)
        if states:
            query = query.where(JOBS.c.state.in_(states))
        if "result" in values and values["result"] is not None:
            values["result"] = as_json(values["result"])
        with self.writing() as connection:
            return connection.execute(query.values(**values)).rowcount > 0

    def delete(self, job_id: str) -> None:
        """Forget a job; its folder is the caller's."""
        with self.writing() as connection:
            connection.execute(JOBS.delete().where(JOBS.c.id == job_id))

    def touch(self, workspace: str) -> None:
        """Note that a visitor is here."""
        with self.writing() as connection:
            connection.execute(VISITS.delete().where(VISITS.c.workspace == workspace))
            connection.execute(VISITS.insert().values(workspace=workspace, seen=time.time()))

    def visits(self) -> dict[str, float]:
        """When each workspace was last here."""
        with mended_errors(), self._database.connect() as connection:
            return {row.workspace: row.seen for row in connection.execute(select(VISITS))}

    def forget_visit(self, workspace: str) -> None:
        """A workspace that is gone and left nothing behind."""
        with self.writing() as connection:
            connection.execute(VISITS.delete().where(VISITS.c.workspace == workspace))


def _link(source: Path, target: Path) -> None:
    """The same file at a second place; a copy where the disk knows no links."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)


def _prepare(connection: Any, _: Any) -> None:
    # Transactions are begun by hand (`writing`), so that a reader never turns into a writer half-way.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


@contextmanager
def mended_errors() -> Iterator[None]:
    """Full and unwritable disks are errors that a person can mend."""
    try:
        yield
    except OperationalError as error:
        raise EarwitnessError(
            f"The server's table of jobs cannot be used: {error.orig}.",
            "If its disk is full, make room; if its data folder cannot be written to, set EARWITNESS_HOME to another.",
        ) from error
    except OSError as error:
        raise EarwitnessError(
            f"The server's data folder cannot be used: {error.strerror or type(error).__name__}.",
            "If its disk is full, make room; if it cannot be written to, set EARWITNESS_HOME to another folder.",
        ) from error


def as_json(value: Any) -> str:
    """Plain data as JSON; numbers that are not finite become null, because JSON has none."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=os.fspath)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value, default=os.fspath), parse_constant=lambda _: None))


def _record(row: Any) -> JobRecord:
    values = {f.name: row[f.name] for f in fields(JobRecord)}
    values["settings"] = json.loads(values["settings"])
    values["result"] = None if values["result"] is None else json.loads(values["result"])
    return JobRecord(**values)
