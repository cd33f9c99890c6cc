// The Streamlit component: hands the data of each run to the graph, and what the visitor asks for back to Python.
import { EventGraph } from "./graph";
import type { GraphData, Parts } from "./types";

interface ComponentArguments {
  parentElement: HTMLElement | ShadowRoot;
  data: GraphData;
  setTriggerValue(name: string, value: unknown): void;
}

// The renderer runs again at every run of the page's script: the graph lives on beside the element it stands in.
const alive = new WeakMap<Node, { graph: EventGraph; run: number }>();

export default function render({ parentElement, data, setTriggerValue }: ComponentArguments): () => void {
  const callbacks = {
    leaveOut: (parts: Parts) => setTriggerValue("leave_out", parts),
    putBack: (all: boolean) => setTriggerValue("put_back", { all }),
  };
  let entry = alive.get(parentElement);
  if (entry) entry.graph.update(data, callbacks);
  else {
    const root = parentElement.querySelector<HTMLElement>(".earwitness-graph")!;
    entry = { graph: new EventGraph(root, data, callbacks), run: 0 };
    alive.set(parentElement, entry);
  }
  const mine = entry;
  const run = ++mine.run;
  return () => {
    // A superseded render is cleaned up too, right before or after the next one: only the last one ends the graph.
    setTimeout(() => {
      if (mine.run !== run) return;
      mine.graph.destroy();
      if (alive.get(parentElement) === mine) alive.delete(parentElement);
    }, 0);
  };
}
