// The page of a server: a model is chosen, what it is is told, it is asked and it answers. Read this file first.
import { answer, failure } from "./answers.js";
import { Refused, read, send } from "./asking.js";
import { batch } from "./batch.js";
import { about, head, taskOf } from "./card.js";
import { begin, button, fold, make, unique } from "./elements.js";
import { control, row } from "./fields.js";
import { keepDropsIn } from "./files.js";
import { program } from "./program.js";
import { writing } from "./writing.js";

const SERIES = new Set(["forecasting", "anomaly_detection"]); // tasks whose rows are the moments of a series
const AT_ONCE = new Set(["image", "audio"]); // kinds that are asked about as soon as they are there, where nothing else is needed
const main = document.getElementById("main");

/** What the server tells of a model, with what the page needs of it. */
async function model(name) {
  const told = await read(`v1/models/${encodeURIComponent(name)}`);
  const fields = told.fields ?? [];
  return { ...told, name, fields, card: told.card ?? {}, targets: told.card?.targets ?? [], path: `v1/models/${encodeURIComponent(name)}/predict` };
}

async function show(name) {
  main.setAttribute("aria-busy", "true");
  try {
    const chosen = await model(name);
    document.title = `${name} · danlu`;
    main.replaceChildren(head(chosen), ...body(chosen));
    window.scrollTo(0, 0);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    main.replaceChildren(failure(error));
  } finally {
    main.setAttribute("aria-busy", "false");
  }
}

function body(chosen) {
  if (chosen.kind === "text") return [writing(chosen), program(chosen, null), about(chosen)];
  if (SERIES.has(taskOf(chosen))) {
    return [make("section", { class: "card" }, make("h2", { say: "series.title" }), make("p", { say: "series.told" }), batch(chosen, true)), about(chosen)];
  }
  if (taskOf(chosen) === "image_generation") return [gallery(chosen), about(chosen)];
  const { node, current } = questions(chosen);
  const many = batch(chosen, false);
  return [node, many && fold("batch.title", many), program(chosen, current), about(chosen)];
}

/** The form and, beside it, the answer. `current` is the row that the form holds, its example where it is not filled in. */
function questions(chosen) {
  const alone = chosen.fields.length === 1 && AT_ONCE.has(chosen.fields[0].kind);
  const mixed = chosen.fields.some((each) => !each.required); // where all are needed it need not be said
  const controls = chosen.fields.map((each) => control({ ...each, marked: mixed && each.required }, (whole) => whole && alone && form.requestSubmit()));
  const example = () => Object.fromEntries(chosen.fields.map((each) => [each.name, each.example]));
  const out = make("div", { class: "answer", "aria-live": "polite" });
  const rest = () => out.replaceChildren(make("p", { class: "empty", say: alone ? "answer.rests.file" : "answer.rests" }));
  const title = unique("ask");
  const go = button("form.go", null, { type: "submit", class: "primary" });
  const fill = button("form.example", async () => {
    for (const each of controls) await each.fill(example()[each.name]);
    form.requestSubmit();
  }, { class: "quiet" });
  const clear = button("form.clear", () => {
    for (const each of controls) {
      each.fill(null);
      each.complain(null);
    }
    rest();
  }, { class: "quiet" });
  const form = make("form", { class: "card ask", novalidate: true, "aria-labelledby": title },
    make("div", { class: "bar" }, make("h2", { id: title, say: "form.title" }), fill, clear),
    mixed ? make("p", { class: "hint", say: "form.missing" }) : null,
    make("div", { class: `fields${chosen.fields.length > 30 ? " many" : ""}` }, controls.map((each) => each.node)),
    make("div", { class: "actions" }, go, make("span", { class: "hint keys", say: "form.keys" })));
  let latest = 0;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const each of controls) each.complain(null);
    const asked = row(controls);
    if (asked === null) return;
    const mine = ++latest;
    out.setAttribute("aria-busy", "true");
    try {
      const { answers } = await send(chosen.path, { row: asked });
      if (mine !== latest) return;
      out.replaceChildren(...answers.flatMap((each) => answer(each, chosen)));
      if (getComputedStyle(beside).position !== "sticky") beside.scrollIntoView({ block: "nearest" }); // it stands below the form
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (mine !== latest) return;
      const at = controls.find((each) => each.name === error.field);
      at?.complain([() => error.message || error.words(), {}]);
      out.replaceChildren(at ? make("p", { class: "empty", say: ["answer.see", { field: at.name }] }) : failure(error));
    } finally {
      if (mine === latest) out.setAttribute("aria-busy", "false");
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  rest();
  const beside = make("section", { class: "card result", "say:aria-label": "answer.title" }, make("h2", { say: "answer.title" }), out);
  const filled = (each) => each.value() ?? null;
  const current = () => (controls.some((each) => filled(each) !== null) ? Object.fromEntries(controls.map((each) => [each.name, filled(each)])) : example());
  return { node: make("div", { class: `desk${alone ? " even" : ""}` }, form, beside), current };
}

/** Pictures that a model makes of nothing: of other seeds each time, and of each class in turn, where it takes them. */
function gallery(chosen) {
  const out = make("div", { "aria-live": "polite" });
  let made = 0;
  const go = button("gallery.go", async () => {
    const cell = (field, place) => (field.name === "seed" ? place : field.name === "class" && field.categories ? field.categories[place % field.categories.length] : field.example);
    const rows = Array.from({ length: 16 }, (_, place) => Object.fromEntries(chosen.fields.map((each) => [each.name, cell(each, made + place)])));
    made += rows.length;
    try {
      const { answers } = await send(chosen.path, { rows });
      out.replaceChildren(make("div", { class: "gallery" }, answers.map((each) => answer(each, chosen))));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      out.replaceChildren(failure(error));
    }
  }, { class: "primary" });
  return make("section", { class: "card" }, make("h2", { say: "gallery.title" }), make("p", { class: "actions" }, go), out);
}

/** The list of models, where there are several; the one in the address is shown. */
async function start() {
  begin();
  keepDropsIn();
  try {
    const { data } = await read("v1/models");
    const named = () => data.find((each) => each.id === decodeURIComponent(location.hash.slice(1)))?.id ?? data[0].id;
    if (data.length > 1) {
      const id = unique("model");
      const select = make("select", { id, onchange: () => (location.hash = encodeURIComponent(select.value)) }, data.map((each) => make("option", { value: each.id }, each.id)));
      document.getElementById("chooser").append(make("label", { for: id, say: "chooser" }), " ", select);
      window.addEventListener("hashchange", () => show((select.value = named())));
      select.value = named();
    }
    await show(named());
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    main.replaceChildren(failure(error));
  }
}

start();
