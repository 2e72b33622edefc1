// What surrounds every control: the field's name, a hint, and an error message.
import { make, setText, uniqueId } from "./elements.js";

const WIDE = new Set(["text", "image", "audio", "sequence", "frames"]);

/** Label, hint and error message around a control. Returns {node, id, target, complain}; `target` is the input, or the group of inputs. */
export function fieldFrame(field, inner, { group = false, hint = null } = {}) {
  const id = uniqueId("field");
  const wrong = make("p", { id: `${id}-wrong`, class: "wrong", hidden: true });
  const hintNode = hint && make("p", { id: `${id}-hint`, class: "hint", text: hint });
  const needed = field.marked && make("span", { class: "needed", text: "field.needed" });
  const label = group
    ? make("legend", {}, make("span", { class: "name" }, breakable(field.name)), " ", needed)
    : make("label", { for: id }, make("span", { class: "name" }, breakable(field.name)), " ", needed);
  const wide = WIDE.has(field.kind) || "width" in field ? " wide" : "";
  const node = make(group ? "fieldset" : "div", { class: `field ${field.kind}${wide}` }, label, inner(id), hintNode, wrong);
  const target = group ? node : node.querySelector(`#${id}`);
  const described = `${hintNode ? `${id}-hint ` : ""}${id}-wrong`;
  target?.setAttribute("aria-describedby", described);
  if (!group && field.required) target?.setAttribute("aria-required", "true");
  function complain(message) {
    wrong.hidden = !message;
    if (Array.isArray(message)) setText(wrong, message);
    else wrong.textContent = message ?? "";
    target?.toggleAttribute("aria-invalid", false);
    if (message) target?.setAttribute("aria-invalid", "true");
    if (message) (node.querySelector("input,select,textarea,button") ?? node).focus();
  }
  return { node, id, target, complain };
}

const breakable = (name) => name.replaceAll("_", "_\u200b"); // long names may break at their underscores
