"""The workbench's pages; navigation only."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent

st.set_page_config(page_title="Earwitness", page_icon=str(HERE / "static" / "favicon.svg"), layout="wide")
pages = [
    st.Page(HERE / "pages" / "inspect.py", title="Inspect", icon=":material/hearing:", default=True),
    st.Page(HERE / "pages" / "event_graph.py", title="Event graph", icon=":material/hub:"),
    st.Page(HERE / "pages" / "playback.py", title="Playback", icon=":material/replay:"),
    st.Page(HERE / "pages" / "teach.py", title="Teach", icon=":material/school:"),
    st.Page(HERE / "pages" / "reservoir.py", title="Reservoir", icon=":material/inventory_2:"),
    st.Page(HERE / "pages" / "jobs.py", title="Jobs", icon=":material/checklist:"),
]
st.navigation(pages, position="top").run()
