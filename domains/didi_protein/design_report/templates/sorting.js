// Sorts the table of designs by the column whose header is pressed; numbers as numbers, empty cells last.
"use strict";
(() => {
  const table = document.querySelector("#designs table");
  const body = table.tBodies[0];
  const value = (line, column) => {
    const text = line.cells[column].textContent.trim();
    return text === "" || Number.isNaN(parseFloat(text)) ? text : parseFloat(text);
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  for (const [column, header] of [...table.tHead.rows[0].cells].entries()) {
    if (!header.textContent) continue;
    const sort = () => {
      const falling = header.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const lines = [...body.rows].map((line) => [value(line, column), line]);
      lines.sort(([a], [b]) => (a === "" || b === "" ? compare(a, b) : (falling ? -1 : 1) * compare(a, b)));
      body.append(...lines.map(([, line]) => line));
    };
    header.dataset.sort = "";
    header.tabIndex = 0;
    header.addEventListener("click", sort);
    header.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  }
})();
