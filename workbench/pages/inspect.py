"""The page "Inspect": a clip, what a model says, and why, to see and to hear."""

from __future__ import annotations

from typing import Any

import streamlit as st

from models.card import Card
from models.clip import Clip
from workbench import ui
from workbench.engine import engine
from workbench.engine.analyses import Shown, submit_analysis, submit_downloads
from workbench.labels import spoken
from workbench.player import Selection, player
from workbench.steps import (
    AT_ONCE,
    chosen_here,
    clip_is_own,
    look_while,
    result_place,
    show_page,
    status_line,
    target_step,
    visitor,
)

# What a model has to be able to show, the page that shows it, and the words on the link.
OTHER_VIEWS = (
    ({"playback"}, "playback", "What it chose to hear again", ":material/replay:"),
    ({"time_attention", "token_attention"}, "playback", "Its attention over time", ":material/show_chart:"),
    ({"graph"}, "event_graph", "How it linked sound and picture", ":material/hub:"),
)


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


def explain_step(card: Card) -> tuple[Card, Any, str]:
    """Step 3: class, method, how much to keep; returns the model's card, the settings and the frequency scale."""
    from models.checkpoint import views_of
    from saliency.methods import METHODS
    from saliency.reconstruction import KeepSettings
    from workbench.analysis import AnalysisSettings, own_views

    ui.step(3, "Explain")
    if st.session_state.method not in METHODS:
        st.session_state.method = "integrated_gradients"
    target = target_step(card)
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
        target=target,
        method=st.session_state.method,
        parameters=parameters,
        keep=KeepSettings(sign=sign or "supports", fraction=percent / 100, floor_db=float(floor)),
        views=own_views(views_of(card)),
    )
    return card, settings, scale or "mel"


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
            st.html("<div class='ew-hint'>\u2007</div>")  # the height of the line that comes
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


def other_views(card: Card) -> None:
    """Ways to the other pages that can show something of this model, and to no others."""
    from models.checkpoint import views_of

    views = views_of(card)
    offered = [(page, label, icon) for needed, page, label, icon in OTHER_VIEWS if views & needed]
    if offered:
        with st.container(key="other_views", horizontal=True):
            for page, label, icon in offered:
                st.page_link(f"pages/{page}.py", label=label, icon=icon)


def results(clip: Clip, chosen: tuple[Card, Any, Any]) -> None:
    """Everything on the right; runs again by itself while something is being computed."""
    card, settings, scale = chosen
    if st.session_state.pop("choice_changed", False):
        st.rerun()
    job = submit_analysis(engine(), clip, st.session_state.model, settings, scale, visitor())
    job.wait(AT_ONCE)
    shown: Shown | None = job.result or job.partial
    only_looks = job.state == "done" and job.result.sound is None
    same_clip = st.session_state.get("last_shown")
    old = same_clip if same_clip is not None and same_clip.analysis.clip.content_hash == clip.content_hash else None
    top, right = st.columns([3, 2], vertical_alignment="top")
    with top:
        verdict_box(shown, clip, job.error is not None or only_looks)
    with right:
        bars(shown)
    status_line(job)
    if job.error is not None:
        ui.show_error(job.error)
    # The old explanation stays, dimmed, until the new one is there.
    waiting = (shown is None or shown.sound is None) and not only_looks
    visible = old if waiting and old is not None and old.sound is not None else shown
    st.session_state.preparing = False
    if visible is not None:
        with result_place(waiting and visible is old):
            player(visible.player, key="player", on_selection=lambda box: remember_region(clip, box))
            region_line(visible, clip)
            other_views(card)
            if only_looks:
                st.info("This model looks at the picture alone: no part of the sound explains what it says.")
            else:
                cards_below(visible, clip, job.finished and visible is shown)
    elif job.error is None:
        st.html('<div class="ew-skeleton" aria-hidden="true"></div>')
    if job.state == "done":
        st.session_state.last_shown = job.result
    look_while(not job.finished or job.state == "cancelled" or st.session_state.preparing)


show_page(
    explain_step, results, "What did the model hear?",
    "Upload a sound or a video, or record one: the model says what it is, and you hear what it went by.",
)  # fmt: skip
