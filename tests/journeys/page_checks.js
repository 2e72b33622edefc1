// What a browser is asked about the page it shows: an expression, an object of functions, each giving what is wrong (or, of focusable, what is there).
({
  /** Controls that a screen reader could not name. */
  nameless() {
    return [...document.querySelectorAll("input, select, textarea, button, summary, canvas, audio, [tabindex='0']")]
      .filter((each) => each.checkVisibility())
      .filter((each) => !(each.getAttribute("aria-label") ?? ([...(each.labels ?? [])].map((label) => label.textContent).join("") || each.textContent)).trim())
      .map((each) => each.outerHTML);
  },

  /** Numbers, in the order of the page, of what a keyboard must reach; they are written into the elements. */
  focusable() {
    return [...document.querySelectorAll("a[href], input, select, textarea, button, summary, [tabindex='0']")]
      .filter((each) => each.checkVisibility() && !each.disabled && (each.type !== "radio" || each.checked))
      .map((each, place) => (each.dataset.place = place));
  },

  /** Texts whose contrast (WCAG 2.2) with the first background below them that is not clear is under 4.5. */
  pale() {
    const channels = (colour) => {
      const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
      return colour.startsWith("color(srgb") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
    };
    const linear = (each) => (each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const below = (node) => {
      for (let each = node; each; each = each.parentElement) {
        const found = channels(getComputedStyle(each).backgroundColor);
        if (found[3] > 0.5) return found;
      }
      return [255, 255, 255];
    };
    const found = [];
    for (const each of document.querySelectorAll("body *")) {
      const own = [...each.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
      if (!own || !each.checkVisibility() || each.closest(".hidden, option, datalist, .skip")) continue;
      const [one, other] = [light(channels(getComputedStyle(each).color)), light(below(each))];
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (contrast < 4.5) found.push([each.outerHTML.slice(0, 120), contrast]);
    }
    return found;
  },

  /** The text of an answer, drawn in the page. */
  async drawn(told) {
    const { answer } = await import(document.querySelector("script").src.replace("page.js", "answers.js"));
    const place = document.querySelector(".result .answer");
    place.replaceChildren(...answer(told, { targets: [], card: {} }));
    return place.textContent;
  },

  /** The keys of the words in each language. */
  async words() {
    const { translations } = await import(document.querySelector("script").src.replace("page.js", "translations.js"));
    return [Object.keys(translations.en), Object.keys(translations.zh)];
  },
})
