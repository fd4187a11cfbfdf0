"use strict";
// Card of one sample: its prompt, the ground truth, and the image and score of each system.
(() => {
  const page = window.KNOWGEN;
  const { make, number } = page;

  function details(position) {
    const size = page.data.chunk;
    return page.load("chunk-" + Math.floor(position / size)).then((entries) => entries[position % size]);
  }

  const words = (name) => name.replaceAll("_", " ");
  const freeText = (text, tag) => make(tag || "p", { dir: "auto", class: "free-text" }, text);

  function image(shown, alt, open) {
    if (shown.fault) return make("div", { class: "state" }, make("b", null, "image not shown"), make("span", { dir: "auto" }, shown.fault));
    return page.frame(shown, alt, open);
  }

  function points(reading, view) {
    const state = page.data.states[reading[0]];
    if (state.name !== "scored") return null;
    return make(
      "p",
      { class: "points" },
      make("b", { title: "score of this image" }, number(reading[1])),
      view.dimensions.map((name, index) =>
        make("span", null, make("abbr", { title: name }, name.slice(0, 1).toUpperCase()), " ", make("i", null, number(reading[2][index]))),
      ),
    );
  }

  function imagePanel(sample, index, matches) {
    const system = page.data.systems[index];
    const cell = sample.cells[index];
    const view = page.data.views[page.view];
    const box = make("div", { class: matches ? "image-panel" : "image-panel other" });
    box.append(make("h4", null, page.key(system), make("bdi", null, system.label)));
    const reading = cell && cell.readings[page.view];
    if (!cell) {
      box.append(make("div", { class: "state" }, make("span", null, "this run does not have the sample")));
      return box;
    }
    const state = reading ? page.data.states[reading[0]] : { name: "", words: "no score by this scorer and protocol" };
    const why = () => [make("b", null, state.words), make("span", { dir: "auto", class: "free-text" }, reading ? reading[3] : "")];
    if (cell.image) {
      const alt = "generated image of " + system.label + " for sample " + sample.id;
      box.append(image(cell.image, alt, () => page.viewer.open(sample, index)));
      if (state.name !== "scored") box.append(make("div", { class: "state" }, why()));
    } else {
      box.append(make("div", { class: "state" }, why()));
    }
    if (reading) box.append(points(reading, view) || "");
    box.append(make("p", { class: "why free-text", dir: "auto", "data-why": index }));
    return box;
  }

  function tags(sample) {
    const shown = [sample.category, sample.difficulty, sample.repeat ? "repeat " + (sample.repeat + 1) : ""].filter(Boolean);
    const link = make("a", { href: "#samples?id=" + encodeURIComponent(sample.id) }, "sample " + sample.id);
    const required = sample.required.length ? make("span", { class: "free-text", dir: "auto" }, "required text: " + sample.required.join(" · ")) : null;
    return make("p", { class: "tags" }, shown.map((text) => make("span", { class: "free-text" }, words(text))), required, link);
  }

  // Rationale of the parsed score that the shown protocol uses.
  function rationale(cell, view) {
    const score = cell && (cell.scores || []).find((one) => one.scorer === view.scorer);
    if (!score) return "";
    const reading = score.readings.find((one) => one.name === view.reading) || score.readings[0];
    return reading.rationale || reading.reason;
  }

  function build(sample, position, shown, matching) {
    const view = page.data.views[page.view];
    const heading = make("h3", { dir: "auto", class: "free-text", id: "sample-" + position }, sample.prompt);
    const columns = shown.map((index) => imagePanel(sample, index, matching.includes(index)));
    if (sample.truth) {
      const alt = "ground truth of sample " + sample.id;
      columns.unshift(make("div", { class: "image-panel" }, make("h4", null, "Ground truth"), image(sample.truth, alt, () => page.viewer.open(sample, -1))));
    }
    const strip = make("div", { class: "strip" }, columns);
    const depth = make("div", { class: "depth" });
    const more = make("details", null, make("summary", null, "Details"), depth);
    const card = make("article", { class: "card", "data-id": sample.id, "aria-labelledby": heading.id }, make("header", null, heading, tags(sample)), strip, make("footer", null, page.trajectory(sample, position, shown), more));
    page.columns(card, columns.length);
    more.addEventListener("toggle", () => {
      card.classList.toggle("open", more.open);
      if (more.open && !depth.childElementCount) {
        details(position).then(
          (entry) => depth.replaceChildren(...page.depth(entry, shown)),
          (error) => depth.replaceChildren(make("p", null, error.message)),
        );
      }
    });
    details(position).then(
      (entry) => {
        for (const place of card.querySelectorAll("[data-why]")) place.textContent = rationale(entry.cells[Number(place.dataset.why)], view);
      },
      (error) => card.append(make("p", { class: "note" }, error.message)),
    );
    return card;
  }

  page.columns = (element, count) => {
    element.style.setProperty("--columns", String(Math.min(count, 5)));
    element.style.setProperty("--columns-middle", String(Math.min(count, 3)));
    element.style.setProperty("--columns-small", String(Math.min(count, 2)));
  };
  page.card = { build };
})();
