// Many rows at once: a CSV file, or many pictures or recordings. The answers are shown and can be saved.
import { answer, errorMessage, scrollingTable } from "./answers.js";
import { RequestError, postJson } from "./requests.js";
import { decodeText, flattenAnswer, parseCsv, formatCsv, formatCsvToSave } from "./csv.js";
import { button, make, translate, setText } from "./elements.js";
import { readAsDataUrl, dropZone } from "./drop_zone.js";

const TOGETHER = 1000; // rows of a request
const BYTES = 4 << 20; // of a request
const SHOWN = 20; // rows that are shown; all are in the file
const COLUMNS = 8; // of the file that are shown

/** The form for many rows. `joined`: the rows depend on each other (moments of a series) and are sent in one request. */
export function batchForm(model, joined) {
  const files = model.fields.filter((each) => each.kind === "image" || each.kind === "audio");
  if (files.length && model.fields.length > 1) return null;
  const status = make("p", { class: "hint", role: "status" });
  const result = make("div", { class: "answer", "aria-live": "polite" });
  let running = null; // a newer file replaces the one being read
  async function run(work) {
    running?.abort();
    const controller = (running = new AbortController());
    result.replaceChildren();
    setText(status, "batch.reading");
    try {
      const report = await work(controller.signal, (done, all) => setText(status, [done === null ? "batch.read" : "batch.done", { done, all }]));
      if (controller === running) result.replaceChildren(...report);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof RequestError)) throw error;
      status.textContent = "";
      result.replaceChildren(errorMessage(error));
    }
  }
  const kind = files.length ? files[0].kind : "text";
  const zone = dropZone(kind === "text"
    ? { accept: ".csv,.tsv,.txt,text/csv", kind, label: "batch.choose", hint: joined ? "batch.series" : "batch.hint", take: (file) => run((...how) => table(model, joined, file, ...how)) }
    : { accept: `${kind}/*`, kind, label: `batch.${kind}`, hint: `drop.many.${kind}`, take: () => undefined });
  if (kind !== "text") many(zone, kind, (chosen) => run((...how) => pictures(model, files[0], chosen, ...how)));
  const template = kind === "text" && !joined && make("p", {}, button("batch.template", () => save("example.csv", example(model)), { class: "quiet" }));
  return make("div", { class: "batch" }, zone.node, template, status, result);
}

/** Let a drop zone take several files. */
function many(zone, kind, take) {
  zone.input.multiple = true;
  const takeFiles = (event, files) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    const fitting = [...files].filter((file) => file.type.startsWith(`${kind}/`));
    zone.input.value = ""; // so that the same files can be chosen again
    if (fitting.length) take(fitting);
  };
  zone.input.addEventListener("change", (event) => takeFiles(event, zone.input.files), { capture: true });
  zone.node.addEventListener("drop", (event) => {
    zone.node.classList.remove("over");
    takeFiles(event, event.dataTransfer.files);
  }, { capture: true });
}

const plain = (value) => (Array.isArray(value) ? value.map((each) => (Array.isArray(each) ? JSON.stringify(each) : each)).join(" ") : value);
const example = (model) => formatCsvToSave([model.fields.map((each) => each.name), model.fields.map((each) => plain(each.example))]);

async function table(model, joined, file, signal, report) {
  const [names, ...rows] = parseCsv(decodeText(await file.arrayBuffer()));
  if (!rows.length) throw new RequestError(400, { message: translate("batch.empty") });
  const odd = rows.findIndex((each) => each.length !== names.length);
  if (odd >= 0) throw new RequestError(400, { message: translate("batch.uneven", { row: odd + 1, cells: rows[odd].length, names: names.length }) });
  const answers = [];
  for (const [start, piece] of pieces(rows, joined ? Infinity : Math.min(TOGETHER, model.most_rows ?? TOGETHER))) {
    report(start, rows.length);
    answers.push(...(await answerRows(model, start, formatCsv([names, ...piece]), "text/csv", signal)));
  }
  if (joined) report(null, rows.length);
  else report(rows.length, rows.length);
  if (joined && answers.length !== rows.length) return series(model, names, rows, answers);
  return finished(file.name, names, rows, answers, joined);
}

