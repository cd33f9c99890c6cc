"""What every page needs to choose a clip and a model; the choices stay while one goes from page to page."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from models.card import Card
from models.catalog import checkpoint_folders, read_card
from models.clip import Clip
from models.errors import EarwitnessError
from workbench import ui
from workbench.blobs import STORE
from workbench.engine import Job, engine
from workbench.engine.analyses import submit_open, submit_thumbnail
from workbench.examples import example_clips, open_example
from workbench.jobs import jobs
from workbench.labels import spoken
from workbench.teaching.taught import own_models
from workbench.workspace import clips as own_clips
from workbench.workspace import remember

FORMATS = ["wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "mp4", "mov", "webm", "aif", "aiff"]
FIRST_EXAMPLE, FIRST_MODEL = "dog_garden", "resnet-esc10"
BEST = "The most likely"
AT_ONCE = 0.25  # seconds a script may wait for something that is usually fast
T = TypeVar("T")


def workspace() -> str:
    """The browser's id, from the server's cookie."""
    cookie = st.context.cookies.get("earwitness_workspace")
    if isinstance(cookie, str) and re.fullmatch(r"[0-9a-f]{32}", cookie):
        return cookie
    if "workspace" not in st.session_state:
        st.session_state.workspace = uuid.uuid4().hex
    return st.session_state.workspace


def start_from_address() -> None:
    """Take clip, model, class and method from the address: when the page is opened, and when "back" changed it."""
    state = st.session_state
    keep_choices()
    chosen_here = state.pop("chosen_here", False)
    asked = st.query_params.to_dict()
    # From page to page the address is emptied; the choices stay.
    if "clip" in state and (chosen_here or not asked or asked == state.get("address")):
        return
    examples = example_clips()
    clip = asked.get("clip", "")
    default = FIRST_EXAMPLE if FIRST_EXAMPLE in examples else next(iter(examples), "")
    state.clip = clip if clip in examples or clip in own_clips(workspace()) else default
    state.lost_clip = bool(clip) and clip != state.clip
    models = list(model_folders())
    first = FIRST_MODEL if FIRST_MODEL in models else (models[0] if models else None)
    state.model = asked.get("model") if asked.get("model") in models else first
    state.target = asked.get("class", BEST)
    state.method = asked.get("method", "integrated_gradients")


def keep_address() -> None:
    """Write the choices into the address, so that the link shows the same."""
    state = st.session_state
    values = {"clip": state.clip, "model": state.model, "method": state.method}
    if state.target != BEST:
        values["class"] = state.target
    if st.query_params.to_dict() != values:
        st.query_params.from_dict(values)
    state.address = values


def chosen_here() -> None:
    """Something was chosen on the page: it counts, not what the browser's address still says."""
    st.session_state.chosen_here = True


def model_folders() -> dict[str, Path]:
    """Models to choose from: the server's, and those that this visitor taught and kept."""
    return checkpoint_folders() | own_models(workspace())


@st.cache_data(show_spinner=False)
def card_of(name: str, stamp: int) -> Card:
    """A model's card; read again when its file changes."""
    return read_card(model_folders()[name])


def cards() -> dict[str, Card]:
    """Cards of all models whose card can be read."""
    found = {}
    for name, folder in model_folders().items():
        try:
            found[name] = card_of(name, (folder / "card.yaml").stat().st_mtime_ns)
        except EarwitnessError as error:
            ui.show_error(error)
    return found


def choose_clip(clip_id: str) -> None:
    """Show another clip."""
    chosen_here()
    st.session_state.clip = clip_id
    st.session_state.target = BEST
    st.session_state.lost_clip = False


