"use strict";
// The state of the page is in the address: #section?name=value&… Views can be shared, and the Back button works.
(() => {
  const page = (window.KNOWGEN = window.KNOWGEN || {});
  const listeners = [];
  let travelling = false;

  function parse(hash) {
    const raw = hash.replace(/^#/, "");
    const cut = raw.indexOf("?");
    const section = cut < 0 ? raw : raw.slice(0, cut);
    const values = Object.create(null);
    for (const [name, value] of new URLSearchParams(cut < 0 ? "" : raw.slice(cut + 1))) {
      if (value !== "") values[name] = value;
    }
    return { section, values };
  }

  function format(section, values) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(values)) if (value) search.set(name, value);
    // The question mark makes sure that no element has this id, so that the browser does not scroll by itself.
    return "#" + section + "?" + search.toString();
  }

  function announce() {
    const state = parse(location.hash);
    const go = travelling;
    travelling = false;
    for (const listener of listeners) listener(state, go);
  }

  page.address = {
    read: () => parse(location.hash),
    parse,
    listen: (listener) => listeners.push(listener),
    start: () => {
      travelling = parse(location.hash).section !== "";
      announce();
    },
    // Change some values and keep the others; `replace` adds no history entry (while typing).
    change: (section, changes, replace) => {
      const state = parse(location.hash);
      const target = format(section || state.section, { ...state.values, ...changes });
      if (target === location.hash) return;
      if (replace) location.replace(target);
      else location.hash = target;
    },
    // Follow a link of the page; a link without values keeps the current ones.
    follow: (href) => {
      const link = parse(href);
      const here = parse(location.hash).values;
      const values = href.includes("?") ? { measure: here.measure, ...link.values } : here;
      const target = format(link.section, values);
      travelling = true;
      if (target === location.hash) announce();
      else location.hash = target;
    },
  };

  window.addEventListener("hashchange", announce);
})();
