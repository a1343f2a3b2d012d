// The SQL box: tables to look at, a statement, its rows, and its rows as a file.

import { csv, query } from "./api.js";
import { count, bytes, download, el, value, visible } from "./dom.js";
import { example } from "./queries.js";

const SHOWN = 500;
const $ = (id) => document.getElementById(id);

/** Starts the box; `problem(place, error)` shows an error. */
export function startWorkbench(problem) {
  const text = $("sql");
  const note = $("sql-note");
  const place = $("panel-sql").querySelector(".body");
  const open = new Set();
  let abort;
  text.value = example;

  async function run(event) {
    event?.preventDefault();
    abort?.abort();
    const mine = new AbortController();
    abort = mine;
    note.textContent = "Running …";
    try {
      const answer = await query(text.value, mine.signal);
      note.textContent = `${count(answer.row_count)} ${answer.row_count === 1 ? "row" : "rows"}${answer.truncated ? ", cut off" : ""} in ${answer.elapsed_ms.toFixed(answer.elapsed_ms < 10 ? 1 : 0)} ms`;
      rows(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      note.textContent = "";
      problem(place, error);
    }
  }

  function rows({ columns, rows: all }) {
    if (!all.length) {
      place.replaceChildren(el("p", { class: "empty" }, "No rows."));
      return;
    }
    const number = columns.map((c) => /^(U?Int|Float|Decimal)/.test(c.type));
    const head = columns.map((c, i) => el("th", { scope: "col", class: number[i] && "number", title: c.type }, visible(c.name)));
    const cell = (row, c, i) => el("td", { class: number[i] ? "number" : "foreign" }, value(row[c.name]));
    const body = all.slice(0, SHOWN).map((row) => el("tr", {}, ...columns.map((c, i) => cell(row, c, i))));
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
    const rest = all.length > SHOWN ? el("p", { class: "empty" }, `The first ${count(SHOWN)} rows are shown; the CSV has them all.`) : null;
    place.replaceChildren(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows" }, table), ...(rest ? [rest] : []));
  }

  $("sql-form").addEventListener("submit", run);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
  });
  $("sql-csv").addEventListener("click", async () => {
    note.textContent = "Running …";
    try {
      download("rows.csv", await csv(text.value));
      note.textContent = "";
    } catch (error) {
      note.textContent = "";
      problem(place, error);
    }
  });

  let shown = "";
  return {
    /** Shows what is served; drawn again only when something has changed, so that nothing jumps. */
    tables(served) {
      const key = JSON.stringify(served);
      if (key === shown) return;
      shown = key;
      if (!served.length) {
        $("tables").replaceChildren(el("p", { class: "hint" }, "The pipeline serves no table."));
        return;
      }
      $("tables").replaceChildren(...served.map((table) => {
        const total = table.hot_rows + table.stored_rows;
        const size = `${count(total)} ${total === 1 ? "row" : "rows"}`;
        const where = `${count(table.hot_rows)} in memory, ${count(table.stored_rows)} in ${count(table.segments)} segments (${bytes(table.stored_bytes)})`;
        const columns = table.columns.map((c) => el("li", {}, el("span", {}, table.key.includes(c.name) ? el("strong", { title: "key" }, visible(c.name)) : visible(c.name)), el("span", {}, c.type)));
        const details = el("details", { open: open.has(table.name) }, el("summary", { title: where }, visible(table.name), el("span", {}, size)), el("p", { class: "hint" }, where), el("ul", {}, ...columns));
        details.addEventListener("toggle", () => { if (details.open) open.add(table.name); else open.delete(table.name); });
        return details;
      }));
    },
  };
}