def take_file(file: Any, name: str, source: str) -> bool:
    """Open a file the visitor gave, once, without holding the page up; True when it became the clip."""
    state = st.session_state
    held = state.get(f"{source}_file")
    if held is None or held[0] != file.file_id:
        held = (file.file_id, submit_open(engine(), file.getvalue(), name))
        state[f"{source}_file"] = held
    job: Job = held[1]
    if state.get(f"{source}_taken") == file.file_id:
        return False
    if not job.wait(AT_ONCE):
        st.html('<div class="ew-muted" role="status">Opening the file ...</div>')
        st.fragment(look_again, run_every=0.4)(job)
        return False
    if job.error is not None:
        ui.show_error(job.error)
        return False
    state[f"{source}_taken"] = file.file_id
    choose_clip(remember(workspace(), job.result))
    return True


def look_again(job: Job) -> None:
    """Shows the page anew once a job has ended."""
    if job.finished:
        st.rerun()


def clip_step() -> None:
    """Step 1: upload, record, or an example."""
    ui.step(1, "Clip")
    state = st.session_state
    number = state.setdefault("uploads", 0)
    given = st.file_uploader(
        "Upload a sound or a video", type=FORMATS, key=f"upload_{number}", label_visibility="collapsed"
    )
    # With a new key the uploader is empty again: the clip is in the list below now.
    if given is not None and take_file(given, given.name, "upload"):
        state.uploads = number + 1
        st.rerun()
    recorded = st.audio_input("Record with the microphone", key="microphone", sample_rate=48000)
    if recorded is not None:
        take_file(recorded, "recording.wav", "microphone")
    if state.get("lost_clip"):
        st.info("The clip of this link is not here: uploaded clips open only in the browser that uploaded them, and "
                "not for ever. Upload it again, or try an example.")  # fmt: skip
    mine = own_clips(workspace())
    if mine:
        with st.container(key="own"):
            for clip_id, clip in reversed(mine.items()):
                st.button(
                    ui.plain(clip.name), key=f"own_{clip_id}", on_click=choose_clip, args=(clip_id,), width="stretch",
                    type="primary" if clip_id == state.clip else "secondary", icon=":material/graphic_eq:",
                )  # fmt: skip
    if example_clips():
        with st.expander("Examples", expanded=not mine):
            example_tiles()


def example_tiles() -> None:
    """The shipped clips, each with a small spectrogram."""
    pictures = []
    with st.container(key="examples"):
        for example in example_clips().values():
            st.button(
                ui.plain(example.title), key=f"example_{example.id}", on_click=choose_clip, args=(example.id,),
                width="stretch", type="primary" if example.id == st.session_state.clip else "secondary",
            )  # fmt: skip
            job = submit_thumbnail(engine(), example.id)
            if job.result is not None:
                url = STORE.put(job.result, "image/png")
                pictures.append(f".st-key-example_{example.id} button::before {{ background-image: url({url}); }}")
        st.html(f"<style>{''.join(pictures)}</style>")


def model_step(known: dict[str, Card]) -> Card:
    """Step 2: the model, with its card."""
    ui.step(2, "Model")
    if st.session_state.model not in known:  # one that was thrown away meanwhile
        st.session_state.model = next(iter(known))
    st.selectbox(
        "Model", list(known), key="model", label_visibility="collapsed",
        format_func=lambda name: known[name].title or name, on_change=forget_target,
    )  # fmt: skip
    card = known[st.session_state.model]
    accuracy = next((m for m in card.metrics if m.name == "accuracy"), None)
    facts = [f"{len(card.labels)} classes"]
    if accuracy is not None:
        facts.append(f"{100 * accuracy.value:.1f} % right on {accuracy.data}")
    st.caption(ui.plain(", ".join(facts)))
    with st.expander("Card"):
        st.text(card.description)
        for entry in card.training_data:
            st.caption(ui.plain(f"Trained on {entry.name} {entry.split} ({entry.license}). {entry.source}"))
        for metric in card.metrics:
            st.caption(ui.plain(f"{metric.name}: {metric.value:.4g} on {metric.data}") + f"  \n`{metric.command}`")
        st.caption(ui.plain(card.citation))
        st.caption(f"Weights `{card.content_hash[:16]}`")
    return card


