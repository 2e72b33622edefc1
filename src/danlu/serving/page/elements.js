// Elements whose texts follow the language. Nothing here, or anywhere on the page, makes HTML out of text.
import { words } from "./words.js";

const STORE = "danlu-language";
const SVG = new Set(["svg", "g", "path", "line", "circle", "text", "title"]);
const bound = new WeakMap(); // element -> {"" or attribute: [key, values]}
let language = "en";
let count = 0;

/** The words of a key in the language that is shown. */
export function say(key, values = {}) {
  const found = words[language][key] ?? words.en[key] ?? key;
  return typeof found === "function" ? found(values) : found;
}

/** The words of a name that the dictionary may not know (a metric, a task): then the name itself. */
export function sayName(kind, name) {
  return words[language][`${kind}.${name}`] ?? words.en[`${kind}.${name}`] ?? String(name).replaceAll("_", " ");
}

export const spoken = () => language;

/** A number with few digits: 0.1234, 12.3, 1,234,567. */
export function figure(value, digits = 4) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const large = Math.abs(value) >= 10 ** digits;
  const scientific = value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e15);
  return value.toLocaleString("en", scientific ? { notation: "scientific", maximumSignificantDigits: digits } : large ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits });
}

/** A share as a percentage: 98.9 %. What is nearly none or nearly all is not rounded to it. */
export function percent(value) {
  if (value > 0 && value < 0.0005) return "< 0.1 %";
  if (value < 1 && value > 0.9995) return "> 99.9 %";
  return `${(100 * value).toFixed(1)} %`;
}

function put(node, place, [key, values]) {
  const text = typeof key === "function" ? key() : say(key, values);
  if (place === "") node.textContent = text;
  else node.setAttribute(place, text);
}

/** Give a node (or one of its attributes) the words of a key, or of a function that says them; they follow the language. */
export function tell(node, told, place = "") {
  const pair = Array.isArray(told) ? told : [told, {}];
  const all = bound.get(node) ?? {};
  all[place] = pair;
  bound.set(node, all);
  node.dataset.told = "";
  put(node, place, pair);
  return node;
}

/** An element: `make("p", {class: "hint", say: "key" or ["key", values]}, children)`; "say:title" says an attribute, "onclick" hears. */
export function make(tag, about = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "say") tell(node, value);
    else if (name.startsWith("say:")) tell(node, value, name.slice(4));
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An id that no other element has. */
export const unique = (name) => `${name}-${++count}`;

/** A button with words. */
export const button = (told, onclick, about = {}) => make("button", { type: "button", say: told, onclick, ...about });

/** Something to open: a summary and what is under it. */
export function fold(told, ...children) {
  return make("details", { class: "fold" }, make("summary", {}, make("h2", { say: told })), make("div", { class: "inside" }, children));
}

function remembered() {
  try {
    return localStorage.getItem(STORE);
  } catch {
    return null; // storage is forbidden
  }
}

/** Show the page in a language ("en" or "zh") and remember it. */
export function speak(wanted, remember = true) {
  language = wanted === "zh" ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  if (remember) {
    try {
      localStorage.setItem(STORE, language);
    } catch {
      // it is not remembered, then
    }
  }
  for (const node of document.querySelectorAll("[data-told]")) {
    for (const [place, pair] of Object.entries(bound.get(node) ?? {})) put(node, place, pair);
  }
  for (const each of document.querySelectorAll("[data-language]")) each.setAttribute("aria-pressed", String(each.dataset.language === language));
}

/** Begin: the language that was chosen before, or the browser's; the buttons that choose; the words of index.html. */
export function begin() {
  for (const node of document.querySelectorAll("[data-say]")) tell(node, node.dataset.say);
  for (const node of document.querySelectorAll("[data-say-label]")) tell(node, node.dataset.sayLabel, "aria-label");
  for (const each of document.querySelectorAll("[data-language]")) each.addEventListener("click", () => speak(each.dataset.language));
  const first = remembered() ?? (navigator.languages ?? [navigator.language]).find((each) => /^(zh|en)/i.test(each)) ?? "en";
  speak(/^zh/i.test(first) ? "zh" : "en", false);
}
