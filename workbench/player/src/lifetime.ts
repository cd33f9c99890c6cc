// The lifetime of what a Streamlit component shows: made once, given new data at every run of the page's script, ended with it.

interface Shown<Data, Callbacks> {
  update(data: Data, callbacks: Callbacks): void;
  destroy(): void;
}

/** What Streamlit hands to a component at every run of the page's script. */
export interface ComponentArguments<Data> {
  parentElement: HTMLElement | ShadowRoot;
  data: Data;
  setStateValue(name: string, value: unknown): void;
  setTriggerValue(name: string, value: unknown): void;
}

/** A component's renderer: shows the data in the element that `selector` finds, and hands the visitor's answers back. */
export function renderer<Data, Callbacks>(
  selector: string,
  create: (root: HTMLElement, data: Data, callbacks: Callbacks) => Shown<Data, Callbacks>,
  answers: (to: ComponentArguments<Data>) => Callbacks,
): (given: ComponentArguments<Data>) => () => void {
  // The renderer runs again at every run of the page's script: what it shows lives on beside the element it stands in.
  const alive = new WeakMap<Node, { shown: Shown<Data, Callbacks>; run: number }>();
  return (given) => {
    const { parentElement, data } = given;
    const callbacks = answers(given);
    let entry = alive.get(parentElement);
    if (entry) entry.shown.update(data, callbacks);
    else {
      const root = parentElement.querySelector<HTMLElement>(selector)!;
      entry = { shown: create(root, data, callbacks), run: 0 };
      alive.set(parentElement, entry);
    }
    const mine = entry;
    const run = ++mine.run;
    return () => {
      // A superseded render is cleaned up too, right before or after the next one: only the last one ends what is shown.
      setTimeout(() => {
        if (mine.run !== run) return;
        mine.shown.destroy();
        if (alive.get(parentElement) === mine) alive.delete(parentElement);
      }, 0);
    };
  };
}
