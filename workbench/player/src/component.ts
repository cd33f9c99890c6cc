// The Streamlit component: hands the data of each run to the player, and the player's answers back to Python.
import { createPlayer } from "./player";
import type { Player, PlayerData } from "./types";

interface ComponentArguments {
  parentElement: HTMLElement | ShadowRoot;
  data: PlayerData;
  setStateValue(name: string, value: unknown): void;
  setTriggerValue(name: string, value: unknown): void;
}

// The renderer runs again at every run of the page's script: the player lives on beside the element it stands in.
const alive = new WeakMap<Node, { player: Player; run: number }>();

export default function render({ parentElement, data, setStateValue, setTriggerValue }: ComponentArguments): () => void {
  const callbacks = {
    track: (id: string) => setStateValue("track", id),
    selection: (selection: unknown) => setTriggerValue("selection", { selection }),
    segment: (segment: unknown) => setTriggerValue("segment", segment),
  };
  let entry = alive.get(parentElement);
  if (entry) entry.player.update(data, callbacks);
  else {
    const root = parentElement.querySelector<HTMLElement>(".earwitness-player")!;
    entry = { player: createPlayer(root, data, callbacks), run: 0 };
    alive.set(parentElement, entry);
  }
  const mine = entry;
  const run = ++mine.run;
  return () => {
    // A superseded render is cleaned up too, right before or after the next one: only the last one ends the player.
    setTimeout(() => {
      if (mine.run !== run) return;
      mine.player.destroy();
      if (alive.get(parentElement) === mine) alive.delete(parentElement);
    }, 0);
  };
}
