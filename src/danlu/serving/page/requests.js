// Requests to the server that this page came from, with a token where it wants one.
import { button, make, translate, uniqueId } from "./elements.js";

const STORE = "danlu-token";
const TRIES = 4; // of a request to a server that is full
let token = sessionStorage.getItem(STORE) ?? "";
let asking = null; // the promise of the token, while its dialog is open

/** A request that failed. Status 0: the server cannot be reached. */
export class RequestError extends Error {
  constructor(status, details = {}) {
    super(details.message ?? "");
    this.status = status;
    this.field = details.field ?? details.param ?? null;
    this.row = details.row ?? null;
    this.hint = details.hint ?? "";
  }

  /** The server's message, or the page's own where it sent none. */
  text() {
    if (this.message) return this.hint ? `${this.message} (${this.hint})` : this.message;
    return this.status ? translate("wrong.status", { status: this.status }) : translate("wrong.unreachable");
  }
}

/** The answer of a route. Throws RequestError; a server that is full is asked again. `options.signal` aborts the request. */
export async function request(path, options = {}) {
  for (let tried = 1; ; tried++) {
    const response = await fetchOnce(path, options);
    if (response.ok) return response;
    if (response.status === 401) {
      await askForToken(token !== "");
      continue;
    }
    const details = await response.json().then((body) => body.error ?? {}, () => ({}));
    if (response.status !== 503 || tried === TRIES) throw new RequestError(response.status, details);
    const seconds = Math.min(Number(response.headers.get("retry-after")) || 1, 5);
    await new Promise((done) => setTimeout(done, 1000 * seconds));
    options.signal?.throwIfAborted();
  }
}

async function fetchOnce(path, options) {
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0);
  }
}

/** The JSON of a route. */
export const fetchJson = async (path) => (await request(path)).json();

/** The JSON that a route answers to a body: an object, or text of another content type. */
export async function postJson(path, body, kind = "application/json", signal = undefined) {
  const text = kind === "application/json" ? JSON.stringify(body) : body;
  return (await request(path, { method: "POST", body: text, headers: { "content-type": kind }, signal })).json();
}

/** The server-sent events of a route, read as JSON. Throws RequestError for an event that is an error. */
export async function* streamEvents(path, body, signal) {
  const response = await request(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const each of events) {
      const data = each.replace(/^data: ?/, "");
      if (data === "[DONE]") continue; // the stream is read to its end
      const details = JSON.parse(data);
      if (details.error) throw new RequestError(500, details.error);
      yield details;
    }
  }
}

function askForToken(wasWrong) {
  asking ??= new Promise((done) => {
    const id = uniqueId("token");
    const input = make("input", { id, type: "password", autocomplete: "off", required: true, "aria-describedby": `${id}-why` });
    const form = make(
      "form", { method: "dialog", class: "field" },
      make("h2", { text: "token.title" }),
      make("p", { id: `${id}-why`, class: wasWrong ? "wrong" : "hint", text: wasWrong ? "token.wrong" : "token.why" }),
      make("label", { for: id, text: "token.label" }), input,
      button("token.go", null, { type: "submit", class: "primary" }),
    );
    const dialog = make("dialog", { "text:aria-label": "token.title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      token = input.value.trim();
      sessionStorage.setItem(STORE, token);
      dialog.remove();
      asking = null;
      done();
    });
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // without a token there is nothing to show
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
