"use strict";
// Data and images that are inside a page of one file, as JSON in elements that are not run. Each is parsed when it is used.
(() => {
  const page = (window.KNOWGEN = window.KNOWGEN || {});
  const BLOCK = 50; // images in a block, as in output.py
  const blocks = new Map();

  function read(name) {
    const element = document.querySelector('script[data-name="' + CSS.escape(name) + '"]');
    if (!element) throw new Error(name + " is missing from this file");
    return JSON.parse(element.textContent);
  }

  function image(name) {
    const number = Math.floor(Number(name) / BLOCK);
    if (!blocks.has(number)) blocks.set(number, read("images-" + number));
    return blocks.get(number)[Number(name) % BLOCK];
  }

  page.embedded = { read, image };
  window.KNOWGEN_DATA = {};
  for (const name of JSON.parse(document.getElementById("embedded-now").textContent)) window.KNOWGEN_DATA[name] = read(name);
  for (const element of document.querySelectorAll("img[data-image]")) element.src = image(element.dataset.image);
})();
