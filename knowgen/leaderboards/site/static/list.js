"use strict";
// The samples of one system: filters live in the address, cards are built when they come near the viewport.
(() => {
  const page = window.KNOWGEN;
  const { make } = page;
  const board = page.board();
  const section = document.getElementById("samples");
  const system = board.systems[Number(section.dataset.system)];
  const form = document.getElementById("filters");
  const count = document.getElementById("match-count");
  for (const state of board.states) form.elements.state.append(make("option", { value: state.name }, state.words));
  const fill = page.bind(form, "samples");

  function build({ sample, place, line }) {
    const heading = make("h3", { class: "free-text", dir: "auto", id: "sample-" + place }, sample[1]);
    return make("article", { class: "card", "data-id": sample[0], "aria-labelledby": heading.id }, make("header", null, heading, page.tags(sample, true)), page.result(system, sample, place, line, false));
  }

  const list = page.growing(build);
  const bound = (value, otherwise) => (value && Number.isFinite(Number(value)) ? Number(value) : otherwise);

  function fits(entry, values) {
    const { sample, line } = entry;
    const reading = page.reading(line);
    if (values.group && sample[2] !== values.group) return false;
    if (values.category && sample[3] !== values.category) return false;
    if (values.difficulty && sample[4] !== values.difficulty) return false;
    if (values.state === "problem" ? !reading.missing : values.state && reading.state.name !== values.state) return false;
    if (values.min || values.max) {
      const value = page.value(line);
      if (value === null || value < bound(values.min, 0) - 1e-9 || value > bound(values.max, 1) + 1e-9) return false;
    }
    return page.matches((sample[1] + "\n" + sample[0]).toLowerCase(), values.q);
  }

  function sorted(entries, order) {
    if (order !== "low" && order !== "high") return entries;
    return page.byValue(entries, order === "low");
  }

  Promise.all([page.load("samples"), page.load("values-" + system.slug)]).then(
    ([samples, lines]) => {
      let before = null;
      page.address.listen((state) => {
        const asked = JSON.stringify(state.values);
        fill(state.values);
        if (asked === before) return;
        before = asked;
        const entries = samples.map((sample, place) => ({ sample, place, line: lines[place] })).filter((entry) => fits(entry, state.values));
        count.textContent = entries.length === samples.length ? page.count(samples.length, "sample") : entries.length ? entries.length + " of " + page.count(samples.length, "sample") : "No sample fits these filters.";
        list(sorted(entries, state.values.sort));
      });
      page.address.start();
    },
    (error) => (count.textContent = error.message),
  );
})();
