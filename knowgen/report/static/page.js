"use strict";
// Which scorer and protocol is shown, which measure the breakdown shows, and following links of the page.
(() => {
  const page = window.KNOWGEN;
  const panels = [...document.querySelectorAll("[data-view]")];
  const scorer = document.getElementById("scorer");
  const protocols = [...document.querySelectorAll('#protocol input[name="protocol"]')];

  // Best matching panel: the scorer counts more than the protocol; the first panel if none matches.
  function panelFor(values) {
    const fit = (panel) =>
      (panel.dataset.scorer === values.scorer ? 2 : 0) + (panel.dataset.protocol === values.protocol ? 1 : 0);
    return panels.reduce((best, panel) => (fit(panel) > fit(best) ? panel : best), panels[0]);
  }

  function showView(values) {
    const chosen = panelFor({
      scorer: values.scorer || panels[0].dataset.scorer,
      protocol: values.protocol || panels[0].dataset.protocol,
    });
    for (const panel of panels) panel.hidden = panel !== chosen;
    if (scorer) scorer.value = chosen.dataset.scorer;
    for (const radio of protocols) radio.checked = radio.value === chosen.dataset.protocol;
    page.view = Number(chosen.dataset.view);
    showMeasure(chosen, values.measure);
    return chosen;
  }

  function showMeasure(panel, name) {
    const blocks = [...panel.querySelectorAll("[data-measured]")];
    const shown = blocks.find((block) => block.dataset.measured === name) || blocks[0];
    for (const block of blocks) block.hidden = block !== shown;
    panel.querySelector("[data-measure]").value = shown.dataset.measured;
  }

  function scrollTo(section, panel) {
    const target = panel.querySelector('[data-section="' + CSS.escape(section) + '"]') || document.getElementById(section);
    if (!target) return;
    page.unfold(target);
    target.scrollIntoView();
    const heading = target.querySelector("h1, h2");
    if (heading) {
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
  }

  page.address.listen((state, go) => {
    const panel = showView(state.values);
    if (page.gallery) page.gallery.show(state.values);
    if (go && state.section) scrollTo(state.section, panel);
  });

  if (scorer) scorer.addEventListener("change", () => page.address.change("", { scorer: scorer.value }));
  for (const radio of protocols) radio.addEventListener("change", () => page.address.change("", { protocol: radio.value }));
  for (const select of document.querySelectorAll("[data-measure]")) {
    select.addEventListener("change", () => page.address.change("", { measure: select.value }));
  }
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[href^="#"]') : null;
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    page.address.follow(link.getAttribute("href"));
  });

  // Build an element. Text is inserted as text and never parsed as HTML.
  page.make = (tag, options, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined && child !== "") element.append(child);
    return element;
  };

  page.key = (system) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const path = document.createElementNS(space, "path");
    svg.setAttribute("class", "key");
    svg.setAttribute("viewBox", "-7 -7 14 14");
    svg.setAttribute("width", "14");
    svg.setAttribute("height", "14");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("class", "c" + system.colour);
    path.setAttribute("d", system.outline);
    svg.append(path);
    return svg;
  };

  page.number = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
})();
