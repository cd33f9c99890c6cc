"""The page "Reservoir": which clips a device with little room keeps of all that it hears."""

from __future__ import annotations

import streamlit as st

from models.errors import EarwitnessError
from workbench import reservoirs, ui
from workbench.engine import Job, engine
from workbench.engine.analyses import digest
from workbench.examples import example_clips, open_example
from workbench.labels import spoken
from workbench.reservoir_charts import DISTANCES, shares_chart, simulation_shown
from workbench.reservoirs import Contents, Told
from workbench.steps import AT_ONCE, look_while, status_line, workspace
from workbench.workspace import clips as own_clips

CALM = {"displayModeBar": False, "responsive": True}


def rerun_when_done(job: Job) -> None:
    """Show the page anew once a job has ended."""
    if job.finished:
        st.rerun()


def simulation() -> None:
    """A random stream into a reservoir of each rule."""
    left, right = st.columns([1, 3], gap="medium")
    with left:
        n_classes = st.slider("Classes", 2, 20, 5)
        capacity = st.slider("Places in the reservoir", 10, 200, 50, 10)
        steps = st.slider("Clips that are heard", 50, reservoirs.MOST_STEPS, 100, 50)
        replace = st.slider("Chance that a fitting clip replaces another", 0.0, 1.0, 0.7, 0.05)
        if st.button("Another stream", icon=":material/casino:", width="stretch"):
            st.session_state.reservoir_seed = st.session_state.get("reservoir_seed", 0) + 1
        seed = st.session_state.get("reservoir_seed", 0)
        st.caption(f"Stream number {seed}; the same number gives the same stream.")
    with right:
        key = digest("reservoir", n_classes, capacity, steps, replace, seed)
        job = engine().submit(key, lambda job: simulation_shown(n_classes, capacity, steps, replace, seed))
        if not job.wait(AT_ONCE):
            st.html('<div class="ew-muted" role="status">The stream runs ...</div>')
            st.fragment(rerun_when_done, run_every=0.4)(job)
            return
        if job.error is not None:
            ui.show_error(job.error)
            return
        sentence, charts = job.result
        st.html(f'<div class="ew-verdict" role="status"><div class="ew-why">{ui.sentence(sentence)}</div></div>')
        for number, chart in enumerate(charts):
            st.plotly_chart(chart, key=f"simulation_{number}", config=CALM)
        with st.expander("What is this?"):
            st.markdown(
                "A device that goes on learning at home cannot keep every clip. It keeps a few, its **reservoir**, and they should "
                "be like what it hears: if half of all sounds are barks, half of the stored ones should be.\n\n"
                "When the reservoir is full, a new clip has to replace another one or be let go. The *published rule* compares "
                "shares of single classes; the *rule that follows the stream* takes the exchange that brings the whole "
                "distribution closest. The distance is the total variation: the share of stored clips that would have to be of "
                "another class."
            )


def offer_one(clip_id: str) -> None:
    """Let the reservoir hear one clip."""
    try:
        clip = open_example(clip_id) if clip_id in example_clips() else own_clips(workspace())[clip_id]
        st.session_state.reservoir_said = reservoirs.offer(workspace(), clip, st.session_state[f"classes_{clip_id}"])
    except EarwitnessError as error:
        st.session_state.reservoir_said = error


def offering() -> None:
    """Which clip is heard next, and what is in it."""
    state = st.session_state
    mine = {clip_id: clip.name for clip_id, clip in own_clips(workspace()).items()}
    titles = mine | {example.id: example.title for example in example_clips().values()}
    clip_id = st.selectbox("Clip", list(titles), format_func=lambda i: titles[i], key="reservoir_clip")
    if clip_id is None:
        st.info("There is no clip yet: upload one on the page Inspect.")
        return
    choices = sorted({label for example in example_clips().values() for label in example.labels})
    st.multiselect(
        "What is heard in it", [*choices, *(label for label in state.get(f"classes_{clip_id}", []) if label not in choices)],
        default=None if f"classes_{clip_id}" in state else reservoirs.labels_of(clip_id), key=f"classes_{clip_id}",
        format_func=spoken, accept_new_options=True, max_selections=5,
    )  # fmt: skip
    st.button(
        "Offer this clip",
        on_click=offer_one,
        args=(clip_id,),
        type="primary",
        width="stretch",
        icon=":material/hearing:",
    )
    own, turn = workspace(), state.setdefault("reservoir_turn", 0)
    if st.button("Let all examples pass by", width="stretch", icon=":material/playlist_play:"):
        state.reservoir_job = engine().submit(
            digest("reservoir stream", own, turn),
            lambda job: reservoirs.offer_examples(own, turn, job.progress),
        )
        state.reservoir_turn = turn + 1
    with st.expander("Begin anew"):
        capacity = st.slider("Places", 4, 100, 20, key="reservoir_places")
        policy = st.radio(
            "Rule", list(DISTANCES), format_func=lambda name: DISTANCES[name][0], key="reservoir_rule", horizontal=True
        )
        st.caption("All clips in the reservoir are deleted.")
        if st.button("Delete and begin anew", width="stretch", icon=":material/delete:"):
            try:
                reservoirs.start_anew(workspace(), capacity, policy)
                state.reservoir_said = None
            except EarwitnessError as error:
                ui.show_error(error)


