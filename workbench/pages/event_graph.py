"""The page "Event graph": which sounds and pictures a model linked, to see, to hear and to try."""

from __future__ import annotations

import functools
from typing import Any

import streamlit as st

from models.card import Card
from models.clip import Clip
from models.errors import EarwitnessError
from workbench import ui
from workbench.engine import engine
from workbench.engine.graphs import GraphShown, submit_deletion, submit_graph, submit_graph_downloads, submit_what_if
from workbench.examples import example_clips
from workbench.graph_view import graph_view
from workbench.graph_view.data import LeftOut, selection_of
from workbench.graph_view.words import (
    curve_in_words,
    linked,
    missing_in_words,
    out_in_words,
    shares_in_words,
    window_in_words,
)
from workbench.labels import spoken
from workbench.steps import (
    AT_ONCE,
    cards,
    choose_clip,
    chosen_here,
    clip_is_own,
    forget_target,
    look_while,
    result_place,
    show_page,
    status_line,
    target_step,
    visitor,
)
from workbench.verdict import percent

BARS = 4


@functools.cache
def has_graph(family_name: str) -> bool:
    """Whether models of a family reason by an event graph."""
    from models.registry import family

    try:
        return "graph" in family(family_name).info.views
    except EarwitnessError:
        return False


def options(card: Card) -> tuple[str | None, str] | None:
    """Step 3: class and measure; None if the model has no event graph."""
    from saliency.graph import MEASURES

    if not has_graph(card.family):
        return None
    ui.step(3, "Explain")
    target = target_step(card)
    if st.session_state.get("graph_measure") not in MEASURES:
        st.session_state.graph_measure = "gradient"
    st.session_state.graph_measure = st.session_state.graph_measure
    st.selectbox(
        "Importance of a link", list(MEASURES), key="graph_measure", format_func=lambda name: MEASURES[name].title
    )
    st.caption(MEASURES[st.session_state.graph_measure].summary)
    return target, st.session_state.graph_measure


def take_model(name: str) -> None:
    """Switch to a model that has an event graph."""
    st.session_state.model = name
    forget_target()


def no_graph() -> None:
    """What the page shows where the model has no event graph: which models have, and a way to them."""
    known = cards()
    able = [name for name, card in known.items() if has_graph(card.family)]
    present = known.get(st.session_state.model)
    title = (present.title or st.session_state.model) if present else st.session_state.model
    if able:
        names = ", ".join(known[name].title or name for name in able)
        others = f"This server has one that does: {names}." if len(able) == 1 else f"These models do: {names}."
        said = f"{title} does not reason by a graph of sounds and pictures. {others}"
    else:
        said = (
            f"{title} does not reason by a graph of sounds and pictures, and no other model on this server does. Bring one "
            "in with 'earwitness models import', or train one of the family hetero_graph."
        )
    st.html(
        '<div class="ew-verdict" role="status"><div class="ew-label">Which sound went with which picture?</div>'
        f'<div class="ew-why">{ui.sentence(said)}</div></div>'
    )
    if able:
        first = able[0]
        st.button(
            f"Switch to {ui.plain(known[first].title or first)}", key="take_graph_model", type="primary",
            on_click=take_model, args=(first,),
        )  # fmt: skip


def is_silent(clip: Clip) -> bool:
    """Whether there is nothing to hear, as in a video without sound."""
    return any("silen" in note for note in clip.notes)


def verdict_box(shown: GraphShown | None, clip: Clip, failed: bool) -> None:
    """The sentence."""
    if shown is None:
        waiting = "Nothing was found out" if failed else "Looking and listening ..."
        st.html(f'<div class="ew-verdict" role="status"><div class="ew-eyebrow">{ui.escaped(clip.name)}</div>'
                f'<div class="ew-label ew-muted">{waiting}</div></div>')  # fmt: skip
        return
    explanation = shown.explanation
    notes = (
        shares_in_words(explanation), window_in_words(explanation), missing_in_words(explanation, is_silent(clip)), *clip.notes,
    )  # fmt: skip
    st.html(
        f'<div class="ew-verdict" role="status" aria-live="polite"><div class="ew-eyebrow">{ui.escaped(clip.name)}</div>'
        f'<div class="ew-label">{ui.escaped(spoken(explanation.target))} <span class="ew-muted">'
        f'{ui.sentence(percent(explanation.score))}</span></div><div class="ew-why">{ui.sentence(linked(explanation))}</div>'
        + "".join(f'<div class="ew-note">{ui.sentence(note)}</div>' for note in notes if note)
        + "</div>"
    )


def offer_videos() -> None:
    """Where the clip has no picture: examples that have one."""
    moving = [example for example in example_clips().values() if example.is_video]
    if not moving:
        return
    with st.popover("Try an example with a picture"):
        for example in moving:
            st.button(
                ui.plain(example.title),
                key=f"video_{example.id}",
                on_click=choose_clip,
                args=(example.id,),
                width="stretch",
            )


def explain_class(label: str) -> None:
    """A click on a bar asks for the graph of that class."""
    chosen_here()
    st.session_state.target = label
    # The bar lives in a fragment, which runs alone; the choice concerns the whole page.
    st.session_state.choice_changed = True


