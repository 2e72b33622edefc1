// The page of a server: the user chooses a model, reads what it is, fills in a form, and sees the answer. Read this file first.
import { answer, errorMessage } from "./answers.js";
import { RequestError, fetchJson, postJson } from "./requests.js";
import { batchForm } from "./batch.js";
import { modelDetails, modelHeader, taskOf } from "./card.js";
import { startTranslations, button, collapsible, make, uniqueId } from "./elements.js";
import { control, row } from "./fields.js";
import { ignoreStrayDrops } from "./drop_zone.js";
import { codeExample } from "./code_example.js";
import { generationForm } from "./generation.js";

const SERIES = new Set(["forecasting", "anomaly_detection"]); // tasks whose rows are the moments of a series
const AT_ONCE = new Set(["image", "audio"]); // kinds of a single field that are sent as soon as a file is chosen
const main = document.getElementById("main");

/** The description of a model, with what the page needs beside it. */
async function model(name) {
  const data = await fetchJson(`v1/models/${encodeURIComponent(name)}`);
  const fields = data.fields ?? [];
  return { ...data, name, fields, card: data.card ?? {}, targets: data.card?.targets ?? [], path: `v1/models/${encodeURIComponent(name)}/predict` };
}

async function show(name) {
  main.setAttribute("aria-busy", "true");
  try {
    const chosen = await model(name);
    document.title = `${name} · danlu`;
    main.replaceChildren(modelHeader(chosen), ...body(chosen));
    window.scrollTo(0, 0);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    main.replaceChildren(errorMessage(error));
  } finally {
    main.setAttribute("aria-busy", "false");
  }
}

function body(chosen) {
  if (chosen.kind === "text") return [generationForm(chosen), codeExample(chosen, null), modelDetails(chosen)];
  if (SERIES.has(taskOf(chosen))) {
    return [make("section", { class: "card" }, make("h2", { text: "series.title" }), make("p", { text: "series.told" }), batchForm(chosen, true)), modelDetails(chosen)];
  }
  if (taskOf(chosen) === "image_generation") return [gallery(chosen), modelDetails(chosen)];
  const { node, current } = predictionForm(chosen);
  const many = batchForm(chosen, false);
  return [node, many && collapsible("batch.title", many), codeExample(chosen, current), modelDetails(chosen)];
}

/** The form and, beside it, the answer. `current` is the row in the form; the example where the form is empty. */
function predictionForm(chosen) {
  const alone = chosen.fields.length === 1 && AT_ONCE.has(chosen.fields[0].kind);
  const mixed = chosen.fields.some((each) => !each.required); // where all are required, none is marked
  const controls = chosen.fields.map((each) => control({ ...each, marked: mixed && each.required }, (whole) => whole && alone && form.requestSubmit()));
  const example = () => Object.fromEntries(chosen.fields.map((each) => [each.name, each.example]));
  const out = make("div", { class: "answer", "aria-live": "polite" });
  const rest = () => out.replaceChildren(make("p", { class: "empty", text: alone ? "answer.rests.file" : "answer.rests" }));
  const title = uniqueId("ask");
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
    make("div", { class: "bar" }, make("h2", { id: title, text: "form.title" }), fill, clear),
    mixed ? make("p", { class: "hint", text: "form.missing" }) : null,
    make("div", { class: `fields${chosen.fields.length > 30 ? " many" : ""}` }, controls.map((each) => each.node)),
    make("div", { class: "actions" }, go, make("span", { class: "hint keys", text: "form.keys" })));
  let latest = 0;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const each of controls) each.complain(null);
    const values = row(controls);
    if (values === null) return;
    const number = ++latest;
    out.setAttribute("aria-busy", "true");
    try {
      const { answers } = await postJson(chosen.path, { row: values });
      if (number !== latest) return;
      out.replaceChildren(...answers.flatMap((each) => answer(each, chosen)));
      if (getComputedStyle(beside).position !== "sticky") beside.scrollIntoView({ block: "nearest" }); // it is below the form
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (number !== latest) return;
      const at = controls.find((each) => each.name === error.field);
      at?.complain([() => error.message || error.text(), {}]);
      out.replaceChildren(at ? make("p", { class: "empty", text: ["answer.see", { field: at.name }] }) : errorMessage(error));
    } finally {
      if (number === latest) out.setAttribute("aria-busy", "false");
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  rest();
  const beside = make("section", { class: "card result", "text:aria-label": "answer.title" }, make("h2", { text: "answer.title" }), out);
  const filled = (each) => each.value() ?? null;
  const current = () => (controls.some((each) => filled(each) !== null) ? Object.fromEntries(controls.map((each) => [each.name, filled(each)])) : example());
  return { node: make("div", { class: `layout${alone ? " even" : ""}` }, form, beside), current };
}

/** Pictures that a generator makes: with new seeds each time, and of each class in turn where it has classes. */
function gallery(chosen) {
  const out = make("div", { "aria-live": "polite" });
  let made = 0;
  const go = button("gallery.go", async () => {
    const cell = (field, place) => (field.name === "seed" ? place : field.name === "class" && field.categories ? field.categories[place % field.categories.length] : field.example);
    const rows = Array.from({ length: 16 }, (_, place) => Object.fromEntries(chosen.fields.map((each) => [each.name, cell(each, made + place)])));
    made += rows.length;
    try {
      const { answers } = await postJson(chosen.path, { rows });
      out.replaceChildren(make("div", { class: "gallery" }, answers.map((each) => answer(each, chosen))));
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      out.replaceChildren(errorMessage(error));
    }
  }, { class: "primary" });
  return make("section", { class: "card" }, make("h2", { text: "gallery.title" }), make("p", { class: "actions" }, go), out);
}

/** Show the model in the address; a list to choose from where there are several. */
async function start() {
  startTranslations();
  ignoreStrayDrops();
  try {
    const { data } = await fetchJson("v1/models");
    const named = () => data.find((each) => each.id === decodeURIComponent(location.hash.slice(1)))?.id ?? data[0].id;
    if (data.length > 1) {
      const id = uniqueId("model");
      const select = make("select", { id, onchange: () => (location.hash = encodeURIComponent(select.value)) }, data.map((each) => make("option", { value: each.id }, each.id)));
      document.getElementById("chooser").append(make("label", { for: id, text: "chooser" }), " ", select);
      window.addEventListener("hashchange", () => show((select.value = named())));
      select.value = named();
    }
    await show(named());
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    main.replaceChildren(errorMessage(error));
  }
}

start();
