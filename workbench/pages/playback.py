"""The page "Playback": what a model listened to again, and what that changed; for others, what they made of every moment."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from models.card import Card
from models.clip import Clip
from workbench import ui
from workbench.engine import engine
from workbench.engine.listening import ShownListening, submit_listening
from workbench.labels import spoken
from workbench.player import player
from workbench.steps import (
    AT_ONCE,
    cards,
    chosen_here,
    look_while,
    result_place,
    show_page,
    status_line,
    target_step,
    visitor,
)

LISTENS_AGAIN = "playback"


def listen_step(card: Card) -> tuple[Card, str | None]:
    """Step 3: the class; what is shown follows from the model."""
    ui.step(3, "Listen")
    target = target_step(card)
    said = (
        "This model listens again to what stood out, at a finer time resolution."
        if LISTENS_AGAIN in views(card)
        else "This model hears a clip once; shown is what it makes of every moment."
    )
    st.caption(said)
    return card, target


def views(card: Card) -> frozenset[str]:
    """What the model of a card can show."""
    from models.checkpoint import views_of

    return views_of(card)


def choose_model(name: str) -> None:
    """Show another model."""
    chosen_here()
    st.session_state.model = name
    # The button lives in a fragment, which runs alone; the choice concerns the whole page.
    st.session_state.choice_changed = True


def offer_others(known: Mapping[str, Card], card: Card) -> None:
    """Where the model hears a clip once: one button to a model that listens again."""
    if LISTENS_AGAIN in views(card):
        return
    other = next((one for one in known.items() if LISTENS_AGAIN in views(one[1])), None)
    with st.container(key="others", horizontal=True, vertical_alignment="center"):
        st.html('<div class="ew-muted">This model hears a clip once. Models that listen again show what made them change '
                "their mind.</div>")  # fmt: skip
        if other is not None:
            name, its = other
            st.button(
                f"Show it with {ui.plain(its.title or name)}", key="listens_again", on_click=choose_model, args=(name,),
                icon=":material/replay:",
            )  # fmt: skip


def verdict_box(shown: ShownListening | None, clip: Clip, failed: bool) -> None:
    """The sentence: what made it change its mind, or when it heard what it says."""
    from workbench.playback_view import headline
    from workbench.verdict import percent

    if shown is None:
        waiting = "Nothing was found out" if failed else "Listening ..."
        st.html(f'<div class="ew-verdict" role="status"><div class="ew-eyebrow">{ui.escaped(clip.name)}</div>'
                f'<div class="ew-label ew-muted">{waiting}</div></div>')  # fmt: skip
        return
    found = shown.listening
    again = found.playback
    warning = "" if again is None or again.reliability.better else again.reliability.sentence
    st.html(
        f'<div class="ew-verdict" role="status" aria-live="polite"><div class="ew-eyebrow">{ui.escaped(clip.name)}</div>'
        f'<div class="ew-label">{ui.escaped(spoken(found.target))} <span class="ew-muted">'
        f'{ui.sentence(percent(found.probability))}</span></div><div class="ew-why">{ui.sentence(headline(found))}</div>'
        + (f'<div class="ew-note">{ui.sentence(warning)}</div>' if warning else "")
        + "</div>"
    )


def below(shown: ShownListening) -> None:
    """What each pass changed, the listen-through, what to know, and what to take away."""
    from workbench.playback_view import cautions, change_figure, headline, in_words

    found = shown.listening
    if found.playback is not None and shown.through is not None:
        with st.container(border=True):
            st.markdown("**What each pass changed**")
            figure = change_figure(found.playback, st.context.theme.type == "dark")
            st.plotly_chart(figure, key="changes", width="stretch", config={"displayModeBar": False})
        with st.container(border=True):
            st.markdown("**Listen through:** the clip, then what was replayed")
            if len(shown.through.segments or []) < 2:
                st.caption("Nothing stood out in this clip, so nothing was replayed.")
            player(shown.through, key="through")
    first, second = st.columns([2, 1])
    with first.container(border=True, height="stretch"):
        st.markdown("**Can I trust this?**")
        said = [in_words(course) for course in found.courses]
        sentences = [one for one in dict.fromkeys([*said, *cautions(found)]) if one != headline(found)]
        st.html('<div class="ew-card">' + "".join(f"<p>{ui.sentence(one)}</p>" for one in sentences if one) + "</div>")
    with second.container(border=True, height="stretch"):
        st.markdown("**Take it with you**")
        if not shown.downloads:
            st.caption("Being prepared ...")
        for number, file in enumerate(shown.downloads):
            st.download_button(
                file.label, file.data, file.name, file.mime, key=f"listening_download_{number}", width="stretch",
                on_click="ignore", icon=":material/download:",
            )  # fmt: skip


def results(clip: Clip, chosen: tuple[Card, str | None]) -> None:
    """Everything on the right; runs again by itself while something is being computed."""
    if st.session_state.pop("choice_changed", False):
        st.rerun()
    card, target = chosen
    job = submit_listening(engine(), clip, st.session_state.model, target, visitor())
    job.wait(AT_ONCE)
    shown: ShownListening | None = job.result or job.partial
    last: ShownListening | None = st.session_state.get("last_listening")
    old = last if last is not None and last.clip_hash == clip.content_hash else None
    verdict_box(shown, clip, job.error is not None)
    status_line(job)
    if job.error is not None:
        ui.show_error(job.error)
    # What was there stays, dimmed, until the new is there.
    visible = shown or old
    if visible is not None:
        with result_place(shown is None):
            player(visible.player, key="over_time_player")
            offer_others(cards(), card)
            below(visible)
    elif job.error is None:
        st.html('<div class="ew-skeleton" aria-hidden="true"></div>')
    if job.state == "done":
        st.session_state.last_listening = job.result
    look_while(not job.finished or job.state == "cancelled")


show_page(
    listen_step, results, "What made it change its mind?",
    "Choose a sound: a model that listens again shows what it heard closer, pass after pass; other models show what they make "
    "of every moment.",
)  # fmt: skip
