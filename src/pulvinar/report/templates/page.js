// Columns of score tables sort by a button in their head; without scripts the tables stand as they are.
for (const table of document.querySelectorAll("table.scores, table.published")) {
  const number = (cell) => {
    const found = (cell?.firstChild?.textContent ?? "").replaceAll("\u2212", "-").replaceAll(",", "").match(/-?\d+(\.\d+)?/);
    return found ? Number(found[0]) : -Infinity;
  };
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.textContent = "\u2195";
    button.setAttribute("aria-label", `sort by ${head.firstChild?.textContent.trim() ?? "this column"}`);
    button.addEventListener("click", () => {
      const downwards = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [row, row.cells[place]]);
      const byText = !head.classList.contains("number");
      rows.sort(([, one], [, other]) => {
        const order = byText ? (one?.textContent ?? "").localeCompare(other?.textContent ?? "") : number(one) - number(other);
        return downwards !== byText ? -order : order;
      });
      body.append(...rows.map(([row]) => row));
    });
    head.append(button);
  });
}
