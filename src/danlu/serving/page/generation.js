// Models that write text: a conversation, or a text that is continued. Streamed, can be stopped, with the options of sampling.
import { errorMessage } from "./answers.js";
import { RequestError, streamEvents } from "./requests.js";
import { button, make, setText, uniqueId } from "./elements.js";

const USUAL = 256; // tokens

/** The controls of sampling: {node, options()}, named as the server names them; empty ones are not sent. */
function sampling(model) {
  const most = Math.min(model.max_tokens ?? 4096, 4096);
  const first = ["temperature", "max_tokens"];
  const controls = {
    temperature: slider("temperature", { min: 0, max: 2, step: 0.05, value: 0.8 }),
    top_p: slider("top_p", { min: 0.05, max: 1, step: 0.05, value: 1 }),
    top_k: numberInput("top_k", { min: 0, max: 100000, placeholder: "0" }),
    max_tokens: numberInput("max_tokens", { min: 1, max: most, value: Math.min(USUAL, most) }),
    repetition_penalty: slider("repetition_penalty", { min: 1, max: 2, step: 0.05, value: 1 }),
    seed: numberInput("seed", { min: 0, placeholder: "–" }),
  };
  return {
    node: make("div", { class: "sampling" }, first.map((name) => controls[name].node),
      make("details", { class: "more" }, make("summary", { text: "sampling.more" }), make("div", { class: "sampling" }, Object.keys(controls).filter((name) => !first.includes(name)).map((name) => controls[name].node)))),
    options() {
      const found = {};
      for (const [name, each] of Object.entries(controls)) if (each.value() !== null) found[name] = each.value();
      return found;
    },
    complain(refused) {
      for (const each of Object.values(controls)) each.complain(null);
      const at = controls[refused?.field];
      at?.complain(() => refused.text());
      at?.node.closest("details.more")?.setAttribute("open", "");
      return Boolean(at);
    },
  };
}

function labelled(name, input, beside) {
  const wrong = make("p", { id: `${input.id}-wrong`, class: "wrong", hidden: true });
  input.setAttribute("aria-describedby", `${input.id}-hint ${input.id}-wrong`);
  const node = make("div", { class: "field" },
    make("label", { for: input.id }, make("span", { text: `sampling.${name}` }), beside), input,
    make("p", { id: `${input.id}-hint`, class: "hint", text: `sampling.${name}.hint` }), wrong);
  return {
    node,
    complain(words) {
      wrong.hidden = !words;
      if (words) setText(wrong, [words, {}]);
      input.toggleAttribute("aria-invalid", false);
      if (words) input.setAttribute("aria-invalid", "true");
    },
  };
}

function slider(name, how) {
  const input = make("input", { id: uniqueId(name), type: "range", ...how });
  const shown = make("output", { for: input.id }, String(how.value));
  input.addEventListener("input", () => (shown.textContent = String(Number(input.value))));
  return { ...labelled(name, input, shown), value: () => Number(input.value) };
}

function numberInput(name, how) {
  const input = make("input", { id: uniqueId(name), type: "text", inputmode: "numeric", autocomplete: "off", ...how });
  return { ...labelled(name, input, null), value: () => (input.value.trim() === "" ? null : /^-?\d+$/.test(input.value.trim()) ? Number(input.value) : input.value) };
}

/** Write one text into `node` as it comes, and its statistics into `state`. Returns the text, however it ended. */
async function writeText(path, body, node, state, signal) {
  const began = performance.now();
  let text = "", ended = "stopped", tokens = 0, refused = null;
  node.setAttribute("aria-busy", "true");
  state.textContent = "";
  try {
    for await (const event of streamEvents(path, { ...body, stream: true, stream_options: { include_usage: true } }, signal)) {
      if (signal.aborted) break;
      const choice = event.choices?.[0];
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      if (piece) {
        text += piece;
        node.append(piece);
        node.closest(".scrolls")?.scrollTo({ top: 1e9 });
      }
      ended = choice?.finish_reason ?? ended;
      tokens = event.usage?.completion_tokens ?? tokens;
    }
  } catch (error) {
    if (error instanceof RequestError) refused = error;
    else if (error.name !== "AbortError") throw error;
  }
  node.setAttribute("aria-busy", "false");
  if (signal.aborted) ended = "stopped";
  const seconds = (performance.now() - began) / 1000;
  if (!refused) setText(state, ["writing.told", { ended, tokens, rate: tokens / Math.max(seconds, 0.001) }]);
  return { text, refused };
}

/** The form of a model that writes text. */
export function generationForm(model) {
  const controls = sampling(model);
  const controlsNode = make("details", { class: "fold controls", open: matchMedia("(min-width: 60rem)").matches },
    make("summary", {}, make("h2", { text: "sampling.title" })), make("div", { class: "inside" }, controls.node));
  const main = model.chat ? conversation(model, controls) : continuation(model, controls);
  return make("div", { class: "layout writing" }, main, controlsNode);
}

