"use strict";
// Sorting, searching and filtering of the table of runs, and two runs side by side. Asks nothing of a network.
(() => {
  const table = document.getElementById("runs");
  if (table) {
    const body = table.tBodies[0], rows = [...body.rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const heads = [...table.tHead.rows[0].cells];
    const column = Object.fromEntries(heads.map((head, i) => [head.dataset.column, i]));
    const search = document.getElementById("search"), menus = [...document.querySelectorAll("select[data-column]")];
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        const fits = words.every((word) => texts[i].includes(word)) &&
          menus.every((menu) => !menu.value || row.cells[column[menu.dataset.column]].textContent === menu.value);
        row.hidden = !fits;
        shown += fits;
      });
      document.getElementById("count").textContent = `${shown} of ${rows.length} runs`;
    };
    search.addEventListener("input", filter);
    menus.forEach((menu) => menu.addEventListener("change", filter));
    document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
    const value = (row, i) => {
      const text = row.cells[i].textContent, number = parseFloat(text.replace("<", ""));
      return Number.isNaN(number) ? text : number;
    };
    heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = rows.map((row) => [value(row, i), row]);
      // What a run does not have comes last, either way.
      order.sort(([a], [b]) => a === "" ? 1 : b === "" ? -1 : (a > b ? 1 : a < b ? -1 : 0) * (down ? -1 : 1));
      body.append(...order.map(([, row]) => row));
    }));
  }
  const held = document.getElementById("data");
  if (held) {
    const runs = JSON.parse(held.textContent), names = Object.keys(runs);
    const first = document.getElementById("first"), second = document.getElementById("second");
    names.forEach((name) => first.add(new Option(name)));
    const body = document.getElementById("pairs").tBodies[0], sum = document.getElementById("sum");
    const cell = (row, text, link) => {
      const td = row.insertCell();
      if (!link) { td.textContent = text; return; }
      const a = document.createElement("a");
      [a.href, a.textContent] = [link, text];
      td.append(a);
    };
    const show = () => {
      body.replaceChildren();
      sum.textContent = "";
      if (!second.value) return;
      const [a, b] = [runs[first.value].quality, runs[second.value].quality];
      const pairs = Object.keys(a).filter((id) => id in b).map((id) => [id, a[id], b[id], b[id] - a[id]]);
      pairs.sort((x, y) => x[3] - y[3] || (x[0] < y[0] ? -1 : 1));
      for (const [id, x, y, d] of pairs) {
        const row = body.insertRow();
        cell(row, id);
        cell(row, x.toFixed(3), `${first.value}.html#${id}`);
        cell(row, y.toFixed(3), `${second.value}.html#${id}`);
        cell(row, (d > 0 ? "+" : "") + d.toFixed(3));
      }
      const mean = pairs.reduce((total, pair) => total + pair[3], 0) / pairs.length;
      const better = pairs.filter((pair) => pair[3] > 0).length, worse = pairs.filter((pair) => pair[3] < 0).length;
      sum.textContent = `Mean difference ${(mean > 0 ? "+" : "") + mean.toFixed(3)} over ${pairs.length} cases: ` +
        `${better} better, ${worse} worse.`;
    };
    const fill = () => {
      const kept = second.value;
      second.replaceChildren();
      names.filter((n) => n !== first.value && runs[n].group === runs[first.value].group).forEach((n) => second.add(new Option(n)));
      if ([...second.options].some((option) => option.value === kept)) second.value = kept;
      show();
    };
    first.addEventListener("change", fill);
    second.addEventListener("change", show);
    // From the address: compare.html?first=ID&second=ID, so that a comparison can be linked.
    const asked = new URLSearchParams(location.search);
    if (runs[asked.get("first")]) first.value = asked.get("first");
    if (names.length) fill();
    if (runs[asked.get("second")]) { second.value = asked.get("second"); show(); }
  }
})();
