// A place for one file: chosen, dropped, or pasted.
import { make, unique } from "./elements.js";

/** A drop zone. `take(file)` is called with what its user gives; `accept` is that of a file input, `kind` "image" or "audio" or "text". */
export function dropping({ id = unique("file"), accept, kind, told, hint, take }) {
  const input = make("input", { id, type: "file", accept, class: "hidden" });
  const node = make("div", { class: "drop" },
    make("label", { for: id, class: "button" }, make("span", { say: told })), input,
    make("p", { class: "hint", say: hint }));
  const fits = (file) => kind === "text" || file.type === "" || file.type.startsWith(`${kind}/`);
  function given(files) {
    const file = [...files].find(fits);
    if (file) take(file);
    return Boolean(file);
  }
  input.addEventListener("change", () => {
    given(input.files);
    input.value = ""; // the same file may be given again
  });
  node.addEventListener("dragover", (event) => {
    event.preventDefault();
    node.classList.add("over");
  });
  node.addEventListener("dragleave", () => node.classList.remove("over"));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    node.classList.remove("over");
    given(event.dataTransfer.files);
  });
  if (kind !== "text") {
    document.addEventListener("paste", (event) => {
      if (node.isConnected && event.clipboardData?.files.length && given(event.clipboardData.files)) event.preventDefault();
    });
  }
  return { node, input };
}

/** A file beside a drop zone would make the browser leave the page: it is not let go anywhere else. */
export function keepDropsIn() {
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
}

/** A file's bytes as a data URL. */
export function asUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
