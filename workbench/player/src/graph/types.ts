// The data the event graph shows. Python writes the same shape (workbench/graph_view/data.py); keep both in step.

export interface GraphNode {
  kind: "audio" | "video";
  start: number;
  end: number;
  /** Start and end in words, such as "1.1–1.4 s". */
  span: string;
  contribution: number;
  /** False for the silence or grey that follows the clip. */
  present: boolean;
}

export interface GraphEdge {
  source: number;
  target: number;
  /** Null where the measure says nothing about the link. */
  importance: number | null;
  weight: number;
  words: string;
}

export interface Parts {
  nodes: number[];
  edges: number[];
}

export interface GraphData {
  graphId: string;
  /** The window in seconds of the clip; the sound begins at `start`. */
  start: number;
  end: number;
  duration: number;
  sound: string;
  spectrogram: string;
  video: string | null;
  /** The pictures of all video nodes side by side. */
  strip: { url: string; count: number } | null;
  nodes: GraphNode[];
  edges: GraphEdge[];
  target: string;
  measure: string;
  /** Whether importances have a sign. */
  signed: boolean;
  leftOut: Parts;
  /** Whether there is a server that can leave something out. */
  editable: boolean;
}

export interface GraphCallbacks {
  leaveOut?(parts: Parts): void;
  putBack?(all: boolean): void;
}

export type Layout = "time" | "free";
