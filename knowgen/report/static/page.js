"use strict";
// Which scorer and protocol is shown, and which measure the breakdown shows.
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

  page.address.listen((state, go) => {
    const panel = showView(state.values);
    if (page.gallery) page.gallery.show(state.values);
    if (go && state.section) page.reveal(state.section, panel);
  });

  if (scorer) scorer.addEventListener("change", () => page.address.change("", { scorer: scorer.value }));
  for (const radio of protocols) radio.addEventListener("change", () => page.address.change("", { protocol: radio.value }));
  for (const select of document.querySelectorAll("[data-measure]")) {
    select.addEventListener("change", () => page.address.change("", { measure: select.value }));
  }
})();
