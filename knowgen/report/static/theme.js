"use strict";
// Light or dark: the system setting, unless the reader chose one. Runs before the page is shown, to avoid a flash.
(() => {
  const KEY = "knowgen-theme";
  const WORDS = { "": "system setting", dark: "dark", light: "light" };

  function stored() {
    try {
      const value = localStorage.getItem(KEY);
      return value === "dark" || value === "light" ? value : "";
    } catch (error) {
      return ""; // Browsers may forbid storage for local files; the choice then lasts until the page is closed.
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
