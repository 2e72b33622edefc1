"use strict";
(() => {
  const page = document.documentElement;
  const told = document.getElementById("told");
  const data = JSON.parse(document.getElementById("data").textContent);
  const trials = new Map(data.trials.map((trial) => [trial.number, trial]));
  let picked = null, held = false;

  // languages: one is shown at a time; without this script both are
  const languages = [...document.querySelectorAll("[data-language]")];
  function show(language) {
    page.lang = language === "zh" ? "zh-CN" : "en";
    page.dataset.shown = language;
    for (const button of languages) button.setAttribute("aria-pressed", String(button.dataset.language === language));
    if (picked !== null) tell(picked);
  }
  for (const button of languages) button.addEventListener("click", () => show(button.dataset.language));
  show(/^zh/i.test(navigator.language || "") ? "zh" : "en");

  // one trial is picked in every chart and table at once
  function tell(number) {
    const trial = trials.get(number);
    if (!trial) return;
    const words = data.words[page.dataset.shown];
    const lines = [`${words.trial} ${number} · ${words[trial.state] || trial.state}`];
    for (const [name, value] of trial.scores) lines.push(`${name} ${value}`);
    for (const [name, value] of trial.options) lines.push(`${name} = ${value}`);
    if (trial.cause) lines.push(trial.cause);
    told.textContent = lines.join("\n");
    told.hidden = false;
  }
  function pick(number) {
    if (number === picked) return;
    for (const mark of document.querySelectorAll(".on")) mark.classList.remove("on");
    picked = number;
    for (const chart of document.querySelectorAll(".chart")) chart.classList.toggle("picked", number !== null);
    if (number === null) { told.hidden = true; return; }
    for (const mark of document.querySelectorAll(`[data-trial="${number}"],[data-row="${number}"]`)) {
      mark.classList.add("on");
      if (mark.dataset.trial && mark.classList.contains("line")) mark.parentNode.appendChild(mark);
    }
    tell(number);
  }
  const numberOf = (mark) => Number(mark.dataset.trial ?? mark.dataset.pick ?? mark.dataset.row);
  document.addEventListener("pointerover", (event) => {
    if (held) return;
    const mark = event.target.closest?.("[data-trial],tr[data-row]");
    if (mark) pick(numberOf(mark)); else pick(null);
  });
  document.addEventListener("click", (event) => {
    const mark = event.target.closest?.("[data-trial],[data-pick]");
    held = Boolean(mark);
    if (mark) pick(numberOf(mark)); else if (!event.target.closest?.("button,summary,a")) pick(null);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { held = false; pick(null); return; }
    const figure = event.target.closest?.(".figure");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!figure || !step) return;
    const numbers = [...new Set([...figure.querySelectorAll("[data-trial]")].map(numberOf))].sort((one, other) => one - other);
    if (!numbers.length) return;
    event.preventDefault();
    const place = numbers.indexOf(picked);
    held = true;
    pick(numbers[place < 0 ? (step > 0 ? 0 : numbers.length - 1) : (place + step + numbers.length) % numbers.length]);
  });

  // tables are sorted by a head's button
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const numeric = [...body.rows].every((row) => key(row) === "" || Number.isFinite(Number(key(row))));
      const order = (one, other) => {
        const first = key(one), second = key(other);
        if (first === "" || second === "") return (first === "") - (second === "");  // what is missing stands last
        const less = numeric ? Number(first) - Number(second) : first.localeCompare(second);
        return down ? -less : less;
      };
      body.append(...[...body.rows].sort(order));
    }));
  }
})();
