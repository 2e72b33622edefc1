// CSV: read with the separator that the file uses, written with commas.

/** The text of a file: UTF-8, UTF-16 with a byte order mark, else GB 18030. */
export function decodeText(bytes) {
  const [first, second] = new Uint8Array(bytes, 0, Math.min(2, bytes.byteLength));
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("gb18030").decode(bytes);
  }
}

/** [[cell, ...], ...] of a text; empty lines are left out. */
export function parseCsv(text) {
  const mark = separator(text);
  const rows = [];
  let row = [], cell = "", quoted = false;
  const finish = () => {
    row.push(cell);
    if (row.length > 1 || cell !== "") rows.push(row);
    [row, cell] = [[], ""];
  };
  for (let place = 0; place < text.length; place++) {
    const letter = text[place];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[place + 1] === '"') cell += text[++place];
      else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === mark) {
      row.push(cell);
      cell = "";
    } else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[place + 1] === "\n") place++;
      finish();
    } else cell += letter;
  }
  if (cell !== "" || row.length) finish();
  return rows;
}

/** The separator: the one that stands most often in the first line. */
function separator(text) {
  const head = text.slice(0, text.search(/[\r\n]|$/)).replace(/"[^"]*"/g, "");
  return [",", ";", "\t"].map((mark) => [head.split(mark).length, mark]).sort(([one], [other]) => other - one)[0][1];
}

const quote = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** Rows of cells as CSV. */
export const formatCsv = (rows) => rows.map((row) => row.map(quote).join(",")).join("\r\n") + "\r\n";

const NUMBER = /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i;

/** A cell that no spreadsheet runs: a text that begins like a formula gets an apostrophe in front. */
const withoutFormula = (value) =>
  typeof value === "string" && /^([\t\r\n]|\s*[=+\-@＝＋－＠])/.test(value) && !NUMBER.test(value) ? `'${value}` : value;

/** Rows of cells as CSV for a person, who may open it in a spreadsheet. */
export const formatCsvToSave = (rows) => formatCsv(rows.map((row) => row.map(withoutFormula)));

/** An answer as one row of values, with the names that `danlu predict --out` writes. */
export function flattenAnswer(answer) {
  const found = {};
  for (const [key, value] of Object.entries(answer)) {
    if (key === "probabilities" && value && typeof value === "object") {
      for (const [of, each] of Object.entries(value)) {
        if (each && typeof each === "object") for (const [inner, share] of Object.entries(each)) found[`probability of ${of} ${inner}`] = share;
        else found[`probability of ${of}`] = each;
      }
    } else if (Array.isArray(value)) found[key] = value.map((each) => (each && typeof each === "object" ? JSON.stringify(each) : each)).join("|");
    else if (value && typeof value === "object") for (const [name, each] of Object.entries(flattenAnswer(value))) found[`${key} ${name}`] = each;
    else found[key] = value;
  }
  return found;
}
