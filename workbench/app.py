"""The workbench's pages; navigation only."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent

st.set_page_config(page_title="Earwitness", page_icon=str(HERE / "static" / "favicon.svg"), layout="wide")
pages = [st.Page(HERE / "pages" / "inspect.py", title="Inspect", icon=":material/hearing:", default=True)]
st.navigation(pages, position="top").run()
