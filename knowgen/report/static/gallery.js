"use strict";
// Sample gallery: filters are read from the address, and cards are built when they come near the viewport.
(() => {
  const page = window.KNOWGEN;
  const BATCH = 16;
  const FIRST = 4; // cards that are built at once, so that a filter is answered before the others are built
  const KEPT = 120; // cards that keep their content wherever they are
  const form = document.getElementById("filters");
  const cards = document.getElementById("cards");
  const matchCount = document.getElementById("match-count");
  const more = document.getElementById("more");
  const NAMES = ["q", "system", "group", "category", "difficulty", "status", "by", "min", "max", "sort", "alone"];
  const { samples, systems, states } = page.data;
  const texts = samples.map(() => null);
  const entries = new WeakMap(); // of each card
  let queue = [];
  let next = 0;
  let shownSystems = [];
  let shownFor = "";

  function text(position) {
    if (texts[position] === null) {
      const sample = samples[position];
      const reasons = sample.cells.flatMap((cell) => (cell ? cell.readings.map((reading) => (reading ? reading[3] : "")) : []));
      texts[position] = [sample.prompt, sample.id, sample.category, sample.group, sample.difficulty, ...sample.required, ...reasons].join("\n").toLowerCase();
    }
    return texts[position];
  }

  const bound = (value, otherwise) => (value !== undefined && value !== "" && Number.isFinite(Number(value)) ? Number(value) : otherwise);

  // The value of an image that is filtered and sorted by: its score, or one dimension of it.
  function valueOf(reading, by) {
    const dimension = by ? page.data.views[page.view].dimensions.indexOf(by) : -1;
    return dimension < 0 ? reading[1] : reading[2][dimension];
  }

  // The dimensions of the scorer that is shown, as choices.
  function offerDimensions() {
    const field = form.elements.by;
    const names = page.data.views[page.view].dimensions;
    if (field.dataset.view === String(page.view)) return;
    field.dataset.view = String(page.view);
    field.replaceChildren(page.make("option", { value: "" }, "score"), ...names.map((name) => page.make("option", { value: name }, name)));
  }

  // Systems that match the filters for one sample.
  function fitting(sample, values, candidates) {
    const low = bound(values.min, null);
    const high = bound(values.max, null);
    return candidates.filter((index) => {
      const reading = sample.cells[index] && sample.cells[index].readings[page.view];
      if (!reading) return !values.status && !values.reason && low === null && high === null && !values.system && Boolean(sample.cells[index]);
      const state = states[reading[0]].name;
      if (values.status === "problem" ? state === "scored" : values.status && state !== values.status) return false;
      if (values.reason && !reading[3].startsWith(values.reason)) return false;
      const value = valueOf(reading, values.by);
      // The samples of a dimension's figure are those with a value in it.
      if (low === null && high === null) return !values.by || value !== null;
      return value !== null && value >= (low === null ? 0 : low) - 1e-9 && value <= (high === null ? 1 : high) + 1e-9;
    });
  }

  function score(entry, by) {
    const values = entry.matching.map((index) => entry.sample.cells[index].readings[page.view]).filter(Boolean).map((reading) => valueOf(reading, by)).filter((value) => value !== null);
    if (!values.length) return { low: null, high: null };
    return { low: Math.min(...values), high: Math.max(...values) };
  }

  const ORDERS = {
    low: (a, b) => a.score.low - b.score.low,
    high: (a, b) => b.score.high - a.score.high,
    apart: (a, b) => b.score.high - b.score.low - (a.score.high - a.score.low),
  };

  function select(values) {
    const chosen = systems.findIndex((system) => system.label === values.system);
    const candidates = chosen >= 0 ? [chosen] : systems.map((system, index) => index);
    const needles = (values.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    const matches = [];
    samples.forEach((sample, position) => {
      if (values.id && sample.id !== values.id) return;
      for (const name of ["group", "category", "difficulty"]) if (values[name] && sample[name] !== values[name]) return;
      if (needles.some((needle) => !text(position).includes(needle))) return;
      const matching = fitting(sample, values, candidates);
      if (matching.length) matches.push({ sample, position, matching });
    });
    const order = ORDERS[values.sort];
    if (order) {
      for (const entry of matches) entry.score = score(entry, values.by);
      // Samples without a score come last in every order.
      matches.sort((a, b) => (a.score.low === null) - (b.score.low === null) || (a.score.low === null ? 0 : order(a, b)) || a.position - b.position);
    }
    shownSystems = chosen >= 0 && values.alone ? [chosen] : systems.map((system, index) => index);
    return matches;
  }

  function showCount(matches, values) {
    const images = matches.reduce((sum, entry) => sum + entry.matching.length, 0);
    const count = (n, word) => n.toLocaleString("en") + " " + word + (n === 1 ? "" : "s");
    const filtered = NAMES.some((name) => values[name] && name !== "sort" && name !== "alone") || values.id || values.reason;
    matchCount.textContent = matches.length
      ? filtered
        ? count(matches.length, "sample") + " of " + samples.length.toLocaleString("en") + ", " + count(images, "result") + (values.reason ? " with the reason “" + values.reason + "”" : "")
        : count(matches.length, "sample")
      : "Nothing fits these filters.";
  }

  function build(entry) {
    const card = page.card.build(entry.sample, entry.position, shownSystems, entry.matching);
    entries.set(card, entry);
    return card;
  }

  function append(size) {
    const batch = queue.slice(next, next + size);
    const before = next;
    next += batch.length;
    const built = batch.map(build);
    cards.append(...built);
    if (next > KEPT) for (const card of before > KEPT ? built : cards.children) recycler.observe(card);
    // Observing again reports at once whether the end is still near.
    watcher.unobserve(more);
    if (next < queue.length) watcher.observe(more);
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting) && next < queue.length) append(BATCH);
    },
    { rootMargin: "1200px" },
  );

  // In a long list, a card far from the viewport gives up its content until it comes near again. One that the reader
  // opened, or that has the focus, keeps it.
  const recycler = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting, boundingClientRect } of changes) {
        if (isIntersecting) {
          const fresh = restore(target);
          if (fresh) recycler.observe(fresh);
        } else if (!target.querySelector("details[open]") && !target.contains(document.activeElement)) {
          target.style.setProperty("min-height", boundingClientRect.height + "px");
          target.replaceChildren();
        }
      }
    },
    { rootMargin: "6000px" },
  );

  function restore(card) {
    if (card.childElementCount || !card.isConnected) return null;
    const fresh = build(entries.get(card));
    recycler.unobserve(card);
    card.replaceWith(fresh);
    return fresh;
  }

  // On paper are the samples that were shown so far, up to a number, with a line that says so.
  const PRINTED = 96;
  window.addEventListener("beforeprint", () => {
    recycler.disconnect(); // on paper nothing is far away
    [...cards.children].forEach((card, place) => {
      card.classList.toggle("unprinted", place >= PRINTED);
      if (place < PRINTED) restore(card);
    });
    const count = Math.min(PRINTED, cards.childElementCount);
    document.getElementById("printed").textContent =
      count < queue.length ? count.toLocaleString("en") + " of these " + queue.length.toLocaleString("en") + " samples are printed: those that were shown on the screen, up to " + PRINTED + ". Filter or scroll to print others." : "";
  });

  window.addEventListener("afterprint", () => {
    if (next > KEPT) for (const card of cards.children) recycler.observe(card);
  });

  function fill(values) {
    for (const name of NAMES) {
      const field = form.elements[name];
      if (!field) continue;
      const value = field.type === "number" && bound(values[name], null) === null ? "" : values[name] || "";
      if (field.type === "checkbox") field.checked = Boolean(values[name]);
      else if (document.activeElement !== field || field.value.trim() !== value) field.value = value;
    }
  }

  function show(values) {
    offerDimensions();
    const requested = JSON.stringify([page.view, values.id, values.reason, ...NAMES.map((name) => values[name] || "")]);
    fill(values);
    if (requested === shownFor) return;
    shownFor = requested;
    recycler.disconnect();
    queue = select(values);
    next = 0;
    cards.classList.toggle("narrow", shownSystems.length === 1);
    cards.replaceChildren();
    showCount(queue, values);
    append(FIRST);
    // the others of the first batch after the next frame, wherever they are: a short list is complete, also on paper
    const mine = queue;
    requestAnimationFrame(() => setTimeout(() => queue === mine && next === FIRST && append(BATCH - FIRST), 0));
  }

  function current() {
    const values = { id: "", reason: "" };
    for (const name of NAMES) {
      const field = form.elements[name];
      if (field) values[name] = field.type === "checkbox" ? (field.checked ? "1" : "") : field.value.trim();
    }
    return values;
  }

  let typing = 0;
  form.addEventListener("input", (event) => {
    const typed = event.target.matches('input[type="search"], input[type="number"]');
    clearTimeout(typing);
    if (typed) typing = setTimeout(() => page.address.change("samples", current(), true), 100);
    else page.address.change("samples", current(), false);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    page.address.change("samples", Object.fromEntries(["id", "reason", ...NAMES].map((name) => [name, ""])), false);
  });

  // The next or previous sample of the filtered list with an image; null at its ends.
  function beside(sample, by) {
    const here = queue.findIndex((entry) => entry.sample === sample);
    for (let at = here + by; here >= 0 && at >= 0 && at < queue.length; at += by) {
      const found = queue[at].sample;
      if ((found.truth && !found.truth.fault) || found.cells.some((cell) => cell && cell.image && !cell.image.fault)) return found;
    }
    return null;
  }

  page.gallery = { show, beside };
  page.address.start();
})();
