// For a page without a server: `EarwitnessPlayer.create(root, data)`.
import { createPlayer } from "./player";
import type { Callbacks, Player, PlayerData } from "./types";

export function create(root: HTMLElement, data: PlayerData, callbacks: Callbacks = {}): Player {
  return createPlayer(root, data, callbacks);
}
