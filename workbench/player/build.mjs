// Builds the committed bundles. Same sources and same lock file give the same bytes.
import { build } from "esbuild";

const folder = process.argv[2] ?? "dist";
const shared = {
  bundle: true,
  minify: true,
  charset: "utf8",
  target: ["es2022", "chrome108", "firefox110", "safari16"],
  legalComments: "none",
  logLevel: "info",
};

// The Streamlit component: an ES module with a default export.
await build({ ...shared, entryPoints: ["src/component.ts"], outfile: `${folder}/player.js`, format: "esm" });
// The same player for a page without a server: one global, `EarwitnessPlayer`.
await build({
  ...shared,
  entryPoints: ["src/standalone.ts"],
  outfile: `${folder}/standalone.js`,
  format: "iife",
  globalName: "EarwitnessPlayer",
});
await build({ ...shared, entryPoints: ["src/player.css"], outfile: `${folder}/player.css` });

// The event graph, in the same two forms.
await build({ ...shared, entryPoints: ["src/graph/component.ts"], outfile: `${folder}/graph.js`, format: "esm" });
await build({
  ...shared,
  entryPoints: ["src/graph/standalone.ts"],
  outfile: `${folder}/graph-standalone.js`,
  format: "iife",
  globalName: "EarwitnessGraph",
});
await build({ ...shared, entryPoints: ["src/graph/graph.css"], outfile: `${folder}/graph.css` });
