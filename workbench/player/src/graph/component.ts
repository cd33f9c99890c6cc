// The Streamlit component: hands the data of each run to the graph, and what the visitor asks for back to Python.
import { renderer } from "../lifetime";
import { EventGraph } from "./graph";
import type { GraphCallbacks, GraphData } from "./types";

export default renderer<GraphData, GraphCallbacks>(
  ".earwitness-graph",
  (root, data, callbacks) => new EventGraph(root, data, callbacks),
  ({ setTriggerValue }) => ({
    leaveOut: (parts) => setTriggerValue("leave_out", parts),
    putBack: (all) => setTriggerValue("put_back", { all }),
  }),
);