def forget_target() -> None:
    """A new model may not know the class that was chosen."""
    chosen_here()
    st.session_state.target = BEST


def current_clip() -> Clip | None:
    """The chosen clip; None if there is none."""
    chosen = st.session_state.clip
    if chosen in example_clips():
        return open_example(chosen)
    return own_clips(workspace()).get(chosen)


def status_line(job: Job) -> None:
    """What is being done, how far it is, how long it will take; keeps its height when there is nothing to say."""
    if job.finished:
        st.html('<div class="ew-status"></div>')
        return
    left = job.seconds_left
    wait = "" if left is None or left < 1 else f", about {left:.0f} s left"
    st.html(
        f'<div class="ew-status ew-muted"><span class="ew-track"><span class="ew-done" style="display:block;width:'
        f'{100 * job.share:.0f}%"></span></span>{ui.escaped(job.stage or "Waiting")} {100 * job.share:.0f} %{wait}</div>'
    )


@contextlib.contextmanager
def result_place(old: bool) -> Iterator[None]:
    """The place of a result, dimmed while it holds the old one.

    Both have one place: in another one the browser would build the player anew, which stops its sound and is a jump.
    """
    with st.container(key="shown"):
        st.html(f'<div class="ew-place{" ew-old" if old else ""}"></div>')
        yield


def clip_is_own() -> bool:
    """Whether the visitor brought the chosen clip."""
    return st.session_state.clip not in example_clips()


def keep_choices() -> None:
    """Hold on to what was chosen: Streamlit forgets the state of widgets that the page before did not show."""
    for name in ("model", "target", "method"):
        if name in st.session_state:
            st.session_state[name] = st.session_state[name]


def target_step(card: Card) -> str | None:
    """Selection of the class to explain; None: the most likely one."""
    if st.session_state.target != BEST and st.session_state.target not in card.labels:
        st.session_state.target = BEST
    st.selectbox("Class", [BEST, *card.labels], key="target", format_func=spoken, on_change=chosen_here)
    return None if st.session_state.target == BEST else st.session_state.target


def visitor() -> str:
    """Name of this tab for the engine, which cancels what a tab no longer waits for."""
    return st.session_state.setdefault("visitor", uuid.uuid4().hex)


def look_while(busy: bool) -> None:
    """Let the results look again by themselves while something is being computed, and come to rest afterwards."""
    if busy != st.session_state.get("polling", False):
        # The whole page runs once more, with or without looking again by itself.
        st.session_state.polling = busy
        st.rerun()


def show_page(options: Callable[[Card], T], results: Callable[[Clip, T], None], question: str, invitation: str) -> None:
    """A page: on the left clip, model and the page's own step, on the right its results.

    Parameters
    ----------
    options
        Draws the page's own step for a model and returns what was chosen.
    results
        Draws the right side; runs again by itself while `look_while` says that something is being computed.
    question, invitation
        What the page shows, and what to do, where there is no clip yet.
    """
    st.html(ui.STYLE)
    ui.skip_links()
    start_from_address()
    with contextlib.suppress(EarwitnessError):  # without a data folder there are no jobs to keep
        jobs().here(workspace())
    known = cards()
    with st.container(key="layout"):
        left, right = st.columns([1, 3], gap="medium")
        with left, st.container(key="steps"):
            ui.place("steps")
            ui.brand()
            clip_step()
            ui.way_back()
            if not known:
                st.error("There is no model on this server. Run 'earwitness doctor' to see what is missing.")
                return
            chosen = options(model_step(known))
            ui.about()
        keep_address()
        with right, st.container(key="main"):
            ui.place("result")
            clip = current_clip()
            if clip is None:
                st.html(f'<div class="ew-verdict"><div class="ew-label">{ui.escaped(question)}</div>'
                        f'<div class="ew-why">{ui.escaped(invitation)}</div></div>')  # fmt: skip
                return
            every = 0.4 if st.session_state.get("polling") else None
            st.fragment(results, run_every=every)(clip, chosen)
