// Answers as something to read: each form of answer that a task may give, by what it holds.
import { button, figure, make, percent, say, tell } from "./elements.js";
import { chart } from "./chart.js";

const FIRST = 5; // probabilities that are shown at once

/** An answer as a list of elements. `model` is what the server told of the model; its `past`, by variable, stands before a forecast. */
export const answer = (told, model) => drawn(told, model).flat(2).filter(Boolean);

function drawn(told, model) {
  const value = told.prediction;
  if (told.quantiles || told.times || isSeries(value)) return forecast(told, model);
  if (told.probabilities) return probable(value, told.probabilities, model);
  if (Array.isArray(told.words) && Array.isArray(value)) return tagged(told);
  if (typeof value === "number") return [...headline(figure(value, 6), model), off(model), ...rest(told)].filter(Boolean);
  if (isPicture(value)) return [make("img", { class: "made", src: value, "say:alt": "answer.picture" }), ...rest(told)];
  if (typeof value === "string") return [make("p", { class: "said" }, value), ...rest(told)];
  if (typeof value === "boolean") return [...headline(say(value ? "field.yes" : "field.no")), ...rest(told)];
  if (value && typeof value === "object" && !Array.isArray(value)) return [numbers(value), ...rest(told)];
  return [raw(told)];
}

const isSeries = (value) => {
  const all = Array.isArray(value) ? [value] : value && typeof value === "object" ? Object.values(value) : [];
  return all.length > 0 && all.every((each) => Array.isArray(each) && each.length > 1 && each.every((one) => one === null || typeof one === "number"));
};
const isPicture = (value) => typeof value === "string" && value.startsWith("data:image/");

function headline(text, model, share) {
  const target = model?.targets?.length === 1 ? model.targets[0] : null;
  return [
    target && make("p", { class: "asked" }, target),
    make("p", { class: "headline" }, make("strong", {}, text), share === undefined ? null : make("span", { class: "share" }, percent(share))),
  ].filter(Boolean);
}

/** How far off a number is as a rule, where that was measured. */
function off(model) {
  const split = ["test", "validation"].find((each) => typeof model.card?.scores?.[each]?.mae === "number");
  return split && make("p", { class: "hint", say: ["answer.off", { mae: figure(model.card.scores[split].mae), rows: model.card.scores[split].rows, split }] });
}

/** A distribution over classes, labels that are each true or not, or both of several targets. */
function probable(value, probabilities, model) {
  const entries = Object.entries(probabilities);
  if (entries.some(([, each]) => each && typeof each === "object")) {
    return Object.entries(value).map(([target, each]) => {
      const inner = probabilities[target];
      const shown = inner ? probable(each, inner, { targets: [target] }) : headline(figure(each, 6), { targets: [target] });
      return make("section", { class: "part" }, shown);
    });
  }
  const chosen = new Set(Array.isArray(value) ? value.map(String) : [String(value)]);
  const head = Array.isArray(value)
    ? headline(value.length ? value.join(", ") : say("answer.nothing"), model)
    : headline(String(value), model, probabilities[value]);
  return [...head, bars(entries, chosen)];
}

/** Probabilities as bars, the likeliest first. */
export function bars(entries, chosen) {
  const sorted = [...entries].sort(([, one], [, other]) => other - one);
  const list = make("ul", { class: "bars", "say:aria-label": "answer.probabilities" }, sorted.map(([name, share], place) => bar(name, share, chosen.has(name), place >= FIRST)));
  if (sorted.length <= FIRST) return list;
  const more = button(["answer.all", { count: sorted.length }], () => {
    for (const each of list.children) each.hidden = false;
    more.remove();
  }, { class: "quiet" });
  return make("div", {}, list, more);
}

function bar(name, share, chosen, hidden) {
  const fill = make("span", { class: "fill" });
  fill.style.width = `${Math.max(100 * share, 0.4)}%`;
  return make("li", { class: chosen ? "chosen" : null, hidden },
    make("span", { class: "of" }, name), make("span", { class: "share", title: String(share) }, percent(share)),
    make("span", { class: "track", "aria-hidden": "true" }, fill));
}

function numbers(values) {
  return make("dl", { class: "numbers" }, Object.entries(values).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "number" ? figure(value, 6) : String(value)))));
}

/** What an answer tells beside its prediction. */
function rest(told) {
  const beside = Object.entries(told).filter(([name, value]) => name !== "prediction" && value !== null);
  if (!beside.length) return [];
  const short = beside.filter(([, value]) => typeof value !== "object");
  const long = beside.filter(([, value]) => typeof value === "object");
  return [short.length ? numbers(Object.fromEntries(short)) : null, long.length ? raw(Object.fromEntries(long)) : null].filter(Boolean);
}

function raw(value) {
  const line = JSON.stringify(value);
  return make("pre", { tabindex: 0, class: "raw", "say:aria-label": "answer.rest" }, line.length < 80 ? line : JSON.stringify(value, null, 1));
}

/** Words with the tags they were given; spans are marked as a whole. */
function tagged(told) {
  const spans = told.spans ?? told.prediction.map((type, place) => ({ start: place, stop: place + 1, type }));
  const opens = new Map(spans.map((each) => [each.start, each]));
  const types = [...new Set(spans.map((each) => each.type))];
  const line = make("p", { class: "tagged" });
  for (let place = 0; place < told.words.length; ) {
    const span = opens.get(place);
    if (span && span.stop > place) {
      line.append(make("mark", { class: `tag tag-${types.indexOf(span.type) % 6}` }, told.words.slice(place, span.stop).join(" "), make("span", {}, span.type)), " ");
      place = span.stop;
    } else line.append(`${told.words[place++]} `);
  }
  return [line];
}

/** A forecast as a chart of each variable, and its numbers. */
function forecast(told, model) {
  const named = (value) => (Array.isArray(value) ? { [model.targets?.[0] ?? ""]: value } : value);
  const ahead = named(told.prediction);
  const quantiles = Object.entries(told.quantiles ?? {}).map(([name, value]) => [Number(name), named(value)]);
  quantiles.sort(([one], [other]) => one - other);
  const charts = Object.entries(ahead).map(([name, values]) => {
    const past = model.past?.[name] ?? [];
    const band = quantiles.length > 1 ? { low: quantiles[0][1][name], high: quantiles.at(-1)[1][name] } : null;
    return make("figure", { class: "chart" }, make("figcaption", {}, name), chart({ past, ahead: values, band, times: told.times, name }));
  });
  const steps = told.times ?? Object.values(ahead)[0].map((_, place) => place + 1);
  const table = sheet(["", ...Object.keys(ahead)], steps.map((step, place) => [String(step).replace("T", " "), ...Object.values(ahead).map((each) => figure(each[place], 6))]));
  return [told.series ? make("p", { class: "asked" }, told.series) : null, charts, make("details", {}, make("summary", { say: "answer.numbers" }), table)];
}

/** A table that may be wide: it scrolls by itself. */
export function sheet(heads, rows, told = "answer.table") {
  return make("div", { class: "sheet", tabindex: 0, role: "region", "say:aria-label": told }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((each) => make("th", { scope: "col" }, each)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((each) => make("td", {}, each)))))));
}

/** What went wrong, where an answer would stand. */
export const failure = (refused) => tell(make("p", { class: "wrong block", role: "alert" }), [() => refused.words(), {}]);