def bars(shown: GraphShown | None, after: Any) -> None:
    """The most likely classes before, and with `after` (`WhatIf`) also without what is left out."""
    with st.container(key="bars"):
        if shown is None:
            for index in range(BARS):
                st.button("\u2007", key=f"bar_{index}", disabled=True, width="stretch")
            st.html("<div class='ew-hint'>\u2007</div>")  # the height of the line that comes
            return
        explanation = shown.explanation
        order = sorted(range(len(explanation.labels)), key=lambda i: -float(explanation.scores[i]))[:BARS]
        if explanation.target_index not in order:
            order[-1] = explanation.target_index
        rules = []
        for index, place in enumerate(order):
            label, before = explanation.labels[place], float(explanation.scores[place])
            text = f"{ui.plain(spoken(label))} \u2002 **{percent(before)}**"
            layers = [(before, "62% 100%" if after is None else "100% 46%", "bottom")]
            if after is not None:
                now = float(after.scores[place])
                text += f" \u2192 **{percent(now)}**"
                layers = [(now, "100% 50%", "top"), (before, "100% 50%", "bottom")]
            st.button(text, key=f"bar_{index}", on_click=explain_class, args=(label,), width="stretch")
            accent = "var(--ew-accent)" if label == explanation.target else "currentColor"
            rules.append(f".st-key-bar_{index} button {{ background: {_bar(layers, accent, after is not None)}; }}")
        hint = "Upper half: without what is left out. Lower half: before." if after is not None else (
            "Leave pieces or links out below to see what changes. Click a class to see its graph.")  # fmt: skip
        st.html(f"<style>{''.join(rules)}</style><div class='ew-muted ew-hint'>{hint}</div>")


def _bar(layers: list[tuple[float, str, str]], colour: str, both: bool) -> str:
    """CSS background of a bar: one colour over its whole height, or what is now above what was before."""
    parts = []
    for score, size, where in layers:
        share = max(0.6, 100 * score)
        ink = "currentColor" if both and where == "bottom" else colour
        tint = f"color-mix(in srgb, {ink} {38 if both and where == 'top' else 26}%, transparent)"
        rest = "color-mix(in srgb, currentColor 6%, transparent)"
        gradient = f"linear-gradient(90deg, {tint} {share:.2f}%, {rest} {share:.2f}%)"
        parts.append(f"{gradient} {where} / {size if both else '100% 100%'} no-repeat")
    return ", ".join(parts)


# --- leaving out and putting back


