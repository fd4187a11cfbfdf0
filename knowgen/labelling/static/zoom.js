"use strict";
// An image at a size of the reader's choice. Arrow keys scroll, + and - change the size, N shows the next image.
(() => {
  const SCALES = [0.5, 1, 1.5, 2, 3, 4];
  const $ = (id) => document.getElementById(id);
  window.KNOWGEN_ZOOM = { open };
  let pictures = [];
  let place = 0;
  let scale = 0; // 0: as large as fits

  function open(list, number) {
    if (!list.length) return;
    pictures = list;
    show(number);
    if (!$("zoom").open) $("zoom").showModal();
    $("zoom-stage").focus();
  }

  function show(number) {
    place = (number + pictures.length) % pictures.length;
    $("zoom-title").textContent = pictures[place].title;
    $("zoom-image").src = pictures[place].source;
    $("zoom-image").alt = pictures[place].title;
    $("zoom-next").hidden = pictures.length < 2;
    resize(scale);
  }

  function resize(wanted) {
    scale = wanted;
    const image = $("zoom-image");
    $("zoom-stage").classList.toggle("fit", scale === 0);
    $("zoom-scale").textContent = scale ? Math.round(scale * 100) + " %" : "fit";
    image.style.width = scale && image.naturalWidth ? image.naturalWidth * scale + "px" : "";
  }

  function step(direction) {
    const at = SCALES.indexOf(scale);
    if (scale === 0) resize(direction > 0 ? 1 : 0.5);
    else if (SCALES[at + direction]) resize(SCALES[at + direction]);
    else if (direction < 0) resize(0);
  }

  document.addEventListener("DOMContentLoaded", () => {
    $("zoom-image").addEventListener("load", () => resize(scale));
    $("zoom-in").addEventListener("click", () => step(1));
    $("zoom-out").addEventListener("click", () => step(-1));
    $("zoom-next").addEventListener("click", () => show(place + 1));
    $("zoom-close").addEventListener("click", () => $("zoom").close());
    $("zoom").addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !$("keys").checked) return;
      const act = { "+": () => step(1), "=": () => step(1), "-": () => step(-1), 0: () => resize(0), n: () => show(place + 1), z: () => $("zoom").close() }[event.key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      event.stopPropagation();
      act();
    });
  });
})();
