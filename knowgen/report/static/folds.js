"use strict";
// Sections that are closed at first, so that the samples are near the top. This script is not deferred, so that
// they close before the page is shown. A section stays open or closed when another scorer, protocol or measure is chosen.
(() => {
  const page = (window.KNOWGEN = window.KNOWGEN || {});
  const folds = [...document.querySelectorAll("main details")];
  for (const fold of folds) fold.open = false;

  // `toggle` does not bubble.
  document.addEventListener(
    "toggle",
    (event) => {
      const name = event.target.dataset.fold;
      if (name) for (const fold of folds) if (fold.dataset.fold === name) fold.open = event.target.open;
    },
    true,
  );

  page.unfold = (section) => {
    const fold = section.querySelector(":scope > details");
    if (fold) fold.open = true;
  };

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = folds.filter((fold) => !fold.open);
    for (const fold of closed) fold.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const fold of closed) fold.open = false;
  });
})();
