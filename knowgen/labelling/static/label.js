"use strict";
// Ask for one image or pair after the other, and send the answers. Nothing that comes from the server is parsed as HTML.
(() => {
  const $ = (id) => document.getElementById(id);
  const body = document.body;
  const pairs = body.dataset.mode === "pairs";
  const rows = () => [...document.querySelectorAll(".dimension:not([data-fixed])")];
  let rater = body.dataset.rater;
  let item = null;
  let since = 0;
  let busy = false;
  let begun = false;
  let marked = 0;
  const narrow = window.matchMedia("(max-width: 60rem)");
  let again = null; // the request that failed
  const SETTLE = 250; // milliseconds in which a second press of a key does not yet answer the next item
  let shown = 0; // number of the display: images and timers of an earlier one do not count

  function stored(name, value) {
    try {
      if (value !== undefined) sessionStorage.setItem(name, value);
      return sessionStorage.getItem(name) || "";
    } catch (error) {
      return value || ""; // without storage the name is asked for again when the page is loaded again
    }
  }

  function make(tag, settings, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(settings)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // -- requests -----------------------------------------------------------------------------------------------------

  async function ask(path, fields) {
    if (busy) return;
    busy = true;
    body.setAttribute("aria-busy", "true");
    let state = null;
    let words = "";
    try {
      const answer = await fetch("/api/" + path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ rater, ...fields }),
      });
      state = await answer.json();
      if (!answer.ok) words = state.error || "The server answered with error " + answer.status + ".";
    } catch (error) {
      words = "The server does not answer. Your answer is not stored; start the server again, then try again.";
    }
    busy = false;
    body.removeAttribute("aria-busy");
    again = words ? () => ask(path, fields) : null;
    $("fault").hidden = !words;
    $("fault-text").textContent = words;
    if (words) {
      if (!begun && !body.dataset.rater) start();
      return;
    }
    show(state, path === "undo");
  }

  // -- what is shown ------------------------------------------------------------------------------------------------

  function start() {
    $("task").hidden = $("finished").hidden = $("progress").hidden = true;
    $("start").hidden = false;
    $("name").value = stored("rater");
    $("name").focus();
  }

  function show(state, undone) {
    rater = stored("rater", state.rater);
    item = state.item;
    begun = true;
    $("start").hidden = true;
    $("progress").hidden = $("keys-switch").hidden = false;
    $("bar").max = Math.max(1, state.total);
    $("bar").value = state.done;
    $("count").textContent = state.done + " of " + state.total;
    $("task").hidden = !item;
    $("finished").hidden = Boolean(item);
    $("undo").setAttribute("aria-disabled", String(!state.done));
    if (item) showItem(state, undone);
    else finished(state);
  }

  function finished(state) {
    const skipped = state.skipped ? ", " + state.skipped + " of them skipped" : "";
    $("finished-text").textContent = "You have answered " + state.done + " of " + state.total + skipped + ". You can close this page.";
    $("undo-last").hidden = !state.done;
    $("finished-title").focus();
  }

  function showItem(state, undone) {
    const noun = pairs ? "Pair " : "Image ";
    const number = noun + (state.done + 1) + " of " + state.total;
    $("number").textContent = number + ". Prompt: ";
    $("said").textContent = (undone ? "Answer taken back. " : "") + number;
    $("prompt").textContent = item.prompt;
    const names = pairs ? ["Image A", "Image B"] : ["Image"];
    const figures = item.images.map((id, place) => figure(names[place], id, false));
    if (item.truth) figures.push(figure("Ground truth", item.truth, true));
    $("pictures").replaceChildren(...figures);
    $("hide").hidden = !item.truth;
    showTruth();
    waitForImages();
    if (pairs) showChoice();
    else showValues();
    window.scrollTo(0, 0);
    since = performance.now();
    if (pairs) $("task-title").focus({ preventScroll: true });
    else if (narrow.matches) showFirst(); // the image stays in view; the rows are below it
    else mark(firstOpen());
  }

  function showFirst() {
    mark(firstOpen(), false);
    $("task-title").focus({ preventScroll: true });
  }

  function figure(title, id, isTruth) {
    const image = make("img", { src: "/image/" + encodeURIComponent(id), alt: title, decoding: "async" });
    const button = make("button", { type: "button", "aria-label": "Enlarge: " + title }, image);
    const whole = make("figure", { class: isTruth ? "picture truth" : "picture" }, make("figcaption", {}, title), button);
    image.addEventListener("load", () => (since = performance.now()), { once: true });
    image.addEventListener("error", () => {
      const lines = [make("b", {}, "This image does not load."), make("span", {}, "Skip it, or load the page again.")];
      button.replaceWith(make("div", { class: "state" }, ...lines));
    });
    button.addEventListener("click", () => enlarge(isTruth ? pictures().length - 1 : item.images.indexOf(id)));
    return whole;
  }

  // An answer is taken when all images have been seen for a moment. Where one to be judged does not load, only a skip is.
  function waitForImages() {
    const now = ++shown;
    const images = [...document.querySelectorAll(".picture img")];
    let open = images.length;
    body.dataset.ready = "no";
    const settled = (state) => {
      if (now !== shown) return;
      if (state === "broken") body.dataset.ready = "broken";
      open -= 1;
      if (open === 0 && body.dataset.ready === "no") setTimeout(() => now === shown && (body.dataset.ready = "yes"), SETTLE);
    };
    for (const image of images) {
      image.addEventListener("load", () => settled("loaded"), { once: true });
      const fault = image.closest(".truth") ? "missing" : "broken"; // now: a picture that fails is replaced
      image.addEventListener("error", () => settled(fault), { once: true });
    }
  }

  function canAnswer() {
    if (body.dataset.ready === "yes") return true;
    $("said").textContent = body.dataset.ready === "broken" ? "An image does not load. Skip it, or load the page again." : "Not stored: the images are not shown yet.";
    return false;
  }

  function pictures() {
    const shown = [...document.querySelectorAll(".picture:not([hidden]) img")];
    return shown.map((image) => ({ title: image.alt, source: image.src }));
  }

  function enlarge(place) {
    window.KNOWGEN_ZOOM.open(pictures(), Math.max(0, place));
  }

  function showTruth() {
    const hidden = $("hide").getAttribute("aria-pressed") === "true";
    const truth = document.querySelector(".picture.truth");
    if (truth) truth.hidden = hidden;
    $("pictures").style.setProperty("--shown", document.querySelectorAll(".picture:not([hidden])").length);
  }

  function showChoice() {
    const chosen = item.earlier ? item.earlier.choice : "";
    for (const button of document.querySelectorAll(".choice")) {
      if (button.dataset.choice === chosen) button.setAttribute("aria-pressed", "true");
      else button.removeAttribute("aria-pressed");
    }
  }

  function showValues() {
    $("rating").reset();
    for (const row of document.querySelectorAll(".dimension")) {
      const isText = row.dataset.name === body.dataset.text;
      const fixed = isText && item.text_required === false;
      for (const level of row.querySelectorAll(".level")) {
        const isNa = "na" in level.dataset;
        level.hidden = isNa ? item.text_required === true : fixed;
        level.querySelector("input").disabled = level.hidden;
        if (isNa && fixed) level.querySelector("input").checked = true;
      }
      row.toggleAttribute("data-fixed", fixed);
    }
    if (!item.earlier) return;
    for (const [name, value] of Object.entries(item.earlier.values)) pick(name, String(value));
    for (const name of item.earlier.na) pick(name, "na");
  }

  function pick(name, value) {
    const found = [...$("rating").querySelectorAll("input")].find((each) => each.name === name && each.value === value);
    if (found && !found.disabled) found.checked = true;
    return Boolean(found && !found.disabled);
  }

  // -- rows of a rating ---------------------------------------------------------------------------------------------

  const chosen = (row) => row.querySelector("input:checked");
  const firstOpen = () => rows().findIndex((row) => !chosen(row));

  function mark(place, focus = true) {
    const list = rows();
    if (!list.length) return;
    if (place < 0 || place >= list.length) {
      marked = -1;
      for (const row of document.querySelectorAll(".dimension")) row.classList.remove("marked");
      if (focus) $("submit").focus({ preventScroll: true });
      return;
    }
    marked = place;
    for (const row of document.querySelectorAll(".dimension")) row.classList.toggle("marked", row === list[place]);
    if (!focus) return;
    const target = chosen(list[place]) || list[place].querySelector("input:not(:disabled)");
    target.focus({ preventScroll: true });
    list[place].scrollIntoView({ block: "nearest" });
  }

  function rate(value) {
    const row = rows()[marked];
    if (!row || !pick(row.dataset.name, value)) return;
    const open = firstOpen();
    mark(marked + 1 < rows().length && open >= 0 ? (chosen(rows()[marked + 1]) ? open : marked + 1) : open);
  }

  function submit() {
    const open = firstOpen();
    if (open >= 0) {
      $("said").textContent = "Not rated yet: " + rows()[open].querySelector("legend").textContent;
      mark(open);
      return;
    }
    const values = {};
    for (const input of $("rating").querySelectorAll("input:checked")) values[input.name] = input.value === "na" ? null : Number(input.value);
    if (canAnswer()) send({ values });
  }

  // -- answers ------------------------------------------------------------------------------------------------------

  function send(answer) {
    if (item) ask("label", { item: item.id, seconds: (performance.now() - since) / 1000, ...answer });
  }

  function choose(choice) {
    if (item && canAnswer()) send({ choice });
  }

  function undo() {
    if ($("undo").getAttribute("aria-disabled") !== "true") ask("undo", {});
  }

  function toggleTruth() {
    const pressed = $("hide").getAttribute("aria-pressed") === "true";
    $("hide").setAttribute("aria-pressed", String(!pressed));
    showTruth();
    $("said").textContent = pressed ? "Ground truth shown" : "Ground truth hidden";
  }

  function skip(reason) {
    $("skip").close();
    send({ skipped: reason });
  }

  // -- keys ---------------------------------------------------------------------------------------------------------

  const SHARED = { u: undo, z: () => enlarge(0), g: () => item.truth && toggleTruth(), s: () => $("skip").showModal() };
  const choices = [...document.querySelectorAll(".choice")].map((one) => [one.getAttribute("aria-keyshortcuts").toLowerCase(), () => choose(one.dataset.choice)]);
  const KEYS = pairs
    ? { ...Object.fromEntries(choices), ...SHARED }
    : { 1: () => rate("1"), 2: () => rate("0.5"), 3: () => rate("0"), n: () => rate("na"), j: () => mark(Math.min(marked < 0 ? 0 : marked + 1, rows().length - 1)), k: () => mark(marked < 0 ? rows().length - 1 : Math.max(0, marked - 1)), ...SHARED };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if ($("zoom").open) return;
    if ($("skip").open) {
      const reasons = [...document.querySelectorAll("[data-skip]")];
      if ($("keys").checked && reasons[Number(event.key) - 1]) skip(reasons[Number(event.key) - 1].dataset.skip);
      return;
    }
    if (event.target instanceof HTMLInputElement && event.target.type === "text") return;
    const onRow = event.target instanceof HTMLInputElement && event.target.type === "radio";
    if (event.key === "Enter" && !pairs && item && (onRow || event.target === body || event.target === $("task-title"))) {
      event.preventDefault();
      submit();
      return;
    }
    if (!$("keys").checked) return;
    if (!item && event.key.toLowerCase() === "u" && !$("finished").hidden) return void ask("undo", {});
    const act = item ? KEYS[event.key.toLowerCase()] : null;
    if (!act) return;
    event.preventDefault();
    act();
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (location.search) history.replaceState(null, "", "/"); // the token does not stay in the address
    document.addEventListener("keydown", onKey);
    $("keys").checked = stored("keys") !== "off";
    const listed = () => (body.dataset.keys = stored("keys") === "off" ? "off" : "on");
    listed();
    $("keys").addEventListener("change", () => {
      stored("keys", $("keys").checked ? "on" : "off");
      listed();
    });
    $("who").addEventListener("submit", (event) => {
      event.preventDefault();
      rater = $("name").value;
      ask("next", {});
    });
    $("retry").addEventListener("click", () => again && again());
    $("undo").addEventListener("click", undo);
    $("undo-last").addEventListener("click", () => ask("undo", {}));
    $("hide").addEventListener("click", toggleTruth);
    $("zoom-open").addEventListener("click", () => enlarge(0));
    $("skip-open").addEventListener("click", () => $("skip").showModal());
    $("skip-close").addEventListener("click", () => $("skip").close());
    for (const button of document.querySelectorAll("[data-skip]")) button.addEventListener("click", () => skip(button.dataset.skip));
    for (const button of document.querySelectorAll(".choice")) button.addEventListener("click", () => choose(button.dataset.choice));
    if (!pairs) {
      $("rating").addEventListener("submit", (event) => {
        event.preventDefault();
        submit();
      });
      $("rating").addEventListener("focusin", (event) => {
        const place = rows().indexOf(event.target.closest(".dimension"));
        if (place >= 0 && place !== marked) mark(place, false);
      });
    }
    rater = rater || stored("rater");
    if (rater) ask("next", {});
    else start();
  });
})();
