// A control for each kind of field. Each has: name, node, value() (JSON; undefined where a required one is missing), fill(value), complain(message).
import { formatNumber, make, setText, uniqueId } from "./elements.js";
import { fieldFrame } from "./field_frame.js";
import { imageControl } from "./pictures.js";
import { audioControl } from "./recordings.js";

const FEW = 12; // categories that are shown as a list to choose from

/** The control of a field of the server's description. `changed` is called when the user has changed it. */
export function control(field, changed) {
  const parts = (KINDS[field.kind] ?? text)(field, changed);
  parts.name = field.name;
  return parts;
}

/** A control whose value is the text of one input. `read` turns text that is not empty into JSON, `write` JSON into text. */
function inputControl(field, changed, inner, { hint = null, read = (typed) => typed, write = String, note = null } = {}) {
  const parts = fieldFrame(field, inner, { hint });
  const input = parts.target;
  const noteNode = note && make("p", { class: "note", hidden: true, role: "status" });
  if (noteNode) parts.node.append(noteNode);
  function look() {
    parts.complain(null);
    const label = note?.(input.value.trim());
    if (!noteNode) return;
    noteNode.hidden = !label;
    if (label) setText(noteNode, label);
  }
  input.addEventListener("input", look);
  input.addEventListener("change", () => changed(false));
  return {
    ...parts,
    value() {
      const typed = input.value.trim();
      if (typed !== "") return read(field.kind === "text" ? input.value : typed);
      return field.required && field.kind !== "text" ? undefined : field.required ? "" : null;
    },
    fill(value) {
      input.value = value === null || value === undefined ? "" : write(value);
      look();
    },
  };
}

// What is no number is sent as it was typed: the server says what is wrong with it.
const asNumber = (typed) => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(typed) && Math.abs(Number(typed)) < 1e300 ? Number(typed) : typed);
const listed = (typed) => typed.replace(/^\[|\]$/g, "").split(/[\s,;]+/).filter(Boolean);

function number(field, changed) {
  if ("width" in field) {
    return inputControl(field, changed, (id) => make("textarea", { id, rows: 3, inputmode: "decimal", spellcheck: "false" }), {
      hint: ["field.numbers", { count: field.width }],
      read: (typed) => listed(typed).map(asNumber),
      write: (value) => value.join(", "),
    });
  }
  const bounded = "minimum" in field && "maximum" in field;
  return inputControl(field, changed, (id) => make("input", { id, type: "text", inputmode: "decimal", autocomplete: "off" }), {
    hint: bounded ? ["field.range", { low: formatNumber(field.minimum, 6), high: formatNumber(field.maximum, 6) }] : ["field.number", {}],
    read: asNumber,
    note(typed) {
      const value = typed === "" ? NaN : Number(typed);
      return bounded && (value < field.minimum || value > field.maximum) ? ["field.outside", {}] : null;
    },
  });
}

function category(field, changed) {
  const categories = (field.categories ?? []).map(String);
  if (categories.length > 0 && categories.length <= FEW) {
    return inputControl(field, changed, (id) =>
      make("select", { id },
        make("option", { value: "", text: field.required ? "field.choose" : "field.missing" }),
        categories.map((each) => make("option", { value: each }, each))));
  }
  const list = uniqueId("list");
  return inputControl(field, changed, (id) => [
    make("input", { id, type: "text", list, autocomplete: "off" }),
    make("datalist", { id: list }, categories.slice(0, 2000).map((each) => make("option", { value: each }))),
  ], {
    hint: categories.length ? ["field.of", { count: categories.length }] : null,
    note: (typed) => (categories.length && typed !== "" && !categories.includes(typed) ? ["field.unknown", {}] : null),
  });
}

function boolean(field, changed) {
  const name = uniqueId("choice");
  const choices = [["true", "field.yes"], ["false", "field.no"], ...(field.required ? [] : [["", "field.missing"]])];
  const parts = fieldFrame(field, () => make("div", { class: "choices" }, choices.map(([value, label]) =>
    make("label", {}, make("input", { type: "radio", name, value, checked: value === "" }), make("span", { text: label })))), { group: true });
  const inputs = [...parts.node.querySelectorAll("input")];
  parts.node.addEventListener("change", () => {
    parts.complain(null);
    changed(false);
  });
  return {
    ...parts,
    value() {
      const chosen = inputs.find((each) => each.checked)?.value;
      return chosen === undefined ? undefined : chosen === "" ? null : chosen === "true";
    },
    fill(value) {
      const wanted = value === null || value === undefined ? "" : String(value);
      for (const each of inputs) each.checked = each.value === wanted;
    },
  };
}

function datetime(field, changed) {
  return inputControl(field, changed, (id) => make("input", { id, type: "datetime-local", step: 1 }), {
    read: (typed) => (typed.length === 16 ? `${typed}:00` : typed),
    write: (value) => String(value).replace(" ", "T").slice(0, 19),
  });
}

function text(field, changed) {
  return inputControl(field, changed, (id) => make("textarea", { id, rows: 5 }));
}

function sequence(field, changed) {
  return inputControl(field, changed, (id) => make("textarea", { id, rows: 3 }), {
    hint: ["field.words", {}],
    read: (typed) => (typed.includes("\n") ? typed.split("\n").map((each) => each.trim()).filter(Boolean) : typed.split(/\s+/)),
    write: (value) => value.join(" "),
  });
}

function frames(field, changed) {
  return inputControl(field, changed, (id) => make("textarea", { id, rows: 6, spellcheck: "false" }), {
    hint: ["field.frames", { count: field.width ?? 0 }],
    read: (typed) => typed.split("\n").map((each) => listed(each).map(asNumber)).filter((each) => each.length),
    write: (value) => value.map((each) => each.join(", ")).join("\n"),
  });
}

const KINDS = { number, category, boolean, datetime, text, sequence, frames, image: imageControl, audio: audioControl };

/** The row in the controls; null where a required value is missing (its control then says so). */
export function row(controls) {
  const found = {};
  const missing = [];
  for (const each of controls) {
    const value = each.value();
    if (value === undefined) missing.push(each);
    else found[each.name] = value;
  }
  for (const each of missing.reverse()) each.complain(["field.lost", {}]); // in reverse, so that the first one gets the focus
  return missing.length ? null : found;
}