/** A button that sends and, while a text is written, stops. `go(signal)` does the work. */
function goOrStop(label, go) {
  let running = null;
  const node = button(label, async () => {
    if (running) return running.abort();
    running = new AbortController();
    setText(node, "writing.stop");
    node.classList.add("stop");
    try {
      await go(running.signal);
    } finally {
      running = null;
      setText(node, label);
      node.classList.remove("stop");
    }
  }, { class: "primary" });
  return { node, busy: () => running !== null, stop: () => running?.abort() };
}

/** Enter sends, Shift+Enter adds a line; not while an input method is composing. */
function sendOnEnter(input, send) {
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send.click();
  });
}

function conversation(model, controls) {
  let messages = [];
  const log = make("div", { class: "log scrolls", role: "log", tabindex: 0, "aria-live": "polite", "text:aria-label": "chat.log" });
  const empty = make("p", { class: "empty", text: ["chat.empty", { context: model.context }] });
  const id = uniqueId("message");
  const input = make("textarea", { id, rows: 2, "text:placeholder": "chat.placeholder" });
  const wrong = make("div", { role: "alert" });
  const turn = (role, text = "") => {
    const said = make("div", { class: "words" }, text);
    const state = make("p", { class: "hint" });
    const node = make("article", { class: `turn ${role}` }, make("h3", { class: "hidden", text: `chat.${role}` }), said, state);
    log.append(node);
    log.scrollTo({ top: log.scrollHeight });
    return { node, said, state };
  };
  async function ask(signal) {
    wrong.replaceChildren();
    const { node, said, state } = turn("assistant");
    const { text, refused } = await writeText("v1/chat/completions", { model: model.id, messages, ...controls.options() }, said, state, signal);
    if (!controls.complain(refused) && refused) wrong.replaceChildren(errorMessage(refused));
    if (refused && !text) node.remove();
    else messages.push({ role: "assistant", content: text });
    again.node.hidden = false;
  }
  const go = goOrStop("chat.send", async (signal) => {
    const text = input.value.trim();
    if (!text) return input.focus();
    empty.remove();
    if (messages.at(-1)?.role === "user") messages.pop(); // the last message was refused
    messages.push({ role: "user", content: text });
    turn("user", text);
    input.value = "";
    await ask(signal);
    input.focus();
  });
  const again = goOrStop("writing.again", async (signal) => {
    if (messages.at(-1)?.role === "assistant") {
      messages.pop();
      log.lastElementChild?.remove();
    }
    if (messages.length) await ask(signal);
  });
  again.node.classList.remove("primary");
  again.node.hidden = true;
  const anew = button("chat.new", () => {
    go.stop();
    again.stop();
    messages = [];
    log.replaceChildren(empty);
    wrong.replaceChildren();
    again.node.hidden = true;
    input.focus();
  }, { class: "quiet" });
  log.append(empty);
  sendOnEnter(input, go.node);
  return make("section", { class: "card chat", "text:aria-label": "chat.title" }, log, wrong,
    make("div", { class: "composer" }, make("label", { for: id, class: "hidden", text: "chat.message" }), input, go.node),
    make("div", { class: "actions" }, again.node, anew, make("span", { class: "hint keys", text: "chat.keys" })));
}

function continuation(model, controls) {
  const id = uniqueId("text");
  const input = make("textarea", { id, rows: 6, class: "manuscript", "text:placeholder": "text.placeholder" });
  const begun = make("span", { class: "begun" });
  const said = make("span", { class: "written" });
  const state = make("p", { class: "hint" });
  const wrong = make("div", { role: "alert" });
  const paper = make("div", { class: "paper scrolls", hidden: true, tabindex: 0, role: "region", "aria-live": "polite", "text:aria-label": "text.title" }, begun, said);
  let text = "";
  async function go(prompt, signal) {
    wrong.replaceChildren();
    begun.textContent = prompt;
    said.textContent = "";
    paper.hidden = false;
    const made = await writeText("v1/completions", { model: model.id, prompt, ...controls.options() }, said, state, signal);
    if (!controls.complain(made.refused) && made.refused) wrong.replaceChildren(errorMessage(made.refused));
    text = prompt + made.text;
    further.node.hidden = Boolean(made.refused) && !made.text;
  }
  const begin = goOrStop("text.go", (signal) => go(input.value, signal));
  const further = goOrStop("text.further", (signal) => go(text, signal));
  further.node.classList.remove("primary");
  further.node.hidden = true;
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin.node.click();
  });
  return make("section", { class: "card text", "text:aria-label": "text.title" },
    make("div", { class: "field" }, make("label", { for: id, text: "text.label" }), input, make("p", { class: "hint", text: ["text.hint", { context: model.context }] })),
    make("div", { class: "actions" }, begin.node, further.node, make("span", { class: "hint keys", text: "form.keys" })), wrong, paper, state);
}
