"use strict";
// What the pages of a board share: figures as dots with intervals, results of a sample, and lists built as they are read.
(() => {
  const page = window.KNOWGEN;
  const { make, number } = page;
  const SPACE = "http://www.w3.org/2000/svg";
  const BATCH = 16;

  page.unfold = (section) => {
    const fold = section.querySelector(":scope > details");
    if (fold) fold.open = true;
  };

  page.address.listen((state, go) => {
    if (go && state.section) page.reveal(state.section, document);
  });

  page.board = () => window.KNOWGEN_DATA.systems;
  page.words = (name) => name.replaceAll("_", " ");
  page.signed = (value) => {
    if (value === null || value === undefined) return "–";
    const text = Math.abs(value).toFixed(3);
    return Number(text) === 0 ? text : (value < 0 ? "\u2212" : "+") + text;
  };
  page.count = (n, word) => n.toLocaleString("en") + " " + word + (n === 1 ? "" : "s");

  function svg(tag, attributes, ...children) {
    const element = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Dots with their intervals on one scale from `low` to `high`; a figure is [value, low, high].
  page.plot = (dots, label, low = 0, high = 1) => {
    const place = (value) => (100 * Math.min(1, Math.max(0, (value - low) / (high - low)))).toFixed(2) + "%";
    const lane = dots.length > 1 ? 14 : 20;
    const lines = [0, 0.25, 0.5, 0.75, 1].map((at) => svg("line", { class: "grid", x1: 100 * at + "%", x2: 100 * at + "%", y1: 0, y2: "100%" }));
    const marks = dots.flatMap(({ system, figure }, index) => {
      if (figure[0] === null) return [];
      const y = 4.5 + lane * (index + 0.5);
      const group = svg("g", { class: "c" + system.colour });
      if (figure[1] !== null && figure[2] !== null) group.append(svg("line", { class: "range", x1: place(figure[1]), x2: place(figure[2]), y1: y, y2: y }));
      group.append(svg("svg", { x: place(figure[0]), y, overflow: "visible" }, svg("path", { class: "halo", d: system.outline })));
      return [group];
    });
    return svg("svg", { class: "plot", width: "100%", height: lane * dots.length + 9, role: "img", "aria-label": label }, ...lines, ...marks);
  };

  page.figureText = (label, figure) => {
    if (figure[0] === null) return label + ": no value" + (figure[4] ? ", " + figure[4] : "");
    const within = figure[1] !== null ? ", 95 % interval " + number(figure[1]) + " to " + number(figure[2]) : "";
    return label + ": " + number(figure[0]) + within + ", " + page.count(figure[3], "sample");
  };

  page.sampleLink = (id, text, tag) => make("a", { href: "sample.html#sample?id=" + encodeURIComponent(id), class: tag || null }, text);

  // One line of the values of a system: [state, missing, overall, …dimensions], null if it does not have the sample.
  page.reading = (line) =>
    line ? { state: page.board().states[line[0]], missing: line[1], overall: line[2], values: line.slice(3) } : { state: { name: "absent", words: "not in the submission", counts: "excluded" }, missing: 1, overall: null, values: [] };

  // What a line counts as in the figure that ranks the systems; null if it is left out.
  page.value = (line) => {
    const { ranking, dimensions } = page.board();
    return line ? line[ranking === "overall" ? 2 : dimensions.indexOf(ranking) + 3] : null;
  };

  // Order entries by their value; those without one come last in every order.
  page.byValue = (entries, up) => {
    const sign = up ? 1 : -1;
    const compare = (x, y) => (x === null) - (y === null) || sign * (x - y);
    return entries.sort((a, b) => compare(page.value(a.line), page.value(b.line)) || a.place - b.place);
  };

  page.texts = (system, place) => {
    const size = page.board().chunk;
    return page.load("results-" + system.slug + "-" + Math.floor(place / size)).then((lines) => lines[place % size]);
  };

  function points(reading) {
    const { dimensions } = page.board();
    return make(
      "p",
      { class: "points" },
      make("b", { title: "what the sample counts as" }, number(reading.overall)),
      reading.values.map((value, index) => make("span", null, make("abbr", { title: page.words(dimensions[index]) }, dimensions[index].slice(0, 1).toUpperCase()), " ", make("i", null, number(value)))),
    );
  }

  function missing(state, reason) {
    return make("div", { class: "state" }, make("b", null, state), make("span", { dir: "auto", class: "free-text" }, reason || ""));
  }

  function picture(generation, alt) {
    const image = generation.image;
    if (!image) return missing(page.words("generation " + generation.status), generation.reason);
    if (image.fault) return missing("image not shown", image.fault);
    if (!image.thumbnail) return make("p", { class: "counts" }, "The submission has no thumbnail of its image.");
    const shown = make("img", { src: "../img/" + image.thumbnail, width: image.width, height: image.height, alt, loading: "lazy", decoding: "async" });
    return make("div", { class: "frame" }, shown);
  }

  function pair(name, value) {
    return value ? [make("dt", null, name), make("dd", { dir: "auto", class: "free-text" }, value)] : [];
  }

  function scoreDetails(score, several, index) {
    const values = (score.values || []).map(([name, value]) => page.words(name) + " " + number(value)).join(", ");
    const none = (score.na || []).map(page.words).join(", ");
    return [
      several ? make("h5", null, "Score " + (index + 1)) : null,
      make("dl", { class: "pairs" }, pair("status", score.status === "ok" ? "" : page.words(score.status)), pair("why", score.reason), pair("values", values), pair("not applicable", none), pair("judge", score.judge), pair("rationale", score.rationale)),
    ];
  }

  function generationDetails(one, several) {
    return [
      several ? make("h4", null, "Image " + (one.repeat + 1)) : null,
      make(
        "dl",
        { class: "pairs" },
        pair("drawn from", one.prompt),
        pair("agent ended", page.words(one.ending || "")),
        pair("agent's answer", one.answer),
        pair("answer not used", one.fallback),
        pair("time", one.seconds === undefined ? "" : one.seconds.toFixed(2) + " s"),
        pair("cost", one.cost === undefined ? "" : "$" + one.cost),
        pair("image", one.image ? one.image.width + " × " + one.image.height + ", SHA-256 " + one.image.sha256 + "…" : ""),
      ),
      ...(one.scores || []).flatMap((score, index) => scoreDetails(score, one.scores.length > 1, index)),
    ];
  }

  function rationale(generations) {
    const scores = generations.flatMap((one) => one.scores || []);
    const found = scores.find((score) => score.rationale) || scores.find((score) => score.reason);
    return found ? found.rationale || found.reason : "";
  }

  // Images, values and rationale of a system on a sample; the texts arrive later.
  page.result = (system, sample, place, line, heading) => {
    const reading = page.reading(line);
    const box = make("div", { class: "image-panel" });
    if (heading) box.append(make("h4", null, page.key(system), make("a", { href: system.page, class: "figure" }, make("bdi", null, system.label))));
    const images = make("div", { class: "images" });
    const why = make("p", { class: "why free-text", dir: "auto" });
    const depth = make("details", { class: "depths" }, make("summary", null, "Details", heading ? make("span", { class: "sr" }, " of " + system.label) : null));
    box.append(images, points(reading));
    if (reading.state.name !== "scored") box.append(make("p", { class: "counts" }, make("b", null, reading.state.words), reading.state.counts ? " · counts as " + reading.state.counts : ""));
    box.append(why, depth);
    if (!line) {
      images.append(missing(reading.state.words, ""));
      depth.remove();
      return box;
    }
    page.texts(system, place).then(
      (generations) => {
        for (const one of generations) {
          const several = generations.length > 1 ? ", image " + (one.repeat + 1) : "";
          const shown = picture(one, "generated image of " + system.label + " for sample " + sample[0] + several);
          if (shown) images.append(shown);
        }
        why.textContent = rationale(generations);
        depth.append(...generations.flatMap((one) => generationDetails(one, generations.length > 1)).filter(Boolean));
      },
      (error) => why.replaceChildren(error.message),
    );
    return box;
  };

  page.tags = (sample, link) =>
    make(
      "p",
      { class: "tags" },
      [sample[3], sample[4]].filter(Boolean).map((text) => make("span", { class: "free-text" }, page.words(text))),
      link ? page.sampleLink(sample[0], "sample " + sample[0]) : make("span", null, "sample " + sample[0]),
    );

  // A list whose cards are built when they come near the end of the page.
  page.growing = (build) => {
    const cards = document.getElementById("cards");
    const more = document.getElementById("more");
    let queue = [];
    let next = 0;
    function append() {
      const batch = queue.slice(next, next + BATCH);
      next += batch.length;
      cards.append(...batch.map(build));
      watcher.unobserve(more); // observing again reports at once whether the end is still near
      if (next < queue.length) watcher.observe(more);
    }
    const watcher = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && next < queue.length && append(), { rootMargin: "1200px" });
    return (entries) => {
      queue = entries;
      next = 0;
      cards.replaceChildren();
      append();
    };
  };

  // Fields of a form whose values live in the address, under a section's name.
  page.bind = (form, section, extra) => {
    const names = [...form.elements].map((field) => field.name).filter(Boolean);
    let typing = 0;
    const current = () => Object.fromEntries(names.map((name) => [name, form.elements[name].value.trim()]));
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      clearTimeout(typing);
      const typed = event.target.matches('input[type="search"], input[type="number"]');
      if (typed) typing = setTimeout(() => page.address.change(section, current(), true), 150);
      else page.address.change(section, current(), false);
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      page.address.change(section, Object.fromEntries([...names, ...(extra || [])].map((name) => [name, ""])), false);
    });
    return (values) => {
      for (const name of names) {
        const field = form.elements[name];
        const value = values[name] || "";
        if (field.tagName === "SELECT") field.value = [...field.options].some((option) => option.value === value) ? value : field.options[0] ? field.options[0].value : "";
        else if (document.activeElement !== field || field.value.trim() !== value) field.value = value;
      }
    };
  };

  page.matches = (text, query) => (query || "").toLowerCase().split(/\s+/).filter(Boolean).every((word) => text.includes(word));
})();
