// What every control has round it: the field's name, a hint, and the place where a complaint about it stands.
import { make, tell, unique } from "./elements.js";

const WIDE = new Set(["text", "image", "audio", "sequence", "frames"]);

/** The parts that all controls have round them: label, hint, the place of a complaint. Returns {node, id, described, complain}. */
export function frame(field, inner, { group = false, hint = null } = {}) {
  const id = unique("field");
  const wrong = make("p", { id: `${id}-wrong`, class: "wrong", hidden: true });
  const told = hint && make("p", { id: `${id}-hint`, class: "hint", say: hint });
  const needed = field.marked && make("span", { class: "needed", say: "field.needed" });
  const label = group
    ? make("legend", {}, make("span", { class: "name" }, breakable(field.name)), " ", needed)
    : make("label", { for: id }, make("span", { class: "name" }, breakable(field.name)), " ", needed);
  const wide = WIDE.has(field.kind) || "width" in field ? " wide" : "";
  const node = make(group ? "fieldset" : "div", { class: `field ${field.kind}${wide}` }, label, inner(id), told, wrong);
  const heard = group ? node : node.querySelector(`#${id}`);
  const described = `${told ? `${id}-hint ` : ""}${id}-wrong`;
  heard?.setAttribute("aria-describedby", described);
  if (!group && field.required) heard?.setAttribute("aria-required", "true");
  function complain(message) {
    wrong.hidden = !message;
    if (Array.isArray(message)) tell(wrong, message);
    else wrong.textContent = message ?? "";
    heard?.toggleAttribute("aria-invalid", false);
    if (message) heard?.setAttribute("aria-invalid", "true");
    if (message) (node.querySelector("input,select,textarea,button") ?? node).focus();
  }
  return { node, id, heard, complain };
}

const breakable = (name) => name.replaceAll("_", "_\u200b"); // long names may break at their underscores
