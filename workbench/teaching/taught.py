"""Taught models: first in the folder of their job, and when they are kept, in a folder of the visitor's.

Their names hold an id that nobody can guess: whoever knows a name may use the model, as with any link.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from models.catalog import CARD, FINDERS, WEIGHTS, read_card
from models.errors import EarwitnessError
from workbench.home import data_home
from workbench.jobs import JobRecord, JobStore
from workbench.jobs.records import mended_errors
from workbench.jobs.store import clean_title

MODELS_IN_JOB = "model"
_NAME = re.compile(r"taught-([0-9a-f]{16})")


def model_of_job(job_id: str) -> str:
    """Name of the model that a job makes."""
    return f"taught-{job_id}"


def taught_folder(name: str) -> Path | None:
    """Folder of a taught model by its name, kept or not; None if there is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        home = data_home()
    except EarwitnessError:
        return None
    in_job = home / "jobs" / match[1] / MODELS_IN_JOB / name
    places = [*(home / "models").glob(f"*/{name}"), in_job]
    return next((place for place in places if (place / CARD).is_file() and (place / WEIGHTS).is_file()), None)


# A taught model is found by its name wherever models are loaded.
FINDERS.append(taught_folder)


def own_models(workspace: str) -> dict[str, Path]:
    """Names and folders of the models that a visitor kept."""
    try:
        folder = data_home() / "models" / workspace
    except EarwitnessError:  # a server without a data folder has no taught models, and works otherwise
        return {}
    if not re.fullmatch(r"[0-9a-f]{32}", workspace) or not folder.is_dir():
        return {}
    found = sorted(folder.iterdir(), key=lambda place: place.stat().st_mtime)
    return {place.name: place for place in found if _NAME.fullmatch(place.name) and (place / CARD).is_file()}


def keep_model(store: JobStore, job: JobRecord, title: str = "") -> None:
    """Keep a taught model beyond its visitor's session, in the visitor's own list.

    Raises
    ------
    EarwitnessError
        If it is not there.
    """
    name = model_of_job(job.id)
    source = store.folder_of(job.id) / MODELS_IN_JOB / name
    target = _kept(store, job)
    if not target.exists():
        if not (source / CARD).is_file():
            raise EarwitnessError("This model is not there any more.", "Teach it again.")
        with mended_errors():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            source.rename(target)
    store.keep(job.id)
    if title:
        rename_model(store, job, title)


def let_model_go(store: JobStore, job: JobRecord) -> None:
    """Put a kept model back into its job's folder: it ends with the session again."""
    target = _kept(store, job)
    if target.exists():
        with mended_errors():
            home = store.folder_of(job.id) / MODELS_IN_JOB
            home.mkdir(parents=True, exist_ok=True)
            target.rename(home / target.name)
    store.keep(job.id, False)


def rename_model(store: JobStore, job: JobRecord, title: str) -> None:
    """Give a taught model another title."""
    from models.checkpoint import write_card

    title = clean_title(title)
    if not title:
        raise EarwitnessError("A model needs a name.", "Type one.")
    store.rename(job.id, title)
    folder = taught_folder(model_of_job(job.id))
    if folder is not None:
        with mended_errors():
            write_card(folder, read_card(folder).model_copy(update={"title": title}))


def discard_model(store: JobStore, job: JobRecord) -> None:
    """Throw a job and its model away; `store.restore` and `keep_model` bring them back for a while."""
    let_model_go(store, job)
    store.discard(job.id)


def _kept(store: JobStore, job: JobRecord) -> Path:
    if not re.fullmatch(r"[0-9a-f]{32}", job.workspace):
        raise EarwitnessError("This is not a workspace.")
    return store.home / "models" / job.workspace / model_of_job(job.id)


def zip_of_model(folder: Path, name: str) -> bytes:
    """A checkpoint with all that belongs to it as one file; `name` is that of the folder inside."""
    buffer = io.BytesIO()
    # Weights do not get smaller by packing.
    with mended_errors(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                archive.write(file, f"{name}/{file.name}")
    return buffer.getvalue()
