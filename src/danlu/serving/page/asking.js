// Requests to the server this page came from; with a token where it wants one.
import { button, make, say, unique } from "./elements.js";

const STORE = "danlu-token";
const TRIES = 4; // of a server that is full
let token = sessionStorage.getItem(STORE) ?? "";
let asking = null; // the promise of the token, while its dialog is open

/** What a server refused, in its own words where it has any. */
export class Refused extends Error {
  constructor(status, told = {}) {
    super(told.message ?? "");
    this.status = status;
    this.field = told.field ?? told.param ?? null;
    this.row = told.row ?? null;
    this.hint = told.hint ?? "";
  }

  /** The server's sentence, or ours where it said none. */
  words() {
    if (this.message) return this.hint ? `${this.message} (${this.hint})` : this.message;
    return this.status ? say("wrong.status", { status: this.status }) : say("wrong.unreachable");
  }
}

/** The answer of a route; Refused where there is none. `how.signal` breaks it off. */
export async function ask(path, how = {}) {
  for (let tried = 1; ; tried++) {
    const response = await once(path, how);
    if (response.ok) return response;
    if (response.status === 401) {
      await askForToken(token !== "");
      continue;
    }
    const told = await response.json().then((body) => body.error ?? {}, () => ({}));
    if (response.status !== 503 || tried === TRIES) throw new Refused(response.status, told);
    const seconds = Math.min(Number(response.headers.get("retry-after")) || 1, 5);
    await new Promise((done) => setTimeout(done, 1000 * seconds));
    how.signal?.throwIfAborted();
  }
}

async function once(path, how) {
  const headers = { ...how.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...how, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0);
  }
}

/** What a route tells, read as JSON. */
export const read = async (path) => (await ask(path)).json();

/** What a route answers to a body: text of a kind, or else an object that is sent as JSON. */
export async function send(path, body, kind = "application/json", signal = undefined) {
  const text = kind === "application/json" ? JSON.stringify(body) : body;
  return (await ask(path, { method: "POST", body: text, headers: { "content-type": kind }, signal })).json();
}

/** The server-sent events of a route, read as JSON, one after the other. Refused for one that tells an error. */
export async function* stream(path, body, signal) {
  const response = await ask(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const each of events) {
      const data = each.replace(/^data: ?/, "");
      if (data === "[DONE]") continue; // the stream is read to its end
      const told = JSON.parse(data);
      if (told.error) throw new Refused(500, told.error);
      yield told;
    }
  }
}

function askForToken(wasWrong) {
  asking ??= new Promise((done) => {
    const id = unique("token");
    const input = make("input", { id, type: "password", autocomplete: "off", required: true, "aria-describedby": `${id}-why` });
    const form = make(
      "form", { method: "dialog", class: "field" },
      make("h2", { say: "token.title" }),
      make("p", { id: `${id}-why`, class: wasWrong ? "wrong" : "hint", say: wasWrong ? "token.wrong" : "token.why" }),
      make("label", { for: id, say: "token.label" }), input,
      button("token.go", null, { type: "submit", class: "primary" }),
    );
    const dialog = make("dialog", { "say:aria-label": "token.title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      token = input.value.trim();
      sessionStorage.setItem(STORE, token);
      dialog.remove();
      asking = null;
      done();
    });
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing can be seen without it
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
