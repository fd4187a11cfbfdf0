"use strict";
// What the scripts of all pages use: building elements, loading data, following links of the page.
(() => {
  const page = (window.KNOWGEN = window.KNOWGEN || {});
  const loading = new Map();

  // Build an element. Text is inserted as text and never parsed as HTML.
  const make = (page.make = (tag, options, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined && child !== "") element.append(child);
    return element;
  });

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

  // Data are in scripts of their own; a script is added when its data are shown. A page in one file has them inside.
  page.load = (name) => {
    if (!loading.has(name)) {
      loading.set(
        name,
        new Promise((resolve, reject) => {
          if (page.embedded) {
            resolve(page.embedded.read(name));
            return;
          }
          const script = document.createElement("script");
          script.src = "data/" + name + ".js";
          script.onload = () => resolve(window.KNOWGEN_DATA[name]);
          script.onerror = () => reject(new Error("data/" + name + ".js is missing from this folder"));
          document.head.append(script);
        }),
      );
    }
    return loading.get(name);
  };

  page.source = (name) => (page.embedded ? page.embedded.image(name) : "img/" + name);

  // An image in its frame, which opens the larger file or does what `open` does. A page of one file has
  // no larger file, so that a frame without `open` is not a link there.
  page.frame = (image, alt, open, title) => {
    const picture = make("img", { src: page.source(image.small), width: image.width, height: image.height, alt, loading: "lazy", decoding: "async" });
    if (page.embedded && !open) return make("div", { class: "frame", title }, picture);
    const frame = page.embedded
      ? make("button", { type: "button", class: "frame", title }, picture)
      : make("a", { class: "frame", href: "img/" + image.large, target: "_blank", rel: "noopener", title }, picture);
    if (open) {
      frame.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        open();
      });
    }
    return frame;
  };

  // Scroll to a section, of the part of the page that is given if it has one, and open it.
  page.reveal = (section, part) => {
    const target = (part && part.querySelector('[data-section="' + CSS.escape(section) + '"]')) || document.getElementById(section);
    if (!target) return;
    page.unfold(target);
    target.scrollIntoView();
    const heading = target.querySelector("h1, h2");
    if (heading) {
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
  };

  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[href^="#"]') : null;
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    page.address.follow(link.getAttribute("href"));
  });
})();
