// Elements and texts. Whatever comes from the network is set as text, never as markup.

/** An element with properties and children; a string child becomes a text node. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Controls, zero-width and bidirectional characters can make a text look like another one.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** A text that a client wrote, with its invisible characters made visible. */
export function visible(text) {
  return String(text).replace(HIDDEN, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** A cell's content for any value of a query. */
export function value(v) {
  if (v === null || v === undefined) return el("span", { class: "null" }, "null");
  if (typeof v === "number") return Number.isInteger(v) ? String(v) : String(+v.toPrecision(7));
  if (typeof v === "object") return visible(JSON.stringify(v));
  return visible(v);
}

const whole = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** 12,345 */
export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));

/** 12,345 or 1.2M */
export const short = (n) => (n === null || n === undefined ? "–" : Math.abs(n) < 100000 ? whole.format(n) : compact.format(n));

/** 1.5 MB */
export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) [n, unit] = [n / 1000, unit + 1];
  return `${unit && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

/** 2026-03-01 12:00:05 of milliseconds or of an ISO 8601 text. */
export function moment(at) {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "–" : date.toISOString().slice(0, 19).replace("T", " ");
}

/** 2 h 5 min */
export function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return `${Math.round(seconds * 1000)} ms`;
  const [name, size] = units[first];
  const next = units[first + 1];
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

/** Offers a text as a file. */
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
