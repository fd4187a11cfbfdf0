"use strict";
// Light or dark: as the system has it, unless the reader chose. Runs before the page is drawn, so that nothing flashes.
(() => {
  const KEY = "knowgen-theme";
  const WORDS = { "": "as the system has them", dark: "dark", light: "light" };

  function stored() {
    try {
      const value = localStorage.getItem(KEY);
      return value === "dark" || value === "light" ? value : "";
    } catch (error) {
      return ""; // a browser may forbid storage to files; then the choice lasts as long as the page
    }
  }

  function keep(value) {
    try {
      localStorage.setItem(KEY, value);
    } catch (error) {
      return false;
    }
    return true;
  }

  let current = stored();

  function apply() {
    if (current) document.documentElement.dataset.theme = current;
    else delete document.documentElement.dataset.theme;
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.setAttribute("aria-label", "Colours: " + WORDS[current]);
      button.title = "Colours: " + WORDS[current];
    };
    label();
    button.addEventListener("click", () => {
      current = { "": "dark", dark: "light", light: "" }[current];
      keep(current);
      apply();
      label();
    });
  });
})();
