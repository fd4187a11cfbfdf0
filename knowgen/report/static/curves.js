"use strict";
// Reading a chart: the pointer or the arrow keys choose a step, whose values stand in the legend.
(() => {
  const page = window.KNOWGEN;
  const data = window.KNOWGEN_DATA.figures;
  const steps = [...new Set(data.flatMap((training) => training.steps))].sort((a, b) => a - b);
  const places = data.map((training) => new Map(training.steps.map((step, place) => [step, place])));
  const SVG = "http://www.w3.org/2000/svg";

  // As the tables format a figure; one that is not a number arrives as text.
  page.figure = (value) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "string") return value === "nan" ? "not a number" : "infinite";
    const size = Math.abs(value);
    const sign = value < 0 ? "−" : "";
    if (size >= 1000) return sign + Math.round(size).toLocaleString("en");
    if (size >= 100) return sign + size.toFixed(1);
    if (size >= 0.001 || size === 0) return sign + size.toFixed(3);
    return sign + size.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
  };

  function activate(figure) {
    const canvas = figure.querySelector(".canvas");
    const plot = canvas.querySelector("svg");
    const caption = figure.querySelector("figcaption");
    const lines = figure.dataset.names.split("|").map((entry) => ({ training: Number(entry.split(" ")[0]), name: entry.slice(entry.indexOf(" ") + 1) }));
    const outputs = lines.map((_, index) => figure.querySelector('[data-line="' + index + '"] b'));
    const labels = outputs.map((output) => output.parentElement.textContent.trim());
    const cursor = document.createElementNS(SVG, "line");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", "0");
    cursor.setAttribute("y2", "184");
    let at = -1;

    function show(place) {
      at = Math.max(0, Math.min(steps.length - 1, place));
      const step = steps[at];
      const x = steps.length === 1 ? "50%" : (100 * (step - steps[0])) / (steps[steps.length - 1] - steps[0]) + "%";
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      plot.append(cursor);
      const words = lines.map((line, index) => {
        const where = places[line.training].get(step);
        const values = data[line.training].figures[line.name];
        const text = page.figure(where === undefined || !values ? null : values[where]);
        outputs[index].textContent = text;
        return labels[index] + " " + text;
      });
      caption.dataset.step = "step " + step;
      canvas.setAttribute("aria-valuenow", String(step));
      canvas.setAttribute("aria-valuetext", "step " + step + ": " + words.join(", "));
    }

    function clear() {
      at = -1;
      cursor.remove();
      delete caption.dataset.step;
      for (const output of outputs) output.textContent = "";
    }

    function nearest(x) {
      const box = plot.getBoundingClientRect();
      const wanted = steps[0] + ((x - box.left) / box.width) * (steps[steps.length - 1] - steps[0]);
      let low = 0;
      let high = steps.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (steps[middle] <= wanted) low = middle;
        else high = middle;
      }
      return wanted - steps[low] <= steps[high] - wanted ? low : high;
    }

    function go() {
      if (at < 0 || canvas.dataset.linked !== "yes") return;
      page.address.follow("#compare?runs=" + lines[0].training + "&steps=" + steps[at]);
    }

    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-label", plot.getAttribute("aria-label"));
    canvas.setAttribute("aria-valuemin", String(steps[0]));
    canvas.setAttribute("aria-valuemax", String(steps[steps.length - 1]));
    canvas.setAttribute("aria-valuenow", String(steps[steps.length - 1]));
    plot.setAttribute("aria-hidden", "true");
    canvas.addEventListener("pointermove", (event) => show(nearest(event.clientX)));
    canvas.addEventListener("pointerleave", clear);
    canvas.addEventListener("click", (event) => {
      show(nearest(event.clientX));
      go();
    });
    canvas.addEventListener("focus", () => show(at < 0 ? steps.length - 1 : at));
    canvas.addEventListener("blur", clear);
    canvas.addEventListener("keydown", (event) => {
      const far = Math.max(1, Math.round(steps.length / 10));
      const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far, Home: -steps.length, End: steps.length };
      if (event.key === "Enter") go();
      else if (event.key in moves) show(at + moves[event.key]);
      else return;
      event.preventDefault();
    });
  }

  for (const figure of document.querySelectorAll(".curve[data-names]")) activate(figure);
})();
