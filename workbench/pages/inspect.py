"""The page "Inspect": a clip, what a model says, and why, to see and to hear."""

from __future__ import annotations

import re
import uuid
from typing import Any

import streamlit as st

from models.card import Card
from models.catalog import checkpoint_folders, read_card
from models.clip import Clip
from models.errors import EarwitnessError
from workbench import ui
from workbench.blobs import STORE
from workbench.engine import Job, engine
from workbench.engine.analyses import Shown, submit_analysis, submit_downloads, submit_open, submit_thumbnail
from workbench.examples import example_clips, open_example
from workbench.labels import spoken
from workbench.player import Selection, player
from workbench.workspace import clips as own_clips
from workbench.workspace import remember

FORMATS = ["wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "mp4", "mov", "webm", "aif", "aiff"]
FIRST_EXAMPLE, FIRST_MODEL = "dog_garden", "resnet-esc10"
BEST = "The most likely"
AT_ONCE = 0.25  # seconds a script may wait for something that is usually fast


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
    chosen_here = state.pop("chosen_here", False)
    asked = st.query_params.to_dict()
    if "clip" in state and (chosen_here or asked == state.get("address")):
        return
    examples = example_clips()
    clip = asked.get("clip", "")
    default = FIRST_EXAMPLE if FIRST_EXAMPLE in examples else next(iter(examples), "")
    state.clip = clip if clip in examples or clip in own_clips(workspace()) else default
    state.lost_clip = bool(clip) and clip != state.clip
    models = list(checkpoint_folders())
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


@st.cache_data(show_spinner=False)
def card_of(name: str, stamp: int) -> Card:
    """A model's card; read again when its file changes."""
    return read_card(checkpoint_folders()[name])


def cards() -> dict[str, Card]:
    """Cards of all models whose card can be read."""
    found = {}
    for name, folder in checkpoint_folders().items():
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


def method_parameters(method: Any) -> dict[str, Any]:
    """Widgets for a method's own settings, drawn from its settings class."""
    values: dict[str, Any] = {}
    for name, field in method.Settings.model_fields.items():
        label, key = name.replace("_", " ").capitalize(), f"parameter_{method.name}_{name}"
        if field.annotation is bool:
            values[name] = st.checkbox(label, value=field.default, key=key)
        elif field.annotation is int:
            low = next((m.ge for m in field.metadata if hasattr(m, "ge")), 0)
            high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
            values[name] = int(st.number_input(label, low, high, field.default, key=key))
    return values


def explain_step(card: Card) -> tuple[Any, str]:
    """Step 3: class, method, how much to keep; returns the settings and the frequency scale."""
    from saliency.methods import METHODS
    from saliency.reconstruction import KeepSettings
    from workbench.analysis import AnalysisSettings

    ui.step(3, "Explain")
    if st.session_state.target != BEST and st.session_state.target not in card.labels:
        st.session_state.target = BEST
    if st.session_state.method not in METHODS:
        st.session_state.method = "integrated_gradients"
    st.selectbox("Class", [BEST, *card.labels], key="target", format_func=spoken, on_change=chosen_here)
    st.selectbox(
        "Method", list(METHODS), key="method", format_func=lambda name: METHODS[name].title,
        on_change=chosen_here, help="How the relevance of every part of the sound is found.",
    )  # fmt: skip
    st.caption(METHODS[st.session_state.method].summary)
    percent = st.slider("How much to keep", 1, 60, 8, format="%d %%", key="keep_percent",
                        help="Share of all time-frequency cells that 'What it heard' keeps.")  # fmt: skip
    with st.expander("More"):
        sign = st.segmented_control(
            "Keep what",
            ["supports", "opposes", "both"],
            default="supports",
            key="keep_sign",
            format_func=str.capitalize,
        )
        scale = st.segmented_control(
            "Frequency axis", ["mel", "log", "linear"], default="mel", key="scale", format_func=str.capitalize
        )
        floor = st.slider("Level of what is not kept", -80, 0, -80, 5, format="%d dB", key="keep_floor")
        parameters = method_parameters(METHODS[st.session_state.method])
        st.caption(ui.plain(METHODS[st.session_state.method].citation))
    settings = AnalysisSettings(
        target=None if st.session_state.target == BEST else st.session_state.target,
        method=st.session_state.method,
        parameters=parameters,
        keep=KeepSettings(sign=sign or "supports", fraction=percent / 100, floor_db=float(floor)),
    )
    return settings, scale or "mel"


def current_clip() -> Clip | None:
    """The chosen clip; None if there is none."""
    chosen = st.session_state.clip
    if chosen in example_clips():
        return open_example(chosen)
    return own_clips(workspace()).get(chosen)


def verdict_box(shown: Shown | None, clip: Clip, failed: bool) -> None:
    """The sentence."""
    from workbench.verdict import part_in_words, percent, verdict, without_it

    if shown is None:
        waiting = "Nothing was found out" if failed else "Listening ..."
        st.html(f'<div class="ew-verdict" role="status"><div class="ew-eyebrow">{ui.escaped(clip.name)}</div>'
                f'<div class="ew-label ew-muted">{waiting}</div></div>')  # fmt: skip
        return
    analysis = shown.analysis
    score = float(analysis.prediction.scores[analysis.prediction.labels.index(analysis.target)])
    why = verdict(analysis) or ("" if failed else "Looking for the reason ...")
    notes = [note for note in (part_in_words(analysis), *analysis.clip.notes) if note]
    st.html(
        f'<div class="ew-verdict" role="status" aria-live="polite"><div class="ew-eyebrow">{ui.escaped(clip.name)}</div>'
        f'<div class="ew-label">{ui.escaped(spoken(analysis.target))} <span class="ew-muted">{ui.sentence(percent(score))}</span>'
        f'</div><div class="ew-why">{ui.sentence(f"{why} {without_it(analysis)}")}</div>'
        + "".join(f'<div class="ew-note">{ui.sentence(note)}</div>' for note in notes)
        + "</div>"
    )


def explain_class(label: str) -> None:
    """A click on a bar asks why that class."""
    chosen_here()
    st.session_state.target = label
    # The bar lives in a fragment, which runs alone; the choice concerns the whole page.
    st.session_state.choice_changed = True


def bars(shown: Shown | None) -> None:
    """The most likely classes; each bar is a button that explains its class."""
    from workbench.verdict import percent

    with st.container(key="bars"):
        if shown is None:
            for index in range(4):
                st.button("\u2007", key=f"bar_{index}", disabled=True, width="stretch")
            return
        rules = []
        for index, (label, score) in enumerate(shown.analysis.prediction.ranking()[:4]):
            st.button(
                f"{ui.plain(spoken(label))} \u2002 **{percent(score)}**", key=f"bar_{index}", on_click=explain_class, args=(label,),
                width="stretch"
            )  # fmt: skip
            colour = "var(--ew-accent)" if label == shown.analysis.target else "currentColor"
            share = max(0.6, 100 * score)
            rules.append(
                f".st-key-bar_{index} button {{ background: linear-gradient(90deg, color-mix(in srgb, {colour} 26%, transparent) "
                f"{share:.2f}%, color-mix(in srgb, currentColor 6%, transparent) {share:.2f}%) border-box; }}"
            )
        st.html(f"<style>{''.join(rules)}</style><div class='ew-muted ew-hint'>Click a class to ask why.</div>")


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


def cards_below(shown: Shown, clip: Clip, done: bool) -> None:
    """Trust, how it was made, take it with you."""
    from saliency.methods import METHODS
    from workbench.verdict import trust

    first, second, third = st.columns(3)
    analysis = shown.analysis
    with first.container(border=True, height="stretch"):
        st.markdown("**Can I trust this?**")
        sentences = trust(analysis)
        body = "".join(f"<p>{ui.sentence(s)}</p>" for s in sentences) or '<p class="ew-muted">Being checked ...</p>'
        st.html(f'<div class="ew-card">{body}</div>')
    with second.container(border=True, height="stretch"):
        st.markdown("**How it was made**")
        method = METHODS[analysis.settings.method]
        passes = analysis.attribution.passes if analysis.attribution else 0
        facts = {
            "Method": method.title, "Forward passes": f"{passes}" if passes else "-",
            "Model": f"{analysis.model.title} (hears up to {analysis.model.sample_rate / 2000:g} kHz)",
            "Energy kept": "-" if analysis.energy_share is None else f"{100 * analysis.energy_share:.0f} %",
            "Versions": ", ".join(f"{k} {v}" for k, v in list(analysis.versions.items())[:4]),
        }  # fmt: skip
        items = "".join(f"<dt>{ui.escaped(k)}</dt><dd>{ui.sentence(v)}</dd>" for k, v in facts.items())
        st.html(f'<dl class="ew-card">{items}</dl>')
    with third.container(border=True, height="stretch"):
        st.markdown("**Take it with you**")
        job = submit_downloads(engine(), clip, shown) if done and shown.sound is not None else None
        if job is None or not job.wait(AT_ONCE):
            st.session_state.preparing = job is not None
            st.caption("Being prepared ...")
        elif job.error is not None:
            ui.show_error(job.error)
        else:
            st.session_state.preparing = False
            for number, file in enumerate(job.result):
                st.download_button(
                    file.label, file.data, file.name, file.mime, key=f"download_{number}", width="stretch",
                    on_click="ignore", icon=":material/download:",
                )  # fmt: skip
            own = clip_is_own()
            st.caption("This page's address opens it again in this browser only; for others, take the report." if own else
                       "This page's address is a link: it opens the same clip, model, class and method.")  # fmt: skip


def clip_is_own() -> bool:
    """Whether the visitor brought the chosen clip."""
    return st.session_state.clip not in example_clips()


def remember_region(clip: Clip, selection: Selection | None) -> None:
    """Keep the box that was drawn on the spectrogram; it belongs to this clip."""
    st.session_state.region = None if selection is None else (clip.content_hash, selection)


def region_line(shown: Shown, clip: Clip) -> None:
    """What the drawn box holds, in words; before one is drawn, how to."""
    from workbench.verdict import region_in_words

    region = st.session_state.get("region")
    said = ""
    if region is not None and region[0] == clip.content_hash:
        box = region[1]
        said = region_in_words(shown.analysis, box.start, box.end, box.f_low, box.f_high)
    hint = "Drag on the picture to loop a moment. Select region tells how much of the explanation lies there."
    st.html(f'<div class="ew-region{"" if said else " ew-muted"}" role="status">{ui.sentence(said or hint)}</div>')


def results(clip: Clip, settings: Any, scale: Any) -> None:
    """Everything on the right; runs again by itself while something is being computed."""
    if st.session_state.pop("choice_changed", False):
        st.rerun()
    job = submit_analysis(engine(), clip, st.session_state.model, settings, scale)
    engine().follow(st.session_state.setdefault("visitor", uuid.uuid4().hex), job)
    job.wait(AT_ONCE)
    shown: Shown | None = job.result or job.partial
    same_clip = st.session_state.get("last_shown")
    old = same_clip if same_clip is not None and same_clip.analysis.clip.content_hash == clip.content_hash else None
    top, right = st.columns([3, 2], vertical_alignment="top")
    with top:
        verdict_box(shown, clip, job.error is not None)
    with right:
        bars(shown)
    status_line(job)
    if job.error is not None:
        ui.show_error(job.error)
    # The old explanation stays, dimmed, until the new one is there.
    waiting = shown is None or shown.sound is None
    visible = old if waiting and old is not None and old.sound is not None else shown
    st.session_state.preparing = False
    if visible is not None:
        with st.container(key="dimmed" if waiting and visible is old else "clear"):
            player(visible.player, key="player", on_selection=lambda box: remember_region(clip, box))
            region_line(visible, clip)
            cards_below(visible, clip, job.finished and visible is shown)
    elif job.error is None:
        st.html('<div class="ew-skeleton" aria-hidden="true"></div>')
    if job.state == "done":
        st.session_state.last_shown = job.result
    busy = not job.finished or job.state == "cancelled" or st.session_state.preparing
    if busy != st.session_state.get("polling", False):
        # The whole page runs once more, with or without looking again by itself.
        st.session_state.polling = busy
        st.rerun()


def page() -> None:
    """The page."""
    st.html(ui.STYLE)
    ui.skip_links()
    start_from_address()
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
            card = model_step(known)
            settings, scale = explain_step(card)
            ui.about()
        keep_address()
        with right, st.container(key="main"):
            ui.place("result")
            clip = current_clip()
            if clip is None:
                st.html('<div class="ew-verdict"><div class="ew-label">What did the model hear?</div><div class="ew-why">'
                        "Upload a sound or a video, or record one: the model says what it is, and you hear what it went "
                        "by.</div></div>")  # fmt: skip
                return
            every = 0.4 if st.session_state.get("polling") else None
            st.fragment(results, run_every=every)(clip, settings, scale)


page()
