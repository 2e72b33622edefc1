// The control of an image: a picture that is dropped, pasted, chosen or drawn; beside it the pixels that the model is given.
import { button, make } from "./elements.js";
import { asUrl, dropping } from "./files.js";
import { frame } from "./frame.js";

const PAD = 280; // pixels of the pad's side
const DRAWN = 64; // images as small as this, and grey, may be drawn by hand

/** The control of an image field. */
export function picture(field, changed) {
  const [height, width, channels] = field.shape;
  let url = null;
  const seen = make("canvas", { width, height, role: "img", "say:aria-label": "image.seen" });
  const whole = make("img", { alt: "", class: "whole" });
  const given = make("figure", {}, whole, make("figcaption", { say: "image.given" }));
  const figures = make("div", { class: "figures", hidden: true }, given,
    make("figure", {}, seen, make("figcaption", { say: [channels === 1 ? "image.grey" : "image.colour", { height, width }] })));
  const zone = dropping({ accept: "image/*", kind: "image", told: "image.choose", hint: "drop.image", take: (file) => asUrl(file).then(show) });
  const drawn = channels === 1 && Math.max(height, width) <= DRAWN && pad(height, width, (made) => show(made));
  const made = frame(field, () => [make("div", { class: "giving" }, zone.node, drawn), figures], { group: true });

  async function show(chosen, quietly = false) {
    const image = new Image();
    image.src = chosen;
    try {
      await image.decode();
    } catch {
      made.complain(["image.broken", {}]);
      return;
    }
    made.complain(null);
    url = chosen;
    whole.src = chosen;
    whole.classList.toggle("small", image.naturalWidth < 100);
    given.hidden = image.naturalWidth === width && image.naturalHeight === height; // it is what the model sees
    reduce(image, seen, channels);
    figures.hidden = false;
    if (!quietly) changed(true);
  }
  return {
    ...made,
    value: () => url ?? undefined,
    fill(value) {
      if (value) return show(value, true);
      url = null;
      figures.hidden = true;
      return undefined;
    },
  };
}

/** Draw an image as the model is given it: both sides fitted, grey where it sees no colour, white where there is nothing. */
function reduce(image, canvas, channels) {
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.filter = channels === 1 ? "grayscale(1)" : "none";
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.dataset.shown = "";
}

/** A pad to draw on in white on black, as written characters are in most data. Choosing a file does the same for a keyboard. */
function pad(height, width, take) {
  const canvas = make("canvas", { class: "pad", width: PAD, height: Math.round((PAD * height) / width), role: "img", "say:aria-label": "image.pad" });
  const brush = canvas.getContext("2d");
  let drawing = false;
  function wipe() {
    brush.fillStyle = "#000";
    brush.fillRect(0, 0, canvas.width, canvas.height);
  }
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    Object.assign(brush, { strokeStyle: "#fff", lineCap: "round", lineJoin: "round", lineWidth: PAD / 11 });
    brush.beginPath();
    brush.moveTo(...place(event));
    brush.lineTo(...place(event));
    brush.stroke();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    brush.lineTo(...place(event));
    brush.stroke();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (drawing) take(canvas.toDataURL("image/png"));
      drawing = false;
    });
  }
  wipe();
  return make("div", { class: "drawing" }, canvas, make("div", {}, make("span", { class: "hint", say: "image.draw" }), " ", button("image.wipe", wipe, { class: "quiet" })));
}
