// The control of a recording: a sound file that is dropped, pasted or chosen, and can be played.
import { make } from "./elements.js";
import { readAsDataUrl, dropZone } from "./drop_zone.js";
import { fieldFrame } from "./field_frame.js";

/** The control of an audio field. */
export function audioControl(field, changed) {
  let url = null;
  let objectUrl = null;
  const name = make("figcaption", {});
  const player = make("audio", { controls: true, "text:aria-label": "audio.player" });
  const figure = make("figure", { hidden: true }, player, name);
  const zone = dropZone({
    accept: "audio/*,.wav,.flac,.ogg,.mp3", kind: "audio", label: "audio.choose", hint: "drop.audio",
    take: async (file) => {
      show(await readAsDataUrl(file), file, file.name);
      changed(true);
    },
  });
  const parts = fieldFrame(field, () => [make("div", { class: "giving" }, zone.node), figure], { group: true, hint: ["audio.rate", { rate: field.rate }] });

  function show(dataUrl, blob, title) {
    parts.complain(null);
    url = dataUrl;
    if (objectUrl) URL.revokeObjectURL(objectUrl);
    objectUrl = URL.createObjectURL(blob);
    player.src = objectUrl;
    name.textContent = title;
    figure.hidden = false;
  }
  return {
    ...parts,
    value: () => url ?? undefined,
    fill(value) {
      if (value) show(value, bytesOf(value), "");
      else [url, figure.hidden] = [null, true];
    },
  };
}

function bytesOf(url) {
  const [head, body] = url.split(",", 2);
  const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}
