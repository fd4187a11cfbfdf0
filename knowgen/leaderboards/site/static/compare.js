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

  // Differences a - b: the data of the better ranked system hold "second minus first" for each system after it.
  function differences(pairs, a, b) {
    const turned = board.ranked.indexOf(a.slug) < board.ranked.indexOf(b.slug);
    const found = pairs[turned ? b.index : a.index];
    const negative = (one) => (one === null ? null : 0 - one);
    const read = (line) => {
      if (!line) return { value: null, low: null, high: null, corrected: null, n: 0, test: "", note: "no result" };
      const [value, low, high, corrected, n, test, note] = line;
      return turned ? { value: negative(value), low: negative(high), high: negative(low), corrected, n, test, note: note || "" } : { value, low, high, corrected, n, test, note: note || "" };
    };
    return { figures: found.figures.map(read), parts: found.parts.map(read) };
  }

  const short = (system) => (system.label.length > 28 ? system.label.slice(0, 27) + "…" : system.label);

  const p = (value) => (value < 0.001 ? "p < 0.001" : "p = " + value.toFixed(3));

  const isReal = (pair) => Boolean(pair.value) && pair.corrected !== null && pair.corrected <= board.level;
  const interval = (pair) => (pair.low === null ? pair.note || "" : signed(pair.low) + " to " + signed(pair.high));

  function sentences(a, b, pair, counts) {
    const real = isReal(pair);
    const ahead = pair.value > 0 ? [a, b] : [b, a];
    // An element does not end the isolates that a name opens, so that they would turn the rest of the sentence.
    const name = (system) => make("bdi", null, system.label.replace(/[\u202a-\u202e\u2066-\u2069]/g, ""));
    const names = (first, between, second) => [name(first), between, name(second)];
    const tested = pair.corrected !== null || pair.value === 0;
    const title = real ? names(ahead[0], " is ahead of ", ahead[1]) : names(a, " and ", b);
    if (pair.value === null) title.unshift("No comparison of ");
    else if (!real) title.unshift(tested ? "No clear difference between " : "Not tested: ");
    title.push((real ? " by " + number(Math.abs(pair.value)) : "") + (pair.value === null ? "" : " in " + board.score));
    const within = pair.low === null ? "no interval" + (pair.note ? ": " + pair.note : "") : "95 % interval from " + signed(pair.low) + " to " + signed(pair.high);
    const test = pair.corrected === null ? "" : ", " + p(pair.corrected) + (pair.test === "sign" ? " (sign test" : " (paired t-test") + (board.correction === "holm" ? ", corrected for all pairs)" : ")");
    const first = pair.value === null ? pair.note : "Paired difference " + signed(pair.value) + " (first minus second) on " + page.count(pair.n, "sample") + "; " + within + test + ".";
    const second = "The first system is better on " + page.count(counts.a, "sample") + ", equal on " + counts.equal + ", worse on " + counts.b + (counts.missing ? "; on " + counts.missing + " one of them has no value" : "") + ".";
    const answer = document.getElementById("answer");
    answer.replaceChildren(...title, ".");
    document.getElementById("sentences").replaceChildren(make("p", { class: "lede", dir: "auto" }, first), make("p", { class: "lede" }, second));
    document.title = answer.textContent.slice(0, -1) + " · knowgen leaderboards";
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

  const cell = (name, attributes, ...children) => make("td", { role: "cell", class: name, ...attributes }, ...children);
  const head = (name, ...children) => make("th", { role: "columnheader", scope: "col", class: name || null }, ...children);

  function line(a, b, title, link, first, second, pair) {
    const figure = (one, system) => cell("num", { "data-label": short(system) }, number(one[0]), " ", make("span", { class: "interval" }, one[1] === null ? one[4] || "" : number(one[1]) + "–" + number(one[2])));
    const ahead = isReal(pair) ? (pair.value > 0 ? a : b) : null;
    const tested = pair.corrected !== null || pair.value === 0;
    const verdict = pair.value === null ? "no comparison" : ahead ? [page.key(ahead), " better"] : tested ? "no clear difference" : "not tested";
    const label = title + ": " + page.figureText(a.label, first) + "; " + page.figureText(b.label, second);
    return make(
      "tr",
      { role: "row" },
      make("th", { role: "rowheader", scope: "row" }, link ? make("a", { href: link, class: "figure" }, title) : title),
      cell("num count", { "data-label": "n" }, String(pair.n)),
      figure(first, a),
      figure(second, b),
      cell("num spread", { "data-label": "Difference" }, signed(pair.value), " ", make("span", { class: "interval" }, interval(pair))),
      cell("free-text verdict", {}, verdict, ahead ? make("span", { class: "sr" }, ": " + ahead.label) : null),
      cell("plotted", {}, page.plot([{ system: a, figure: first }, { system: b, figure: second }], label)),
    );
  }

  function table(a, b, parts, found) {
    const ranking = board.ranking === "overall" ? 0 : board.dimensions.indexOf(board.ranking) + 1;
    const of = (part, system, figure) => part.figures[system.index][figure];
    const names = [board.overall, ...board.dimensions.map(page.words)];
    const whole = names.map((name, index) => line(a, b, name, "", of(parts[0], a, index), of(parts[0], b, index), found.figures[index]));
    const bodies = [["", whole]];
    for (const [kind, title] of [["group", "Groups"], ["difficulty", "Difficulty"], ["category", "Categories"]]) {
      const rows = parts.flatMap((part, index) => (part.kind === kind ? [line(a, b, part.title, part.page, of(part, a, ranking), of(part, b, ranking), found.parts[index])] : []));
      if (rows.length) bodies.push([title + ": " + board.score, rows]);
    }
    const scale = make("span", { class: "scale", "aria-hidden": "true" }, ["0", "0.25", "0.5", "0.75", "1"].map((text) => make("span", null, text)));
    const top = make("tr", { role: "row" }, head("", "Samples"), head("num", "n"), head("num", page.key(a), make("bdi", null, a.label)), head("num", page.key(b), make("bdi", null, b.label)), head("num", "Difference"), head("", "Verdict"), head("plotted", make("span", { class: "sr" }, "Intervals"), scale));
    const groups = bodies.map(([title, rows]) => make("tbody", { role: "rowgroup" }, title ? make("tr", { role: "row", class: "kind" }, make("th", { role: "rowheader", scope: "rowgroup", colspan: "7" }, title)) : null, rows));
    const caption = make("caption", null, "Figures and paired differences (first minus second) with 95 % intervals; p-values are corrected for all pairs within each figure and part");
    const made = make("table", { role: "table", class: "parts own-figures" }, caption, make("thead", { role: "rowgroup" }, top), groups);
    document.getElementById("part-table").replaceChildren(make("div", { class: "wide", role: "region", "aria-label": "Figures of both systems", tabindex: "0" }, made));
  }

  function entriesOf(samples, first, second) {
    return samples.map((sample, place) => {
      const [x, y] = [page.value(first[place]), page.value(second[place])];
      const gap = x === null || y === null ? null : x - y;
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
    const better = board.ranked.indexOf(a.slug) < board.ranked.indexOf(b.slug) ? a : b;
    const names = ["pairs-" + better.slug, "parts", "samples", "values-" + a.slug, "values-" + b.slug];
    return Promise.all(names.map(page.load)).then(
      ([pairs, parts, samples, first, second]) => {
        if (mine !== turn) return; // other systems were chosen meanwhile
        const entries = entriesOf(samples, first, second);
        systems = [a, b];
        if (shown !== a.slug + " " + b.slug) {
          shown = a.slug + " " + b.slug;
          const found = differences(pairs, a, b);
          const pair = found.parts[0];
          sentences(a, b, pair, tally(entries));
          differencePlot(a, b, pair);
          table(a, b, parts, found);
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
