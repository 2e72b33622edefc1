// What a model is: one sentence, its score beside the baseline, its data and size; further down all details.
import { scrollingTable } from "./answers.js";
import { formatNumber, collapsible, make, formatPercent, translate, translateName, setText } from "./elements.js";

// The first of these scores that a model has is shown large. Those in SHARES are shares, from 0 to 1.
const CHIEF = ["accuracy", "span_f1", "f1", "rmse", "word_error_rate", "character_error_rate", "bleu", "mase", "mae", "perplexity", "reconstruction_error", "frechet_distance"];
const SECOND = ["auroc", "r2", "mae", "f1", "character_error_rate", "chrf", "bits_per_byte"];
const SHARES = new Set(["accuracy", "span_f1", "f1", "precision", "recall", "word_error_rate", "character_error_rate", "top_k"]);
const SPLITS = ["test", "validation", "train"];

/** The name of a model's task. */
export const taskOf = (model) => model.card.task ?? "";

function shown(name, value) {
  const last = name.split("/").at(-1);
  if (last === "auroc") return (Math.floor(value * 1e4) / 1e4).toFixed(4); // rounded down, so that 1 means 1
  if (last === "r2") return String(Math.round(value * 1e4) / 1e4 || 0);
  return SHARES.has(last) ? formatPercent(value) : formatNumber(value);
}

const numbersOf = (scores) => Object.entries(scores ?? {}).filter(([name, value]) => typeof value === "number" && name !== "rows");

/** What the model predicts, in one sentence. */
function sentence(model) {
  const task = taskOf(model);
  const target = model.targets.join(", ") || "–";
  const from = model.fields.length === 1 ? translate(`from.${model.fields[0].kind}`) : translate("from.fields", { count: model.fields.length });
  const classes = model.card.classes ?? [];
  return translate(`sentence.${task}`, { target, from, classes, description: model.card.description || task });
}

function tile(label, value, beside, meter = null) {
  return make("div", { class: "tile" }, make("dt", { text: label }), make("dd", {}, make("strong", {}, value), meter, beside && make("span", { class: "hint", text: beside })));
}

/** A bar from 0 to 1 with a mark at the baseline. */
function meter(value, guess) {
  const fill = make("span", { class: "fill" });
  fill.style.width = `${100 * Math.min(Math.max(value, 0), 1)}%`;
  const mark = guess === undefined ? null : make("span", { class: "guess" });
  if (mark) mark.style.left = `${100 * Math.min(Math.max(guess, 0), 1)}%`;
  return make("span", { class: "track", "aria-hidden": "true" }, fill, mark);
}

/** The name of a model, what it does, and a few numbers. */
export function modelHeader(model) {
  const scores = model.card.scores ?? {};
  const split = SPLITS.find((each) => numbersOf(scores[each]).length);
  const baseline = scores.baseline?.split === split ? scores.baseline : {};
  const tiles = [];
  const chief = split && CHIEF.find((each) => typeof scores[split][each] === "number");
  for (const name of [chief, split && SECOND.find((each) => each !== chief && typeof scores[split][each] === "number")].filter(Boolean)) {
    const guess = baseline[name];
    const label = name === chief ? ["tile.score", { score: () => translateName("score", name), split, rows: scores[split].rows }] : [() => translateName("score", name), {}];
    const beside = guess === undefined ? null : ["tile.guess", { value: shown(name, guess) }];
    tiles.push(tile(label, shown(name, scores[split][name]), beside, name === "accuracy" ? meter(scores[split][name], guess) : null));
  }
  const provenance = model.card.provenance ?? {};
  const rows = provenance.data?.rows?.train;
  if (rows) tiles.push(tile("tile.learnt", rows.toLocaleString("en"), ["tile.of", { origin: provenance.data.origin }]));
  if (provenance.parameters) tiles.push(tile("tile.size", provenance.parameters.toLocaleString("en"), ["tile.family", { family: model.card.model ?? model.card.exporter?.name ?? "" }]));
  return make("section", { class: "head" },
    make("p", { class: "kicker", text: [() => translateName("task", taskOf(model)), {}] }),
    make("h1", {}, model.name.replaceAll("_", "_\u200b")),
    make("p", { class: "lead", text: [() => sentence(model), {}] }),
    tiles.length ? make("dl", { class: "tiles" }, tiles) : null);
}

