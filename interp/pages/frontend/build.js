// Writes the page's script and style, or with --check fails where they are not what the sources give.
import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";

const outputs = { script: "../page.js", style: "../page.css" };

const common = { bundle: true, minify: true, write: false, charset: "utf8", legalComments: "none" };
const script = await build({
  ...common,
  entryPoints: ["src/main.jsx"],
  format: "esm",
  target: ["chrome123", "firefox120", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
});
const style = await build({ ...common, entryPoints: ["src/style.css"] });

const licences = "/* Preact and its signals: MIT, Jason Miller. d3: ISC, Mike Bostock. bitlens: Apache-2.0. */\n";
const built = {
  script: licences + script.outputFiles[0].text,
  style: style.outputFiles[0].text,
};
for (const [kind, text] of Object.entries(built)) {
  if (/<\/(script|style)|<!--/i.test(text)) throw new Error(`${kind}: would end its element in a page`);
  if (process.argv.includes("--check")) {
    if (readFileSync(outputs[kind], "utf8") !== text) {
      console.error(`${outputs[kind]} is not what src/ gives: npm run build`);
      process.exit(1);
    }
  } else {
    writeFileSync(outputs[kind], text);
  }
  console.log(`${outputs[kind]}: ${Buffer.byteLength(text)} bytes`);
}
