"use strict";
// One sample over all systems. The sample and the order of the systems live in the address.
(() => {
  const page = window.KNOWGEN;
  const { make } = page;
  const board = page.board();
  const form = document.getElementById("choose");
  const cards = document.getElementById("cards");
  const count = document.getElementById("match-count");
  const found = document.getElementById("found");
  const matches = document.getElementById("matches");
  const MOST = 12;
  const fill = page.bind(form, "sample");
  let turn = 0;

  function card(system, sample, place, line) {
    return make("article", { class: "card", "data-system": system.slug }, page.result(system, sample, place, line, true));
  }

  function order(entries, wanted) {
    if (wanted === "board") return entries;
    return page.byValue(entries, wanted === "low");
  }

  function showMatches(samples, values) {
    matches.replaceChildren();
    if (!values.q) return (found.textContent = "");
    const hits = samples.filter((sample) => page.matches((sample[1] + "\n" + sample[0] + "\n" + page.words(sample[3])).toLowerCase(), values.q));
    found.textContent = hits.length ? page.count(hits.length, "sample") + (hits.length > MOST ? ", the first " + MOST + " are listed" : "") : "No sample fits.";
    matches.append(...hits.slice(0, MOST).map((sample) => make("li", null, make("a", { href: "#sample?id=" + encodeURIComponent(sample[0]) + (values.sort ? "&sort=" + values.sort : ""), class: "free-text", dir: "auto" }, sample[1] || sample[0]))));
    return undefined;
  }

  function step(samples, place, by) {
    const other = samples[place + by];
    if (other) page.address.change("sample", { id: other[0], q: "" }, false);
  }

  function show(samples, values) {
    const place = Math.max(0, samples.findIndex((sample) => sample[0] === values.id));
    const sample = samples[place];
    const unknown = values.id && sample[0] !== values.id;
    const mine = ++turn;
    fill(values);
    showMatches(samples, values);
    document.getElementById("prompt").textContent = sample[1];
    document.getElementById("tags").replaceWith(Object.assign(page.tags(sample, false), { id: "tags" }));
    document.title = sample[1].slice(0, 80) + " · knowgen leaderboards";
    if (unknown) found.textContent = "No sample has the id " + values.id + "; the first one is shown.";
    for (const [id, by] of [["previous", -1], ["next", 1]]) {
      const button = document.getElementById(id);
      button.setAttribute("aria-disabled", String(!samples[place + by]));
      button.onclick = () => step(samples, place, by);
    }
    return Promise.all(board.systems.map((system) => page.load("values-" + system.slug))).then(
      (lines) => {
        if (mine !== turn) return; // another sample was chosen meanwhile
        const entries = order(board.systems.map((system, index) => ({ system, place: index, line: lines[index][place] })), values.sort);
        const scored = entries.filter((entry) => page.value(entry.line) !== null).length;
        count.textContent = "Sample " + (place + 1) + " of " + samples.length + ": " + page.count(scored, "system") + " of " + entries.length + " with a value";
        cards.replaceChildren(...entries.map((entry) => card(entry.system, sample, place, entry.line)));
      },
      (error) => (count.textContent = error.message),
    );
  }

  page.load("samples").then(
    (samples) => {
      let before = null;
      page.address.listen((state) => {
        const asked = JSON.stringify(state.values);
        if (asked !== before) show(samples, state.values);
        before = asked;
      });
      page.address.start();
    },
    (error) => (count.textContent = error.message),
  );
})();
