// The control of an image: dropped, pasted, chosen or drawn; beside it the pixels that the model sees.
import { button, make } from "./elements.js";
import { readAsDataUrl, dropZone } from "./drop_zone.js";
import { fieldFrame } from "./field_frame.js";

const PAD = 280; // pixels of the pad's side
const DRAWN = 64; // images as small as this, and grey, may be drawn by hand

/** The control of an image field. */
export function imageControl(field, changed) {
  const [height, width, channels] = field.shape;
  let url = null;
  const reduced = make("canvas", { width, height, role: "img", "text:aria-label": "image.seen" });
  const whole = make("img", { alt: "", class: "whole" });
  const original = make("figure", {}, whole, make("figcaption", { text: "image.given" }));
  const figures = make("div", { class: "figures", hidden: true }, original,
    make("figure", {}, reduced, make("figcaption", { text: [channels === 1 ? "image.grey" : "image.colour", { height, width }] })));
  const zone = dropZone({ accept: "image/*", kind: "image", label: "image.choose", hint: "drop.image", take: (file) => readAsDataUrl(file).then(show) });
  const drawing = channels === 1 && Math.max(height, width) <= DRAWN && pad(height, width, (parts) => show(parts));
  const parts = fieldFrame(field, () => [make("div", { class: "giving" }, zone.node, drawing), figures], { group: true });

  async function show(chosen, quietly = false) {
    const image = new Image();
    image.src = chosen;
    try {
      await image.decode();
    } catch {
      parts.complain(["image.broken", {}]);
      return;
    }
    parts.complain(null);
    url = chosen;
    whole.src = chosen;
    whole.classList.toggle("small", image.naturalWidth < 100);
    original.hidden = image.naturalWidth === width && image.naturalHeight === height; // it is what the model sees
    reduce(image, reduced, channels);
    figures.hidden = false;
    if (!quietly) changed(true);
  }
  return {
    ...parts,
    value: () => url ?? undefined,
    fill(value) {
      if (value) return show(value, true);
      url = null;
      figures.hidden = true;
      return undefined;
    },
  };
}

/** Draw an image as the model sees it: resized, grey where the model has one channel, white where the image is transparent. */
function reduce(image, canvas, channels) {
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.filter = channels === 1 ? "grayscale(1)" : "none";
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.dataset.shown = "";
}

/** A pad to draw on, white on black as written characters are in most data. A user of the keyboard can choose a file instead. */
function pad(height, width, take) {
  const canvas = make("canvas", { class: "pad", width: PAD, height: Math.round((PAD * height) / width), role: "img", "text:aria-label": "image.pad" });
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
  return make("div", { class: "drawing" }, canvas, make("div", {}, make("span", { class: "hint", text: "image.draw" }), " ", button("image.wipe", wipe, { class: "quiet" })));
}