function scoreTable(scores) {
  const splits = SPLITS.filter((each) => numbersOf(scores[each]).length);
  const columns = [...splits, ...(numbersOf(scores.baseline).length ? ["baseline"] : [])];
  const names = [...new Set(columns.flatMap((each) => numbersOf(scores[each]).map(([name]) => name)))];
  const table = scrollingTable(["", ...columns], names.map((name) => [translateName("score", name), ...columns.map((each) => (typeof scores[each][name] === "number" ? shown(name, scores[each][name]) : ""))]), "about.scores");
  [...table.querySelectorAll("thead th")].slice(1).forEach((each, place) => setText(each, `split.${columns[place]}`));
  [...table.querySelectorAll("tbody tr")].forEach((each, place) => setText(each.cells[0], [() => translateName("score", names[place]), {}]));
  return table;
}

/** The confusion matrix: the darker a cell, the more rows it has. */
function confusion(matrix, classes) {
  const rows = matrix.map((row, place) => {
    const all = row.reduce((sum, each) => sum + each, 0) || 1;
    return make("tr", {}, make("th", { scope: "row" }, String(classes[place])), row.map((each) => {
      const cell = make("td", {}, each || "");
      cell.style.setProperty("--share", `${Math.round((100 * each) / all)}%`);
      return cell;
    }));
  });
  return make("div", { class: "sheet", tabindex: 0, role: "region", "text:aria-label": "about.confusion" }, make("table", { class: "confusion" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "about.true" }), classes.map((each) => make("th", { scope: "col" }, String(each))))),
    make("tbody", {}, rows)));
}

function list(entries) {
  const kept = entries.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return make("dl", { class: "list" }, kept.map(([key, value]) => make("div", {}, make("dt", { text: key }), make("dd", {}, Array.isArray(value) ? make("span", { text: value }) : String(value)))));
}

/** All details of a model. */
export function modelDetails(model) {
  const { scores = {}, provenance = {}, classes = [], changes = [], proof } = model.card;
  const split = SPLITS.find((each) => Array.isArray(scores[each]?.confusion_matrix));
  const matrix = split && classes.length <= 12 && classes.length === scores[split].confusion_matrix.length ? confusion(scores[split].confusion_matrix, classes) : null;
  const data = provenance.data ?? {};
  const rows = Object.entries(data.rows ?? {}).filter(([, count]) => count);
  return collapsible("about.title",
    list([
      ["about.description", model.card.description], ["about.form", [`form.${model.card.form ?? "artifact"}`, {}]], ["about.family", model.card.model],
      ["about.parameters", provenance.parameters?.toLocaleString("en")], ["about.context", model.context?.toLocaleString("en")],
      ["about.changes", changes.map((each) => each.name).join(", ")], ["about.proof", proof && ["about.proven", { rows: proof.rows, difference: proof.largest_difference }]],
    ]),
    Object.values(scores).some((each) => numbersOf(each).length) ? [make("h3", { text: "about.scores" }), scoreTable(scores)] : null,
    matrix && [make("h3", { text: "about.confusion" }), matrix],
    make("h3", { text: "about.data" }),
    list([
      ["about.origin", data.origin], ["about.rows", rows.length ? [() => rows.map(([name, count]) => `${translate(`split.${name}`)} ${count.toLocaleString("en")}`).join(" · "), {}] : null],
      ["about.digest", data.digest], ["about.steps", provenance.step && ["about.of_steps", { step: provenance.step, best: provenance.best_step }]],
      ["about.versions", Object.entries(provenance.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(" · ")],
    ]));
}
