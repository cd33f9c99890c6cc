"""``earwitness jobs``: what runs on this server, its log, and an end to it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import EarwitnessError

if TYPE_CHECKING:
    from workbench.jobs import JobRecord, JobStore

app = typer.Typer(help="List, show and cancel long-running jobs.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(help="Id of a job, or its beginning (see 'earwitness jobs list').")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]


def this_store() -> JobStore:
    """The jobs of this machine's data folder."""
    from workbench.home import data_home
    from workbench.jobs.store import JobStore

    return JobStore(data_home())


def find_job(store: JobStore, beginning: str) -> JobRecord:
    """The one job whose id begins so.

    Raises
    ------
    EarwitnessError
        If there is none, or more than one.
    """
    found = [job for job in store.find_all(discarded=True) if job.id.startswith(beginning)]
    if len(found) != 1:
        raise EarwitnessError(
            f"{'No job has' if not found else f'{len(found)} jobs have'} an id that begins with {beginning!r}.",
            "See 'earwitness jobs list'.",
        )
    return found[0]


def as_values(job: JobRecord) -> dict[str, object]:
    """What the command line tells of a job; whose it is stays a secret."""
    return {
        "id": job.id, "kind": job.kind, "title": job.title, "state": job.state, "stage": job.stage, "share": job.share,
        "seconds_left": job.seconds_left, "created": job.created, "ended": job.ended, "kept": job.kept,
        "message": job.message, "advice": job.advice, "result": job.result,
    }  # fmt: skip


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List all jobs, the newest first."""
    store = this_store()
    store.tick(begin=False)
    found = store.find_all()
    if as_json:
        typer.echo(json.dumps([as_values(job) for job in found], indent=1, ensure_ascii=False))
        return
    for job in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
        typer.echo(f"{job.id}  {when}  {job.state:9s} {100 * job.share:3.0f} %  {job.kind}: {job.title}")
    if not found:
        typer.echo("There are no jobs.")


@app.command()
def show(job: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job."""
    values = as_values(find_job(this_store(), job))
    if as_json:
        typer.echo(json.dumps(values, indent=1, ensure_ascii=False))
        return
    for name, value in values.items():
        if value not in (None, ""):
            typer.echo(f"{name:13s} {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")


@app.command()
def cancel(job: JobArgument) -> None:
    """Ask a job to stop; one that does not listen is ended after a few seconds."""
    store = this_store()
    found = find_job(store, job)
    store.cancel(found.id)
    # With or without a server: what does not listen is ended from here.
    for _ in range(int(10 * (store.grace + 5))):
        store.tick(begin=False)
        now = store.find(found.id)
        if now is None or not now.active:
            break
        time.sleep(0.1)
    now = store.find(found.id)
    typer.echo(f"{found.id}  {now.state if now else 'removed'}")


@app.command()
def log(job: JobArgument) -> None:
    """Print what a job wrote."""
    store = this_store()
    typer.echo(store.log(find_job(store, job).id), nl=False)
