// A control for each kind of field. Each has: name, node, value() (JSON, undefined where a needed one is missing), fill(value), complain(message).
import { figure, make, tell, unique } from "./elements.js";
import { frame } from "./frame.js";
import { picture } from "./pictures.js";
import { recording } from "./recordings.js";

const FEW = 12; // categories that are shown as a list to choose from

/** The control of a field as the server tells it. `changed` is called when its user has changed it. */
export function control(field, changed) {
  const made = (KINDS[field.kind] ?? text)(field, changed);
  made.name = field.name;
  return made;
}

/** A control whose value is the text of one input; `read` makes JSON of text that is not empty, `write` text of JSON. */
function plain(field, changed, inner, { hint = null, read = (given) => given, write = String, note = null } = {}) {
  const made = frame(field, inner, { hint });
  const input = made.heard;
  const noted = note && make("p", { class: "note", hidden: true, role: "status" });
  if (noted) made.node.append(noted);
  function look() {
    made.complain(null);
    const told = note?.(input.value.trim());
    if (!noted) return;
    noted.hidden = !told;
    if (told) tell(noted, told);
  }
  input.addEventListener("input", look);
  input.addEventListener("change", () => changed(false));
  return {
    ...made,
    value() {
      const given = input.value.trim();
      if (given !== "") return read(field.kind === "text" ? input.value : given);
      return field.required && field.kind !== "text" ? undefined : field.required ? "" : null;
    },
    fill(value) {
      input.value = value === null || value === undefined ? "" : write(value);
      look();
    },
  };
}

// What is no number is sent as it was written: the server says what is wrong with it.
const asNumber = (given) => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(given) && Math.abs(Number(given)) < 1e300 ? Number(given) : given);
const listed = (given) => given.replace(/^\[|\]$/g, "").split(/[\s,;]+/).filter(Boolean);

function number(field, changed) {
  if ("width" in field) {
    return plain(field, changed, (id) => make("textarea", { id, rows: 3, inputmode: "decimal", spellcheck: "false" }), {
      hint: ["field.numbers", { count: field.width }],
      read: (given) => listed(given).map(asNumber),
      write: (value) => value.join(", "),
    });
  }
  const bounded = "minimum" in field && "maximum" in field;
  return plain(field, changed, (id) => make("input", { id, type: "text", inputmode: "decimal", autocomplete: "off" }), {
    hint: bounded ? ["field.range", { low: figure(field.minimum, 6), high: figure(field.maximum, 6) }] : ["field.number", {}],
    read: asNumber,
    note(given) {
      const value = given === "" ? NaN : Number(given);
      return bounded && (value < field.minimum || value > field.maximum) ? ["field.outside", {}] : null;
    },
  });
}

function category(field, changed) {
  const known = (field.categories ?? []).map(String);
  if (known.length > 0 && known.length <= FEW) {
    return plain(field, changed, (id) =>
      make("select", { id },
        make("option", { value: "", say: field.required ? "field.choose" : "field.missing" }),
        known.map((each) => make("option", { value: each }, each))));
  }
  const list = unique("list");
  return plain(field, changed, (id) => [
    make("input", { id, type: "text", list, autocomplete: "off" }),
    make("datalist", { id: list }, known.slice(0, 2000).map((each) => make("option", { value: each }))),
  ], {
    hint: known.length ? ["field.of", { count: known.length }] : null,
    note: (given) => (known.length && given !== "" && !known.includes(given) ? ["field.unknown", {}] : null),
  });
}

function boolean(field, changed) {
  const name = unique("choice");
  const choices = [["true", "field.yes"], ["false", "field.no"], ...(field.required ? [] : [["", "field.missing"]])];
  const made = frame(field, () => make("div", { class: "choices" }, choices.map(([value, told]) =>
    make("label", {}, make("input", { type: "radio", name, value, checked: value === "" }), make("span", { say: told })))), { group: true });
  const inputs = [...made.node.querySelectorAll("input")];
  made.node.addEventListener("change", () => {
    made.complain(null);
    changed(false);
  });
  return {
    ...made,
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
  return plain(field, changed, (id) => make("input", { id, type: "datetime-local", step: 1 }), {
    read: (given) => (given.length === 16 ? `${given}:00` : given),
    write: (value) => String(value).replace(" ", "T").slice(0, 19),
  });
}

function text(field, changed) {
  return plain(field, changed, (id) => make("textarea", { id, rows: 5 }));
}

function sequence(field, changed) {
  return plain(field, changed, (id) => make("textarea", { id, rows: 3 }), {
    hint: ["field.words", {}],
    read: (given) => (given.includes("\n") ? given.split("\n").map((each) => each.trim()).filter(Boolean) : given.split(/\s+/)),
    write: (value) => value.join(" "),
  });
}

function frames(field, changed) {
  return plain(field, changed, (id) => make("textarea", { id, rows: 6, spellcheck: "false" }), {
    hint: ["field.frames", { count: field.width ?? 0 }],
    read: (given) => given.split("\n").map((each) => listed(each).map(asNumber)).filter((each) => each.length),
    write: (value) => value.map((each) => each.join(", ")).join("\n"),
  });
}

const KINDS = { number, category, boolean, datetime, text, sequence, frames, image: picture, audio: recording };

/** The row that controls hold, or null where a value that is needed is missing (which its control then says). */
export function row(controls) {
  const found = {};
  const missing = [];
  for (const each of controls) {
    const value = each.value();
    if (value === undefined) missing.push(each);
    else found[each.name] = value;
  }
  for (const each of missing.reverse()) each.complain(["field.lost", {}]); // the first one has the last word: the focus
  return missing.length ? null : found;
}
