"use strict";
// The ranking of a board: order, filters and the part of the samples live in the address.
(() => {
  const page = window.KNOWGEN;
  const { make, number } = page;
  const table = document.getElementById("ranking-table");
  const form = document.getElementById("filters");
  const count = document.getElementById("match-count");
  if (!table) {
    page.address.start();
    return;
  }
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => (row.textContent + " " + row.dataset.more).toLowerCase());
  const title = table.querySelector("[data-part-title]");
  const whole = new Map();
  let shownPart = "";

  const sorting = page.sortable(table, (key, down) => page.address.change("ranking", { sort: key + (down ? "-down" : "-up") }, false));

  form.elements.sort.append(make("option", { value: "" }, "order of the board"), ...page.orders(sorting));
  const fill = page.bind(form, "ranking");

  const fits = (row, index, values) =>
    page.matches(texts[index], values.q) && ["kind", "open", "search"].every((name) => !values[name] || row.dataset[name] === values[name]);

  function keep(cell) {
    if (!whole.has(cell)) whole.set(cell, { nodes: [...cell.childNodes], value: cell.dataset.value });
  }

  function restore() {
    for (const [cell, { nodes, value }] of whole) {
      cell.replaceChildren(...nodes);
      if (value !== undefined) cell.dataset.value = value;
    }
    title.textContent = "of all samples";
  }

  function showFigure(cell, figure, withInterval) {
    keep(cell);
    cell.dataset.value = figure[0] === null ? "" : figure[0].toFixed(6);
    if (figure[0] === null) return cell.replaceChildren(make("span", { class: "none", title: figure[4] || "no value" }, "–"));
    const interval = withInterval ? make("span", { class: "interval" }, figure[1] === null ? figure[4] || "" : number(figure[1]) + "–" + number(figure[2])) : "";
    cell.replaceChildren(number(figure[0]), " ", interval);
    return undefined;
  }

  function showPart(part, board) {
    for (const row of rows) {
      const system = board.systems[Number(row.dataset.index)];
      const figures = part.figures[Number(row.dataset.index)];
      const named = (name) => figures[name === "overall" ? 0 : board.dimensions.indexOf(name) + 1];
      for (const cell of row.querySelectorAll("[data-figure]")) showFigure(cell, named(cell.dataset.figure), cell.classList.contains("lead"));
      const plotted = row.querySelector(".plotted");
      keep(plotted);
      const figure = named(board.ranking);
      plotted.replaceChildren(page.plot([{ system, figure }], page.figureText(system.label, figure)));
      const rank = row.querySelector(".rank");
      keep(rank);
      showRank(rank, part, Number(row.dataset.index));
    }
    title.textContent = "of " + part.title + " (" + page.count(part.samples, "sample") + ")";
  }

  function showRank(cell, part, index) {
    const rank = part.ranks && part.ranks[index];
    cell.dataset.value = rank ? String(rank[2]) : "";
    cell.replaceChildren(rank ? (rank[0] === rank[1] ? String(rank[0]) : rank[0] + "–" + rank[1]) : make("span", { class: "none", title: "ranks are of all samples" }, "–"));
  }

  function partOf(wanted) {
    if (!wanted) return Promise.resolve(null);
    return Promise.all([page.load("systems"), page.load("parts")]).then(([board, parts]) => {
      const part = parts.find((one) => one.kind + ":" + one.name === wanted);
      return part ? { board, part } : null;
    });
  }

  function order(values) {
    if (values.sort) page.applyOrder(sorting, values.sort);
    else sorting.apply(values.part ? "score" : "rank", Boolean(values.part));
  }

  function show(values) {
    fill(values);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !fits(row, index, values);
      shown += !row.hidden;
    });
    count.textContent = shown === rows.length ? page.count(shown, "system") : shown ? shown + " of " + page.count(rows.length, "system") : "No system fits these filters.";
    const wanted = values.part || "";
    if (wanted === shownPart) return order(values);
    shownPart = wanted;
    return partOf(wanted).then(
      (found) => {
        if (wanted !== shownPart) return; // another part was chosen meanwhile
        restore();
        if (found) showPart(found.part, found.board);
        table.dataset.part = wanted;
        order(values);
      },
      (error) => (count.textContent = error.message),
    );
  }

  page.address.listen((state) => show(state.values));
  page.address.start();
})();
