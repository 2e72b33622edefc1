// A place where the user chooses, drops or pastes a file.
import { make, uniqueId } from "./elements.js";

/** A drop zone. `take(file)` is called with the chosen file; `accept` is that of a file input, `kind` "image", "audio" or "text". */
export function dropZone({ id = uniqueId("file"), accept, kind, label, hint, take }) {
  const input = make("input", { id, type: "file", accept, class: "hidden" });
  const node = make("div", { class: "drop" },
    make("label", { for: id, class: "button" }, make("span", { text: label })), input,
    make("p", { class: "hint", text: hint }));
  const fits = (file) => kind === "text" || file.type === "" || file.type.startsWith(`${kind}/`);
  function takeFiles(files) {
    const file = [...files].find(fits);
    if (file) take(file);
    return Boolean(file);
  }
  input.addEventListener("change", () => {
    takeFiles(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
  node.addEventListener("dragover", (event) => {
    event.preventDefault();
    node.classList.add("over");
  });
  node.addEventListener("dragleave", () => node.classList.remove("over"));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    node.classList.remove("over");
    takeFiles(event.dataTransfer.files);
  });
  if (kind !== "text") {
    document.addEventListener("paste", (event) => {
      if (node.isConnected && event.clipboardData?.files.length && takeFiles(event.clipboardData.files)) event.preventDefault();
    });
  }
  return { node, input };
}

/** A file dropped beside a drop zone would make the browser leave the page: such drops are ignored. */
export function ignoreStrayDrops() {
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
}

/** A file's bytes as a data URL. */
export function readAsDataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
