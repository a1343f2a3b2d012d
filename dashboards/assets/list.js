// A table that sorts, filters and pages in the browser.

import { el, value } from "./dom.js";

/**
 * `columns` are { key, label, class?, show?(row), order?(row), number? }. `more(row)` makes what a row opens into.
 * `id(row)` names a row, so that an open one stays open when the rows are read again. `cards`: on a narrow screen a
 * row becomes a card.
 */
export class List {
  constructor(place, { columns, page = 20, sort, more, id, empty, cards = true }) {
    Object.assign(this, { place, columns, page, sort, more, id, empty, cards, at: 0, words: [], rows: [], open: new Set() });
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  filter(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.at = 0;
    this.draw();
  }

  selected() {
    let rows = this.rows;
    if (this.words.length) {
      rows = rows.filter((row) => {
        const text = Object.values(row).filter((v) => typeof v === "string").join("\n").toLowerCase();
        return this.words.every((word) => text.includes(word));
      });
    }
    if (!this.sort) return rows;
    const column = this.columns.find((c) => c.key === this.sort.key);
    const order = column.order ?? ((row) => row[column.key]);
    const sign = this.sort.down ? -1 : 1;
    const compare = (a, b) => {
      if (a === b) return 0;
      if (a === null || a === undefined) return 1;
      if (b === null || b === undefined) return -1;
      return sign * (a < b ? -1 : 1);
    };
    return [...rows].sort((a, b) => compare(order(a), order(b)));
  }

  draw() {
    const focused = this.place.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    const rows = this.selected();
    if (!rows.length) {
      this.place.replaceChildren(el("p", { class: "empty" }, this.words.length ? "No row matches the filter." : this.empty));
      return;
    }
    const pages = Math.ceil(rows.length / this.page);
    this.at = Math.min(this.at, pages - 1);
    const part = rows.slice(this.at * this.page, (this.at + 1) * this.page);
    const body = el("tbody", {}, ...part.flatMap((row) => this.row(row)));
    const table = el("table", { class: this.cards && "cards" }, el("thead", {}, this.head()), body);
    this.place.replaceChildren(el("div", { class: "scroll" }, table), ...(pages > 1 ? [this.pager(rows.length, pages)] : []));
    if (focused) this.place.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  head() {
    const cells = this.columns.map((c) => {
      const sorted = this.sort?.key === c.key;
      const turn = () => {
        this.sort = { key: c.key, down: sorted ? !this.sort.down : Boolean(c.number) };
        this.at = 0;
        this.draw();
      };
      const button = el("button", { type: "button", onclick: turn, "data-focus": `sort-${c.key}` }, c.label);
      return el("th", { scope: "col", class: c.number && "number", "aria-sort": sorted ? (this.sort.down ? "descending" : "ascending") : "none" }, button);
    });
    if (this.more) cells.unshift(el("th", { scope: "col", class: "lead" }, el("span", { class: "sr" }, "Details")));
    return el("tr", {}, ...cells);
  }

  row(row) {
    const cells = this.columns.map((c) => {
      const shown = c.show ? c.show(row) : value(row[c.key]);
      return el("td", { class: [c.class, c.number && "number"].filter(Boolean).join(" ") || undefined, "data-label": c.label }, shown);
    });
    if (!this.more) return [el("tr", {}, ...cells)];
    const id = this.id(row);
    const open = this.open.has(id);
    const turn = () => {
      if (!this.open.delete(id)) this.open.add(id);
      this.draw();
    };
    const button = el("button", { type: "button", class: "expand", "aria-expanded": String(open), "aria-label": "All values of this row", onclick: turn, "data-focus": `row-${id}` });
    const main = el("tr", { class: open && "open" }, el("td", { class: "lead" }, button), ...cells);
    return open ? [main, el("tr", { class: "more" }, el("td", { colspan: this.columns.length + 1 }, this.more(row)))] : [main];
  }

  pager(total, pages) {
    const go = (step) => () => {
      this.at += step;
      this.draw();
    };
    const first = this.at * this.page + 1;
    return el("div", { class: "pager" },
      el("span", { role: "status" }, `${first}–${Math.min(total, first + this.page - 1)} of ${total}`),
      el("button", { type: "button", class: "button", disabled: this.at === 0, onclick: go(-1), "data-focus": "previous" }, "Previous"),
      el("button", { type: "button", class: "button", disabled: this.at === pages - 1, onclick: go(1), "data-focus": "next" }, "Next"));
  }
}
