// Shows the answers of the server: one way for each form of answer, told apart by their keys.
import { button, formatNumber, make, formatPercent, translate, setText } from "./elements.js";
import { chart } from "./chart.js";

const FIRST = 5; // probabilities that are shown at once

/** The elements that show an answer. `model` is the description of the model; its `past`, by variable, is drawn before a forecast. */
export const answer = (response, model) => elementsOf(response, model).flat(2).filter(Boolean);

function elementsOf(response, model) {
  const value = response.prediction;
  if (response.quantiles || response.times || isSeries(value)) return forecast(response, model);
  if (response.probabilities) return distribution(value, response.probabilities, model);
  if (Array.isArray(response.words) && Array.isArray(value)) return taggedWords(response);
  if (typeof value === "number") return [...headline(formatNumber(value, 6), model), usualError(model), ...otherValues(response)].filter(Boolean);
  if (isPicture(value)) return [make("img", { class: "made", src: value, "text:alt": "answer.picture" }), ...otherValues(response)];
  if (typeof value === "string") return [make("p", { class: "said" }, value), ...otherValues(response)];
  if (typeof value === "boolean") return [...headline(translate(value ? "field.yes" : "field.no")), ...otherValues(response)];
  if (value && typeof value === "object" && !Array.isArray(value)) return [numbers(value), ...otherValues(response)];
  return [jsonBlock(response)];
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
    make("p", { class: "headline" }, make("strong", {}, text), share === undefined ? null : make("span", { class: "share" }, formatPercent(share))),
  ].filter(Boolean);
}

/** The mean absolute error of the model, where it was measured. */
function usualError(model) {
  const split = ["test", "validation"].find((each) => typeof model.card?.scores?.[each]?.mae === "number");
  return split && make("p", { class: "hint", text: ["answer.off", { mae: formatNumber(model.card.scores[split].mae), rows: model.card.scores[split].rows, split }] });
}

/** A distribution over classes, labels that are each true or not, or both of several targets. */
function distribution(value, probabilities, model) {
  const entries = Object.entries(probabilities);
  if (entries.some(([, each]) => each && typeof each === "object")) {
    return Object.entries(value).map(([target, each]) => {
      const inner = probabilities[target];
      const shown = inner ? distribution(each, inner, { targets: [target] }) : headline(formatNumber(each, 6), { targets: [target] });
      return make("section", { class: "part" }, shown);
    });
  }
  const chosen = new Set(Array.isArray(value) ? value.map(String) : [String(value)]);
  const head = Array.isArray(value)
    ? headline(value.length ? value.join(", ") : translate("answer.nothing"), model)
    : headline(String(value), model, probabilities[value]);
  return [...head, bars(entries, chosen)];
}

/** Probabilities as bars, the likeliest first. */
export function bars(entries, chosen) {
  const sorted = [...entries].sort(([, one], [, other]) => other - one);
  const list = make("ul", { class: "bars", "text:aria-label": "answer.probabilities" }, sorted.map(([name, share], place) => bar(name, share, chosen.has(name), place >= FIRST)));
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
    make("span", { class: "of" }, name), make("span", { class: "share", title: String(share) }, formatPercent(share)),
    make("span", { class: "track", "aria-hidden": "true" }, fill));
}

function numbers(values) {
  return make("dl", { class: "numbers" }, Object.entries(values).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "number" ? formatNumber(value, 6) : String(value)))));
}

/** The values of an answer beside its prediction. */
function otherValues(response) {
  const beside = Object.entries(response).filter(([name, value]) => name !== "prediction" && value !== null);
  if (!beside.length) return [];
  const short = beside.filter(([, value]) => typeof value !== "object");
  const long = beside.filter(([, value]) => typeof value === "object");
  return [short.length ? numbers(Object.fromEntries(short)) : null, long.length ? jsonBlock(Object.fromEntries(long)) : null].filter(Boolean);
}

function jsonBlock(value) {
  const line = JSON.stringify(value);
  return make("pre", { tabindex: 0, class: "raw", "text:aria-label": "answer.rest" }, line.length < 80 ? line : JSON.stringify(value, null, 1));
}

/** Words with their predicted tags; the words of a span are marked together. */
function taggedWords(response) {
  const spans = response.spans ?? response.prediction.map((type, place) => ({ start: place, stop: place + 1, type }));
  const opens = new Map(spans.map((each) => [each.start, each]));
  const types = [...new Set(spans.map((each) => each.type))];
  const line = make("p", { class: "tagged" });
  for (let place = 0; place < response.words.length; ) {
    const span = opens.get(place);
    if (span && span.stop > place) {
      line.append(make("mark", { class: `tag tag-${types.indexOf(span.type) % 6}` }, response.words.slice(place, span.stop).join(" "), make("span", {}, span.type)), " ");
      place = span.stop;
    } else line.append(`${response.words[place++]} `);
  }
  return [line];
}

/** A forecast as a chart of each variable, and its numbers. */
function forecast(response, model) {
  const named = (value) => (Array.isArray(value) ? { [model.targets?.[0] ?? ""]: value } : value);
  const ahead = named(response.prediction);
  const quantiles = Object.entries(response.quantiles ?? {}).map(([name, value]) => [Number(name), named(value)]);
  quantiles.sort(([one], [other]) => one - other);
  const charts = Object.entries(ahead).map(([name, values]) => {
    const past = model.past?.[name] ?? [];
    const band = quantiles.length > 1 ? { low: quantiles[0][1][name], high: quantiles.at(-1)[1][name] } : null;
    return make("figure", { class: "chart" }, make("figcaption", {}, name), chart({ past, ahead: values, band, times: response.times, name }));
  });
  const steps = response.times ?? Object.values(ahead)[0].map((_, place) => place + 1);
  const table = scrollingTable(["", ...Object.keys(ahead)], steps.map((step, place) => [String(step).replace("T", " "), ...Object.values(ahead).map((each) => formatNumber(each[place], 6))]));
  return [response.series ? make("p", { class: "asked" }, response.series) : null, charts, make("details", {}, make("summary", { text: "answer.numbers" }), table)];
}

/** A table with scroll bars of its own, since it may be wide. */
export function scrollingTable(heads, rows, response = "answer.table") {
  return make("div", { class: "sheet", tabindex: 0, role: "region", "text:aria-label": response }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((each) => make("th", { scope: "col" }, each)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((each) => make("td", {}, each)))))));
}

/** An error, in the place of an answer. */
export const errorMessage = (refused) => setText(make("p", { class: "wrong block", role: "alert" }), [() => refused.text(), {}]);