def what_was_said() -> None:
    """What became of the last clip, or how far the stream is; keeps its height."""
    job: Job | None = st.session_state.get("reservoir_job")
    if job is not None and not job.finished:
        status_line(job)
        return
    if job is not None:
        st.session_state.reservoir_job = None
        if job.error is not None:
            st.session_state.reservoir_said = job.error
        elif job.result is not None:
            st.session_state.reservoir_said = Told(True, f"All examples passed by; {job.result} of them were kept.")
    said = st.session_state.get("reservoir_said")
    if isinstance(said, EarwitnessError):
        ui.show_error(said)
    else:
        text = said.sentence if said is not None else "Each clip is kept or let go, and you see why."
        st.html(f'<div class="ew-region{"" if said else " ew-muted"}" role="status">{ui.sentence(text)}</div>')


def own_stream() -> None:
    """The visitor's clips, one after the other, into a reservoir on the server's disk."""
    what_was_said()
    try:
        shown = reservoirs.contents(workspace())
    except EarwitnessError as error:
        ui.show_error(error)
        return
    if shown is None or not len(shown.observed):
        st.html('<div class="ew-verdict"><div class="ew-label">Nothing has been heard yet.</div><div class="ew-why">Offer a '
                "clip, or let all examples pass by.</div></div>")  # fmt: skip
    else:
        show_contents(shown)
    look_while(st.session_state.get("reservoir_job") is not None)


def show_contents(shown: Contents) -> None:
    """Stored against observed, and the stored clips."""
    for note in shown.notes:
        st.info(ui.plain(note))
    heard = "1 clip was" if len(shown.observed) == 1 else f"{len(shown.observed)} clips were"
    megabytes = (f"{value / 2**20:.1f} MB" for value in (shown.used_bytes, shown.max_bytes))
    st.html('<div class="ew-verdict"><div class="ew-why">' + ui.sentence(
        f"{heard} heard, {len(shown.clips)} of at most {shown.capacity} are kept. What is stored is "
        f"{100 * shown.distance:.0f} % away from what was heard. On disk: {' of at most '.join(megabytes)}."
    ) + "</div></div>")  # fmt: skip
    st.plotly_chart(
        shares_chart(shown.stored, shown.observed, shown.labels, "Stored (line) and observed (dashed)"),
        key="own_shares", config=CALM,
    )  # fmt: skip
    rows = [{"Clip": name, "Classes": ", ".join(map(spoken, labels))} for name, labels, _ in reversed(shown.clips)]
    st.dataframe(rows, hide_index=True, height=min(320, 40 + 35 * len(rows)))


def page() -> None:
    """The page."""
    st.html(ui.STYLE)
    with st.container(key="main"):
        ui.brand()
        st.html('<div class="ew-verdict"><div class="ew-label">What is worth keeping?</div><div class="ew-why">A device at home '
                "learns from what it hears, and has room for a few clips only. Which ones should it keep?</div></div>")  # fmt: skip
        shown = st.segmented_control(
            "What to see", ["Simulation", "Your clips"], key="reservoir_part", required=True, label_visibility="collapsed",
            default=None if "reservoir_part" in st.session_state else "Simulation",
        )  # fmt: skip
        if shown == "Your clips":
            left, right = st.columns([1, 2], gap="medium")
            with left:
                offering()
            every = 0.4 if st.session_state.get("polling") else None
            with right:
                st.fragment(own_stream, run_every=every)()
        else:
            st.fragment(simulation)()


page()
