"use strict";
// Two systems side by side: their paired difference, figures by part, and the samples where they differ most.
(() => {
  const page = window.KNOWGEN;
  const { make, number, signed } = page;
  const board = page.board();
  const form = document.getElementById("pair");
  if (!form) {
    page.address.start();
    return;
  }
  const filters = document.getElementById("filters");
  const count = document.getElementById("match-count");
  const EQUAL = 1e-9;
  const bySlug = new Map(board.systems.map((system, index) => [system.slug, { ...system, index }]));
  const offered = [...form.elements.a.options].map((option) => option.value);
  const fillPair = page.bind(form, "comparison");
  const fillFilters = page.bind(filters, "samples");
  let turn = 0;
  let shown = "";

  document.getElementById("swap").addEventListener("click", () => page.address.change("comparison", { a: form.elements.b.value, b: form.elements.a.value }, false));

  function choose(values) {
    const a = offered.includes(values.a) ? values.a : offered.find((slug) => slug !== values.b);
    const b = offered.includes(values.b) && values.b !== a ? values.b : offered.find((slug) => slug !== a);
    return [bySlug.get(a), bySlug.get(b)];
  }

  // The difference a - b: data hold "second minus first" for each pair in the order of the board.
  function difference(pairs, a, b) {
    const found = pairs.find(([x, y]) => (x === a.index && y === b.index) || (x === b.index && y === a.index));
    if (!found) return null;
    const [x, , value, low, high, p, corrected, n, note] = found;
    const turned = x === a.index; // the data say b - a
    const negative = (one) => (one === null ? null : 0 - one);
    return turned ? { value: negative(value), low: negative(high), high: negative(low), p, corrected, n, note } : { value, low, high, p, corrected, n, note };
  }

  const p = (value) => (value < 0.001 ? "p < 0.001" : "p = " + value.toFixed(3));

  function sentences(a, b, pair, counts) {
    const real = pair.corrected !== null && pair.corrected <= board.level;
    const ahead = pair.value > 0 ? [a, b] : [b, a];
    const title = pair.value === null ? "No comparison of " + a.label + " and " + b.label : real ? ahead[0].label + " is ahead of " + ahead[1].label + " by " + number(Math.abs(pair.value)) + " in " + board.score : a.label + " and " + b.label + " are not told apart in " + board.score;
    const interval = pair.low === null ? "no interval" + (pair.note ? ": " + pair.note : "") : "95 % interval from " + signed(pair.low) + " to " + signed(pair.high);
    const test = pair.corrected === null ? "" : ", " + p(pair.corrected) + (board.correction === "holm" ? ", corrected for " + page.count(board.pairs, "pair") : "");
    const first = pair.value === null ? pair.note : "Paired difference " + signed(pair.value) + " (first minus second) on " + page.count(pair.n, "sample") + "; " + interval + test + ".";
    const second = "The first system is better on " + page.count(counts.a, "sample") + ", equal on " + counts.equal + ", worse on " + counts.b + (counts.missing ? "; on " + counts.missing + " one of them has no value" : "") + ".";
    document.getElementById("answer").textContent = title + ".";
    document.getElementById("sentences").replaceChildren(make("p", { class: "lede", dir: "auto" }, first), make("p", { class: "lede" }, second));
    document.title = title + " · knowgen leaderboards";
  }

  function differencePlot(a, b, pair) {
    const box = document.getElementById("difference");
    if (pair.value === null) return box.replaceChildren();
    const reach = Math.max(0.1, Math.ceil(10 * Math.max(Math.abs(pair.low ?? pair.value), Math.abs(pair.high ?? pair.value))) / 10);
    const leader = pair.value >= 0 ? a : b;
    const label = "paired difference " + signed(pair.value) + (pair.low === null ? "" : ", 95 % interval " + signed(pair.low) + " to " + signed(pair.high));
    const scale = make("span", { class: "scale", "aria-hidden": "true" }, [-1, -0.5, 0, 0.5, 1].map((at) => make("span", null, signed(at * reach).replace(/0+$/, "").replace(/\.$/, ""))));
    const ends = make("p", { class: "ends" }, make("span", { class: "system" }, "← ", page.key(b), make("bdi", null, b.label), " ahead"), make("span", { class: "system" }, page.key(a), make("bdi", null, a.label), " ahead →"));
    const plot = page.plot([{ system: leader, figure: [pair.value, pair.low, pair.high] }], label, -reach, reach);
    plot.classList.add("centred");
    box.replaceChildren(make("figure", { class: "small difference" }, make("figcaption", null, "Paired difference"), plot, scale, ends));
    return undefined;
  }

  function table(a, b, parts) {
    const cell = (name, attributes, ...children) => make("td", { role: "cell", class: name, ...attributes }, ...children);
    const figures = (part, system) => part.figures[system.index][board.ranking === "overall" ? 0 : board.dimensions.indexOf(board.ranking) + 1];
    const figure = (one, system) => cell("num", { "data-label": system.label }, number(one[0]), " ", make("span", { class: "interval" }, one[1] === null ? one[4] || "" : number(one[1]) + "–" + number(one[2])));
    const body = (members) =>
      members.map((part) => {
        const [first, second] = [figures(part, a), figures(part, b)];
        const gap = first[0] === null || second[0] === null ? null : first[0] - second[0];
        const name = part.page ? make("a", { href: part.page, class: "figure" }, part.title) : part.title;
        return make(
          "tr",
          { role: "row" },
          make("th", { role: "rowheader", scope: "row" }, name),
          cell("num count", { "data-label": "n" }, first[3] === second[3] ? String(first[3]) : first[3] + "/" + second[3]),
          figure(first, a),
          figure(second, b),
          cell("num", { "data-label": "Difference" }, signed(gap)),
          cell("plotted", {}, page.plot([{ system: a, figure: first }, { system: b, figure: second }], part.title + ": " + page.figureText(a.label, first) + "; " + page.figureText(b.label, second))),
        );
      });
    const head = (name, ...children) => make("th", { role: "columnheader", scope: "col", class: name || null }, ...children);
    const scale = make("span", { class: "scale", "aria-hidden": "true" }, ["0", "0.25", "0.5", "0.75", "1"].map((text) => make("span", null, text)));
    const top = make("tr", { role: "row" }, head("", "Samples"), head("num", "n"), head("num", page.key(a), make("bdi", null, a.label)), head("num", page.key(b), make("bdi", null, b.label)), head("num", "Difference"), head("plotted", make("span", { class: "sr" }, "Intervals"), scale));
    const kinds = [["all", ""], ["group", "Groups"], ["difficulty", "Difficulty"], ["category", "Categories"]];
    const bodies = kinds.map(([kind, title]) => {
      const members = parts.filter((part) => part.kind === kind);
      const line = title && members.length ? make("tr", { role: "row", class: "kind" }, make("th", { role: "rowheader", scope: "rowgroup", colspan: "6" }, title)) : null;
      return make("tbody", { role: "rowgroup" }, line, body(members));
    });
    const whole = make("table", { role: "table", class: "parts own-figures" }, make("caption", null, board.score + " with 95 % intervals; the difference is first minus second, of the two figures"), make("thead", { role: "rowgroup" }, top), bodies);
    document.getElementById("part-table").replaceChildren(make("div", { class: "wide", role: "region", "aria-label": "Figures of both systems", tabindex: "0" }, whole));
  }

  function entriesOf(samples, first, second) {
    return samples.map((sample, place) => {
      const [x, y] = [first[place] && first[place][2], second[place] && second[place][2]];
      const gap = x === null || y === null || x === undefined || y === undefined ? null : x - y;
      const better = gap === null ? "missing" : Math.abs(gap) <= EQUAL ? "equal" : gap > 0 ? "a" : "b";
      return { sample, place, gap, better, lines: [first[place], second[place]] };
    });
  }

  function tally(entries) {
    const counts = { a: 0, b: 0, equal: 0, missing: 0 };
    for (const entry of entries) counts[entry.better] += 1;
    return counts;
  }

  let systems = [];
  const list = page.growing(({ sample, place, gap, lines }) => {
    const heading = make("h3", { class: "free-text", dir: "auto", id: "sample-" + place }, sample[1]);
    const strip = make("div", { class: "strip" }, systems.map((system, index) => page.result(system, sample, place, lines[index], true)));
    const apart = make("p", { class: "paired-line" }, make("b", null, signed(gap)), gap === null ? "one of them has no value" : "first minus second");
    return make("article", { class: "card", "data-id": sample[0], "aria-labelledby": heading.id }, make("header", null, heading, page.tags(sample, true)), apart, strip);
  });

  function showSamples(entries, values) {
    const fits = ({ sample, better }) => (!values.better || better === values.better) && (!values.category || sample[3] === values.category) && (!values.difficulty || sample[4] === values.difficulty) && page.matches((sample[1] + "\n" + sample[0]).toLowerCase(), values.q);
    const found = entries.filter(fits).sort((x, y) => (x.gap === null) - (y.gap === null) || Math.abs(y.gap) - Math.abs(x.gap) || x.place - y.place);
    count.textContent = found.length === entries.length ? page.count(found.length, "sample") + ", the largest difference first" : found.length ? found.length + " of " + page.count(entries.length, "sample") + ", the largest difference first" : "No sample fits these filters.";
    list(found);
  }

  function show(values) {
    const [a, b] = choose(values);
    const mine = ++turn;
    fillPair({ a: a.slug, b: b.slug });
    fillFilters(values);
    const names = ["pairs", "parts", "samples", "values-" + a.slug, "values-" + b.slug];
    return Promise.all(names.map(page.load)).then(
      ([pairs, parts, samples, first, second]) => {
        if (mine !== turn) return; // other systems were chosen meanwhile
        const entries = entriesOf(samples, first, second);
        systems = [a, b];
        if (shown !== a.slug + " " + b.slug) {
          shown = a.slug + " " + b.slug;
          const pair = difference(pairs, a, b) || { value: null, low: null, high: null, corrected: null, n: 0, note: "no result" };
          sentences(a, b, pair, tally(entries));
          differencePlot(a, b, pair);
          table(a, b, parts);
        }
        showSamples(entries, values);
        document.getElementById("comparison").dataset.shown = shown;
      },
      (error) => (count.textContent = error.message),
    );
  }

  let before = null;
  page.address.listen((state) => {
    const asked = JSON.stringify(state.values);
    if (asked !== before) show(state.values);
    before = asked;
  });
  page.address.start();
})();
