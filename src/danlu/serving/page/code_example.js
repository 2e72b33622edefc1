// The same request from a program: commands to copy.
import { button, collapsible, make, setText } from "./elements.js";

const LONG = 300; // characters of a value above which "..." is shown in its place
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const absolute = (path) => new URL(path, document.baseURI).href;

/** Commands for a model; `row()` gives the row that the form holds, where there is a form. */
export function codeExample(model, row) {
  const code = make("pre", { class: "raw", tabindex: 0 });
  const copy = button("program.copy", async () => {
    await navigator.clipboard.writeText(code.textContent);
    setText(copy, "program.copied");
    setTimeout(() => setText(copy, "program.copy"), 2000);
  }, { class: "quiet" });
  const details = collapsible("program.title", make("p", { text: "program.told" }), code, navigator.clipboard ? copy : null,
    make("p", { class: "hint" }, make("span", { text: "program.schema" }), " ", make("code", {}, absolute("openapi.json"))));
  details.addEventListener("toggle", () => (code.textContent = row ? rows(model, row()) : text(model)));
  return details;
}

function rows(model, row) {
  const only = model.fields.length === 1 && ["image", "audio"].includes(model.fields[0].kind) ? model.fields[0].kind : null;
  if (only) return `curl ${absolute(model.path)} \\\n  -H 'Content-Type: ${only}/*' --data-binary @${only === "image" ? "picture.png" : "recording.wav"}`;
  const short = Object.fromEntries(Object.entries(row).map(([name, value]) => [name, typeof value === "string" && value.length > LONG ? "..." : value]));
  return `curl ${absolute(model.path)} \\\n  -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify({ row: short }))}`;
}

function text(model) {
  const call = model.chat
    ? `client.chat.completions.create(\n    model=${JSON.stringify(model.id)}, messages=[{"role": "user", "content": "..."}], max_tokens=100)\nprint(answer.choices[0].message.content)`
    : `client.completions.create(model=${JSON.stringify(model.id)}, prompt="...", max_tokens=100)\nprint(answer.choices[0].text)`;
  return `from openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(absolute("v1"))}, api_key="none")\nanswer = ${call}`;
}
