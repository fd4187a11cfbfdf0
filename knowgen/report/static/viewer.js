"use strict";
// Dialog with the larger image beside the ground truth. Left and right change the system, up and down the sample.
(() => {
  const page = window.KNOWGEN;
  const { make } = page;
  const dialog = document.getElementById("viewer");
  let sample = null;
  let at = -1;

  const shown = () => sample.cells.map((cell, index) => (cell && cell.image && !cell.image.fault ? index : -1)).filter((index) => index >= 0);

  function figure(image, caption, alt) {
    return make(
      "figure",
      null,
      make("img", { src: page.source(image.large || image.small), width: image.width, height: image.height, alt, decoding: "async" }),
      make("figcaption", null, make("bdi", null, caption), " · " + image.width + " × " + image.height),
    );
  }

  function render() {
    const systems = page.data.systems;
    const name = at < 0 ? "Ground truth" : systems[at].label;
    const figures = [];
    if (at >= 0) figures.push(figure(sample.cells[at].image, name, "generated image of " + name + " for sample " + sample.id));
    if (sample.truth && !sample.truth.fault) figures.push(figure(sample.truth, "Ground truth", "ground truth of sample " + sample.id));
    const stage = make("div", { class: "stage" }, figures);
    stage.style.setProperty("--images", String(figures.length));
    const button = (words, label, act) => {
      const element = make("button", { type: "button", class: "plain", "aria-label": label, title: label }, words);
      element.addEventListener("click", act);
      return element;
    };
    const steps = shown().length > 1 ? [button("←", "Previous system", () => step(-1)), button("→", "Next system", () => step(1))] : [];
    if (page.gallery.beside(sample, -1)) steps.push(button("↑", "Previous sample", () => turn(-1)));
    if (page.gallery.beside(sample, 1)) steps.push(button("↓", "Next sample", () => turn(1)));
    dialog.setAttribute("aria-label", name + ", sample " + sample.id);
    const close = button("✕", "Close", () => dialog.close());
    close.autofocus = true;
    dialog.replaceChildren(
      make(
        "div",
        { class: "viewing" },
        make("header", null, make("h2", null, at >= 0 ? page.key(systems[at]) : null, at >= 0 ? " " : null, make("bdi", null, name)), steps, close),
        stage,
        make("p", { dir: "auto", class: "free-text" }, sample.prompt),
      ),
    );
  }

  function step(by) {
    const order = shown();
    if (order.length < 2) return;
    at = order[(order.indexOf(at) + by + order.length) % order.length];
    render();
    dialog.querySelector("button:last-of-type").focus();
  }

  function turn(by) {
    const other = page.gallery.beside(sample, by);
    if (!other) return;
    sample = other;
    const order = shown();
    const truth = sample.truth && !sample.truth.fault;
    if (at < 0 ? !truth : !order.includes(at)) at = order.length ? order[0] : -1;
    render();
    dialog.querySelector("button:last-of-type").focus();
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      event.preventDefault();
      turn(event.key === "ArrowUp" ? -1 : 1);
    }
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  page.viewer = {
    open: (chosen, system) => {
      sample = chosen;
      at = system;
      render();
      dialog.showModal();
    },
  };
})();
