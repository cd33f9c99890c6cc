// The Streamlit component: hands the data of each run to the player, and the player's answers back to Python.
import { renderer } from "./lifetime";
import { createPlayer } from "./player";
import type { Callbacks, PlayerData } from "./types";

export default renderer<PlayerData, Callbacks>(".earwitness-player", createPlayer, ({ setStateValue, setTriggerValue }) => ({
  track: (id) => setStateValue("track", id),
  selection: (selection) => setTriggerValue("selection", { selection }),
  segment: (segment) => setTriggerValue("segment", segment),
}));
