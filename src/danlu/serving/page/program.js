// The same question from a program: commands that can be copied as they stand.
import { button, fold, make, tell } from "./elements.js";

const LONG = 300; // letters of a value beyond which it stands for itself as "..."
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const at = (path) => new URL(path, document.baseURI).href;

/** Commands for a model; `row()` gives the row that the form holds, where there is a form. */
export function program(model, row) {
  const code = make("pre", { class: "raw", tabindex: 0 });
  const copy = button("program.copy", async () => {
    await navigator.clipboard.writeText(code.textContent);
    tell(copy, "program.copied");
    setTimeout(() => tell(copy, "program.copy"), 2000);
  }, { class: "quiet" });
  const made = fold("program.title", make("p", { say: "program.told" }), code, navigator.clipboard ? copy : null,
    make("p", { class: "hint" }, make("span", { say: "program.schema" }), " ", make("code", {}, at("openapi.json"))));
  made.addEventListener("toggle", () => (code.textContent = row ? rows(model, row()) : text(model)));
  return made;
}

function rows(model, row) {
  const only = model.fields.length === 1 && ["image", "audio"].includes(model.fields[0].kind) ? model.fields[0].kind : null;
  if (only) return `curl ${at(model.path)} \\\n  -H 'Content-Type: ${only}/*' --data-binary @${only === "image" ? "picture.png" : "recording.wav"}`;
  const short = Object.fromEntries(Object.entries(row).map(([name, value]) => [name, typeof value === "string" && value.length > LONG ? "..." : value]));
  return `curl ${at(model.path)} \\\n  -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify({ row: short }))}`;
}

function text(model) {
  const asked = model.chat
    ? `client.chat.completions.create(\n    model=${JSON.stringify(model.id)}, messages=[{"role": "user", "content": "..."}], max_tokens=100)\nprint(told.choices[0].message.content)`
    : `client.completions.create(model=${JSON.stringify(model.id)}, prompt="...", max_tokens=100)\nprint(told.choices[0].text)`;
  return `from openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(at("v1"))}, api_key="none")\ntold = ${asked}`;
}
