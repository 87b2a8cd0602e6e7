// Bundles the page into s2m3/page, with the licences of all that went into it. Fetches nothing.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";

const out = path.resolve("../s2m3/page");
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });

await build({
  entryPoints: { page: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none", // all of them are in LICENSES.txt
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg", "page.webmanifest"]) await copyFile(name, path.join(out, name));

// All that could be in the bundle: mqtt comes bundled with what it needs, so the lock file knows best.
const { packages } = JSON.parse(await readFile("package-lock.json", "utf8"));
const parts = [];
for (const [folder, { version, license, dev, optional }] of Object.entries(packages)) {
  if (folder === "" || dev || optional) continue;
  const file = (await readdir(folder)).find((entry) => /^(licen[cs]e|copying)/i.test(entry));
  const name = folder.replace(/^.*node_modules\//, "");
  parts.push(`${name} ${version} (${license})\n\n${file ? await readFile(path.join(folder, file), "utf8") : ""}`);
}
await writeFile(path.join(out, "LICENSES.txt"), parts.join(`\n${"-".repeat(80)}\n`));