function* pieces(rows, together) {
  for (let start = 0; start < rows.length; ) {
    let stop = start, bytes = 0;
    while (stop < rows.length && stop - start < together && (together === Infinity || bytes < BYTES)) bytes += rows[stop++].join().length;
    yield [start, rows.slice(start, stop)];
    start = stop;
  }
}

/** The answers of some rows. In a refusal, rows are counted from the first of the file. */
async function answerRows(model, start, body, kind, signal) {
  try {
    return (await postJson(model.path, body, kind, signal)).answers;
  } catch (error) {
    if (error instanceof RequestError && error.row) error.row += start;
    if (error instanceof RequestError && error.row) error.message = translate("batch.at", { row: error.row, field: error.field, message: error.message });
    throw error;
  }
}

async function pictures(model, field, files, signal, report) {
  const answers = [];
  for (let start = 0; start < files.length; start += 16) {
    report(start, files.length);
    const urls = await Promise.all(files.slice(start, start + 16).map(readAsDataUrl));
    answers.push(...(await answerRows(model, start, { rows: urls.map((url) => ({ [field.name]: url })) }, "application/json", signal)));
  }
  report(files.length, files.length);
  return finished(`${field.name}.csv`, ["file"], files.map((file) => [file.name]), answers, false);
}

function finished(name, names, rows, answers, joined) {
  const flats = answers.map(flattenAnswer);
  const keys = [...new Set(flats.flatMap(Object.keys))];
  const heads = keys.map((key) => (names.includes(key) ? `answer ${key}` : key));
  const whole = () => formatCsvToSave([[...names, ...heads], ...rows.map((row, place) => [...row, ...keys.map((key) => flats[place][key])])]);
  const flagged = joined ? answers.flatMap((each, place) => (each.prediction === true ? [place] : [])) : null;
  const shown = (flagged ?? answers.map((_, place) => place)).slice(0, SHOWN);
  const few = names.slice(0, COLUMNS);
  const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value ?? ""));
  return [
    flagged && make("p", { text: ["batch.flagged", { count: flagged.length, all: answers.length }] }),
    make("p", { class: "actions" }, button("batch.save", () => save(name.replace(/\.[^.]*$/, "") + ".answers.csv", whole()), { class: "primary" })),
    shown.length ? scrollingTable(["", "prediction", ...keys.filter((key) => key !== "prediction").slice(0, 3), ...few], shown.map((place) =>
      [String(place + 1), short(flats[place].prediction), ...keys.filter((key) => key !== "prediction").slice(0, 3).map((key) => short(flats[place][key])), ...rows[place].slice(0, COLUMNS)])) : null,
    shown.length < answers.length ? make("p", { class: "hint", text: ["batch.some", { shown: shown.length, all: answers.length }] }) : null,
  ].filter(Boolean);
}

/** Numbers up to the last one that is present: rows of future moments may follow it. */
const upToLastNumber = (numbers) => numbers.slice(0, numbers.findLastIndex(Number.isFinite) + 1);

/** Forecasts: one chart each, after the given past. */
function series(model, names, rows, answers) {
  const past = answers.length > 1 ? {} : Object.fromEntries(names.map((name, column) => [name, upToLastNumber(rows.map((row) => (row[column] === "" ? NaN : Number(row[column]))))]));
  const whole = () => {
    const flats = answers.map(flattenAnswer);
    const keys = [...new Set(flats.flatMap(Object.keys))];
    return formatCsvToSave([keys, ...flats.map((each) => keys.map((key) => each[key]))]);
  };
  return [...answers.map((each) => make("section", { class: "part" }, answer(each, { ...model, past }))),
    make("p", { class: "actions" }, button("batch.save", () => save("forecast.csv", whole()), { class: "primary" }))];
}

/** Save a text as a file. The byte order mark tells spreadsheets that it is UTF-8. */
function save(name, text) {
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