def left_out(graph: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What was left out of a graph, step by step: nodes and edges."""
    held = st.session_state.get("graph_out")
    if held is None or held[0] != graph:
        held = st.session_state.graph_out = (graph, [])
    return held[1]


def all_left_out(steps: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Nodes and edges of all steps."""
    nodes = sorted({node for step in steps for node in step[0]})
    edges = sorted({edge for step in steps for edge in step[1]})
    return tuple(nodes), tuple(edges)


def leave_out(graph: str, shown: GraphShown, value: Any) -> None:
    """The visitor asked to leave something out."""
    chosen = selection_of(value, shown.explanation)
    if chosen is not None:
        left_out(graph).append((tuple(chosen.nodes), tuple(chosen.edges)))


def put_back(graph: str, everything: bool) -> None:
    """The last step is undone, or all of them."""
    steps = left_out(graph)
    del steps[0 if everything else -1 :]


# --- below the graph


def ask_to_check(key: str) -> None:
    """The deletion curve of a graph is wanted."""
    st.session_state.graph_check = key


def check_card(shown: GraphShown) -> Any:
    """The deletion curve, on demand; gives it, or None."""
    from workbench.graph_view.plots import deletion_figure

    st.markdown("**Do the important links count?**")
    asked = st.session_state.get("graph_check") == shown.key
    if not asked:
        st.caption("Delete the links step by step, the most important first, and compare with random orders.")
        st.button("Show the deletion curve", key="check_graph", on_click=ask_to_check, args=(shown.key,))
        return None
    job = submit_deletion(engine(), st.session_state.model, shown)
    if not job.wait(AT_ONCE):
        st.session_state.preparing = True
        status_line(job)
        return None
    if job.error is not None:
        ui.show_error(job.error)
        return None
    st.html(f'<div class="ew-card"><p>{ui.sentence(curve_in_words(job.result))}</p></div>')
    st.plotly_chart(deletion_figure(job.result), key="deletion", config={"displayModeBar": False}, width="stretch")
    return job.result


def made_card(shown: GraphShown) -> None:
    """How it was made."""
    from saliency.graph import MEASURES

    explanation, measure = shown.explanation, MEASURES[shown.explanation.measure]
    st.markdown("**How it was made**")
    facts = {
        "Graph": f"{explanation.n_audio} sounds, {explanation.n_nodes - explanation.n_audio} pictures, "
                 f"{explanation.n_edges} links, {explanation.n_layers} layers",
        "Importance": f"{measure.title}: {measure.summary}",
        "Left out means": "A piece that is left out sends and receives nothing and is not read out. A link that is left out "
                          "sends nothing. The other links stay where they are.",
        "Model": shown.card.title or shown.card.name,
        "Source": shown.card.citation or "-",
    }  # fmt: skip
    items = "".join(f"<dt>{ui.escaped(k)}</dt><dd>{ui.sentence(v)}</dd>" for k, v in facts.items())
    st.html(f'<dl class="ew-card">{items}</dl>')


def downloads_card(clip: Clip, shown: GraphShown, curve: Any) -> None:
    """Take it with you."""
    st.markdown("**Take it with you**")
    job = submit_graph_downloads(engine(), clip, shown, curve)
    if not job.wait(AT_ONCE):
        st.session_state.preparing = True
        st.caption("Being prepared ...")
        return
    if job.error is not None:
        ui.show_error(job.error)
        return
    for number, file in enumerate(job.result):
        st.download_button(
            file.label, file.data, file.name, file.mime, key=f"graph_download_{number}", width="stretch", on_click="ignore",
            icon=":material/download:",
        )  # fmt: skip
    own = clip_is_own()
    st.caption("This page's address opens it again in this browser only; for others, take the report." if own else
               "This page's address is a link: it opens the same clip, model and class.")  # fmt: skip


def choose_window(shown: GraphShown) -> None:
    """Which part of a clip that is longer than the model's window."""
    explanation = shown.explanation
    if len(explanation.windows) < 2:
        return

    def words(number: int) -> str:
        start, end = explanation.windows[number]
        score = percent(float(explanation.window_scores[number]))
        return f"{start:.1f}–{min(float(end), explanation.duration):.1f} s: {spoken(explanation.target)} {score}"

    key = f"window_{shown.view.graph_id}"
    st.selectbox(
        "Part of the clip", list(range(len(explanation.windows))), index=explanation.window, format_func=words, key=key,
        on_change=take_window, args=(key,),
    )  # fmt: skip


def take_window(key: str) -> None:
    """Another part of the clip is to be shown."""
    st.session_state.graph_window = (window_owner(), st.session_state[key])


def window_owner() -> str:
    """For which clip, model and class a part was chosen."""
    return f"{st.session_state.clip} {st.session_state.model} {st.session_state.target}"


def results(clip: Clip, chosen: tuple[str | None, str] | None) -> None:
    """Everything on the right; runs again by itself while something is being computed."""
    if st.session_state.pop("choice_changed", False):
        st.rerun()
    if chosen is None:
        no_graph()
        look_while(False)
        return
    target, measure = chosen
    held = st.session_state.get("graph_window")
    window = held[1] if held is not None and held[0] == window_owner() else None
    model = st.session_state.model
    job = submit_graph(engine(), clip, model, target, measure, window, visitor())
    job.wait(AT_ONCE)
    shown: GraphShown | None = job.result
    last = st.session_state.get("last_graph")
    old: GraphShown | None = last[1] if last is not None and last[0] == (clip.content_hash, model) else None
    # The old graph stays, dimmed, until the new one is there.
    visible = shown or old
    graph = f"{clip.content_hash} {model} {visible.explanation.window if visible is not None else 0}"
    nodes, edges = all_left_out(left_out(graph)) if visible is not None else ((), ())
    after = None
    st.session_state.preparing = False
    if shown is not None and (nodes or edges):
        tried = submit_what_if(engine(), model, shown, nodes, edges)
        if tried.wait(AT_ONCE):
            after = tried.result
            if tried.error is not None:
                ui.show_error(tried.error)
        else:
            st.session_state.preparing = True
    top, right = st.columns([3, 2], vertical_alignment="top")
    with top:
        verdict_box(shown, clip, job.error is not None)
        if clip.video is None:
            offer_videos()
    with right:
        bars(shown, after)
    said = out_in_words(shown.explanation, nodes, edges) if shown is not None else ""
    if said:
        st.html(f'<div class="ew-status" role="status">{ui.sentence(said)}</div>')
    else:
        status_line(job)
    if job.error is not None:
        ui.show_error(job.error)
    if visible is not None:
        choose_window(visible)
        with result_place(shown is None):
            graph_view(
                visible.view.model_copy(update={"left_out": LeftOut(nodes=list(nodes), edges=list(edges))}), key="event_graph",
                on_leave_out=lambda value: leave_out(graph, visible, value), on_put_back=lambda every: put_back(graph, every),
            )  # fmt: skip
            first, second, third = st.columns([2, 1, 1])
            with first.container(border=True, height="stretch"):
                curve = check_card(visible)
            with second.container(border=True, height="stretch"):
                made_card(visible)
            with third.container(border=True, height="stretch"):
                if shown is not None:
                    downloads_card(clip, shown, curve)
    elif job.error is None:
        st.html('<div class="ew-skeleton" aria-hidden="true"></div>')
    if shown is not None:
        st.session_state.last_graph = ((clip.content_hash, model), shown)
    look_while(not job.finished or job.state == "cancelled" or st.session_state.preparing)


show_page(
    options, results, "Which sound went with which picture?",
    "Upload a video: the model says what it is, and you see and hear which moments it linked.",
)  # fmt: skip
