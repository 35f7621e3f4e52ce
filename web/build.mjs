// Builds the page into agentic_ray/service/page/static, or into the folder that is given.
//
//   node build.mjs [FOLDER]
//
// manifest.json says what it was built of, so that a test can tell an old bundle without Node.

import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../agentic_ray/service/page/static");
const sources = ["build.mjs", "icon.svg", "index.html", "package-lock.json", "package.json", "src", "tsconfig.json"];
const libraries = ["preact", "uplot"];

const sha256 = (content) => createHash("sha256").update(content).digest("hex");

async function filesOf(path) {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => null);
  if (entries === null) return [path];
  return (await Promise.all(entries.map((entry) => filesOf(join(path, entry.name))))).flat();
}

async function digestOfSources() {
  const files = (await Promise.all(sources.map((name) => filesOf(join(here, name))))).flat();
  const named = files.map((file) => [relative(here, file).replaceAll("\\", "/"), file]);
  named.sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = await Promise.all(named.map(async ([name, file]) => `${sha256(await readFile(file))}  ${name}\n`));
  return sha256(lines.join(""));
}

async function licences() {
  const texts = await Promise.all(
    libraries.map(async (name) => {
      const folder = join(here, "node_modules", name);
      const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
      return `${name} ${version}\n\n${await readFile(join(folder, "LICENSE"), "utf8")}`;
    }),
  );
  return `page.js and page.css contain these libraries.\n\n${texts.join("\n\n")}`;
}

const built = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx" },
  bundle: true,
  charset: "utf8",
  format: "esm",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  minify: true,
  outdir: target,
  target: ["chrome109", "firefox115", "safari16"],
  write: false,
});

const files = Object.fromEntries(built.outputFiles.map((file) => [relative(target, file.path), file.contents]));
for (const name of ["index.html", "icon.svg"]) files[name] = await readFile(join(here, name));
files["licences.txt"] = await licences();

await mkdir(target, { recursive: true });
const before = await readFile(join(target, "manifest.json"), "utf8").catch(() => "{}");
for (const name of Object.keys(JSON.parse(before))) {
  if (name !== "sources" && !(name in files)) await rm(join(target, name), { force: true });
}
const manifest = { sources: await digestOfSources() };
for (const name of Object.keys(files).sort()) {
  manifest[name] = sha256(files[name]);
  await writeFile(join(target, name), files[name]);
}
await writeFile(join(target, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
