// Elements whose texts change with the language. Nothing on the page ever parses text as HTML.
import { translations } from "./translations.js";

const STORE = "danlu-language";
const SVG = new Set(["svg", "g", "path", "line", "circle", "text", "title"]);
const textsOfNodes = new WeakMap(); // element -> {attribute, or "" for its content: [key, values]}
let language = "en";
let count = 0;

/** The text of a key in the language that is shown. */
export function translate(key, values = {}) {
  const found = translations[language][key] ?? translations.en[key] ?? key;
  return typeof found === "function" ? found(values) : found;
}

/** The text of a name (of a metric or task); the name itself where it is not translated. */
export function translateName(kind, name) {
  return translations[language][`${kind}.${name}`] ?? translations.en[`${kind}.${name}`] ?? String(name).replaceAll("_", " ");
}

export const currentLanguage = () => language;

/** A number with few digits: 0.1234, 12.3, 1,234,567. */
export function formatNumber(value, digits = 4) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const large = Math.abs(value) >= 10 ** digits;
  const scientific = value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e15);
  return value.toLocaleString("en", scientific ? { notation: "scientific", maximumSignificantDigits: digits } : large ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits });
}

/** A share as a percentage: 98.9 %. A share is never rounded to 0 or 100 %. */
export function formatPercent(value) {
  if (value > 0 && value < 0.0005) return "< 0.1 %";
  if (value < 1 && value > 0.9995) return "> 99.9 %";
  return `${(100 * value).toFixed(1)} %`;
}

function applyText(node, place, [key, values]) {
  const text = typeof key === "function" ? key() : translate(key, values);
  if (place === "") node.textContent = text;
  else node.setAttribute(place, text);
}

/** Set the text of a node (or of one of its attributes): [key, values] or a function. It changes with the language. */
export function setText(node, text, place = "") {
  const pair = Array.isArray(text) ? text : [text, {}];
  const all = textsOfNodes.get(node) ?? {};
  all[place] = pair;
  textsOfNodes.set(node, all);
  node.dataset.translated = "";
  applyText(node, place, pair);
  return node;
}

/** An element: `make("p", {class: "hint", text: "key" or ["key", values]}, children)`. "text:title" translates an attribute, "onclick" adds a listener. */
export function make(tag, about = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") setText(node, value);
    else if (name.startsWith("text:")) setText(node, value, name.slice(5));
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An id that no other element has. */
export const uniqueId = (name) => `${name}-${++count}`;

/** A button with a translated text. */
export const button = (text, onclick, about = {}) => make("button", { type: "button", text: text, onclick, ...about });

/** A summary that opens to show its children. */
export function collapsible(text, ...children) {
  return make("details", { class: "fold" }, make("summary", {}, make("h2", { text: text })), make("div", { class: "inside" }, children));
}

function storedLanguage() {
  try {
    return localStorage.getItem(STORE);
  } catch {
    return null; // storage is forbidden
  }
}

/** Show the page in a language ("en" or "zh") and remember it. */
export function setLanguage(wanted, remember = true) {
  language = wanted === "zh" ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  if (remember) {
    try {
      localStorage.setItem(STORE, language);
    } catch {
      // storage is forbidden: the language is not remembered
    }
  }
  for (const node of document.querySelectorAll("[data-translated]")) {
    for (const [place, pair] of Object.entries(textsOfNodes.get(node) ?? {})) applyText(node, place, pair);
  }
  for (const each of document.querySelectorAll("[data-language]")) each.setAttribute("aria-pressed", String(each.dataset.language === language));
}

/** Show the language chosen before, or the browser's, and connect the buttons that choose one. */
export function startTranslations() {
  for (const node of document.querySelectorAll("[data-text]")) setText(node, node.dataset.text);
  for (const node of document.querySelectorAll("[data-text-label]")) setText(node, node.dataset.textLabel, "aria-label");
  for (const each of document.querySelectorAll("[data-language]")) each.addEventListener("click", () => setLanguage(each.dataset.language));
  const first = storedLanguage() ?? (navigator.languages ?? [navigator.language]).find((each) => /^(zh|en)/i.test(each)) ?? "en";
  setLanguage(/^zh/i.test(first) ? "zh" : "en", false);
}
