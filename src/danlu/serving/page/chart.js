// A line chart of a series and its forecast, as one SVG.
import { formatNumber, make } from "./elements.js";

const WIDTH = 640, HEIGHT = 220, LEFT = 52, RIGHT = 10, TOP = 12, BOTTOM = 26;

/** Round numbers for the scale from low to high, about five at most. */
function ticks(low, high) {
  const raw = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

/** The chart of `past` (numbers, the latest last) and of the forecast `ahead`; `band` {low, high} surrounds it, `times` are its moments. */
export function chart({ past, ahead, band, times, name }) {
  const before = past.slice(-Math.max(3 * ahead.length, 24));
  const values = [...before, ...ahead, ...(band ? [...band.low, ...band.high] : [])].filter(Number.isFinite);
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) [low, high] = [low - 1, high + 1];
  const count = before.length + ahead.length;
  const x = (place) => LEFT + ((WIDTH - LEFT - RIGHT) * place) / Math.max(count - 1, 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const line = (points, start) => points.map((each, place) => (Number.isFinite(each) ? `${place && Number.isFinite(points[place - 1]) ? "L" : "M"}${x(start + place).toFixed(1)} ${y(each).toFixed(1)}` : "")).join("");
  const first = before.length;
  const joined = before.length ? [before.at(-1), ...ahead] : ahead;
  const area = band && `${line(band.high, first)}L${[...band.low].reverse().map((each, place) => `${x(count - 1 - place).toFixed(1)} ${y(each).toFixed(1)}`).join("L")}Z`;
  const label = (place, text, anchor) => make("text", { x: x(place), y: HEIGHT - 7, "text-anchor": anchor, class: "label" }, text);
  const short = (time) => String(time).replace("T", " ").replace(/:00(\.0+)?$/, "");
  return make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "text:aria-label": ["chart.told", { name, count: ahead.length, low: formatNumber(Math.min(...ahead.filter(Number.isFinite))), high: formatNumber(Math.max(...ahead.filter(Number.isFinite))) }] },
    ticks(low, high).map((value) => make("g", {},
      make("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
      make("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end", class: "label" }, formatNumber(value)))),
    area && make("path", { d: area, class: "band" }),
    make("path", { d: line(before, 0), class: "past" }),
    before.length ? make("line", { x1: x(first - 1), x2: x(first - 1), y1: TOP, y2: HEIGHT - BOTTOM, class: "now" }) : null,
    make("path", { d: line(joined, first - (before.length ? 1 : 0)), class: "ahead" }),
    times ? [label(first, short(times[0]), before.length ? "end" : "start"), label(count - 1, short(times.at(-1)), "end")] : null);
}
