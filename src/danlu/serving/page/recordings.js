// The control of a recording: a sound file that is dropped, pasted or chosen, to be heard before it is asked about.
import { make } from "./elements.js";
import { asUrl, dropping } from "./files.js";
import { frame } from "./frame.js";

/** The control of an audio field. */
export function recording(field, changed) {
  let url = null;
  let heard = null;
  const name = make("figcaption", {});
  const player = make("audio", { controls: true, "say:aria-label": "audio.player" });
  const figure = make("figure", { hidden: true }, player, name);
  const zone = dropping({
    accept: "audio/*,.wav,.flac,.ogg,.mp3", kind: "audio", told: "audio.choose", hint: "drop.audio",
    take: async (file) => {
      show(await asUrl(file), file, file.name);
      changed(true);
    },
  });
  const made = frame(field, () => [make("div", { class: "giving" }, zone.node), figure], { group: true, hint: ["audio.rate", { rate: field.rate }] });

  function show(given, blob, title) {
    made.complain(null);
    url = given;
    if (heard) URL.revokeObjectURL(heard);
    heard = URL.createObjectURL(blob);
    player.src = heard;
    name.textContent = title;
    figure.hidden = false;
  }
  return {
    ...made,
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
