"use strict";
// Tables that are sorted by the button in a heading. The order of the page is the order of rows with equal values.
(() => {
  const page = window.KNOWGEN;

  function compare(a, b, down) {
    if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "") || a.place - b.place; // last in every order
    const [x, y] = [Number(a.value), Number(b.value)];
    const numeric = Number.isFinite(x) && Number.isFinite(y);
    const order = numeric ? x - y : a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
    return (down ? -order : order) || a.place - b.place;
  }

  // Give a table its buttons; `chosen` is called with the key and direction of a click.
  page.sortable = (table, chosen) => {
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows];
    const columns = new Map(heads.filter((head) => head.dataset.key).map((head) => [head.dataset.key, head]));
    let current = { key: "", down: false };

    function apply(key, down) {
      const head = columns.get(key);
      for (const each of columns.values()) each.removeAttribute("aria-sort");
      current = head ? { key, down } : { key: "", down: false };
      let order = rows.map((row, place) => ({ row, place, value: "" }));
      if (head) {
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        order = order.map((entry) => ({ ...entry, value: entry.row.cells[head.cellIndex].dataset.value || "" }));
        order.sort((a, b) => compare(a, b, down));
      }
      const changed = order.some((entry, place) => entry.row !== table.tBodies[0].rows[place]);
      if (changed) table.tBodies[0].append(...order.map((entry) => entry.row));
    }

    for (const [key, head] of columns) {
      const button = page.make("button", { type: "button", class: "sort" }, head.textContent.trim());
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = current.key === key ? !current.down : head.dataset.first === "down";
        (chosen || apply)(key, down);
      });
    }
    return { apply, columns, first: (key) => columns.get(key).dataset.first === "down" };
  };

  // On a narrow screen the headings are not shown, so that the order is chosen from a list.
  page.orders = (sorting) => {
    const first = (key) => (sorting.first(key) ? ["-down", "-up"] : ["-up", "-down"]);
    const option = (way, end) => ([key, head]) => page.make("option", { value: key + first(key)[way] }, head.textContent + end);
    return [...[...sorting.columns].map(option(0, "")), ...[...sorting.columns].map(option(1, ", reversed"))];
  };

  page.applyOrder = (sorting, order) => {
    const cut = order.lastIndexOf("-");
    sorting.apply(order.slice(0, Math.max(cut, 0)), order.slice(cut + 1) === "down");
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    if (table.id === "ranking-table") continue;
    const sorting = page.sortable(table, (key, down) => {
      sorting.apply(key, down);
      list.value = key + (down ? "-down" : "-up");
    });
    const list = page.make("select", null, page.make("option", { value: "" }, "as listed"), ...page.orders(sorting));
    list.addEventListener("change", () => page.applyOrder(sorting, list.value));
    table.closest(".wide").before(page.make("label", { class: "field narrow-only order" }, page.make("span", null, "Order"), list));
  }
  if (!document.querySelector("main [data-section]")) page.address.start();
})();
