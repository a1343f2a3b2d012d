// The overview: reads the service, fills the panels, and does so again every five seconds.

import { named, namedCsv, Refused, status, tables } from "./api.js";
import { agentName } from "./agent.js";
import { bucket, StackedBars } from "./chart.js";
import { bytes, count, download, el, moment, short, span, value, visible } from "./dom.js";
import { List } from "./list.js";
import { startWorkbench } from "./workbench.js";

const EVERY_MS = 5000;
const MOST_DETECTIONS = 1000;
const $ = (id) => document.getElementById(id);
const foreign = (text, extra = "") => (text ? el("span", { class: `foreign ${extra}` }, visible(text)) : el("span", { class: "dim" }, "–"));

const LEVELS = ["CRITICAL", "HIGH", "MEDIUM", "LOW"];
const levelRank = (row) => (LEVELS.indexOf(row.threat_level) + 1) || LEVELS.length + 1;
const requestsChart = new StackedBars($("panel-requests"), [{ key: "correlated", label: "correlated" }, { key: "orphan", label: "orphan" }]);
const levelsChart = new StackedBars($("panel-levels"), [...LEVELS].reverse().map((l) => ({ key: l.toLowerCase(), label: l.toLowerCase() })));

const detections = new List($("panel-detections").querySelector(".body"), {
  empty: "No detections in this range.",
  sort: { key: "threat_level" },
  id: (row) => [row.window_start, row.host, row.src_ip, row.ja4].join("|"),
  more: features,
  columns: [
    { key: "threat_level", label: "Level", class: "bare", order: levelRank, show: (r) => el("span", { class: `level s-${String(r.threat_level).toLowerCase()}` }, visible(r.threat_level ?? "–")) },
    { key: "last_seen", label: "Last seen", class: "time", show: (r) => moment(r.last_seen) },
    { key: "host", label: "Host", class: "short", show: (r) => foreign(r.host) },
    { key: "src_ip", label: "Client", class: "mono client", show: (r) => foreign(r.src_ip) },
    { key: "ja4", label: "JA4", class: "mono ja4", show: (r) => foreign(r.ja4) },
    { key: "hits", label: "Hits", number: true, show: (r) => count(r.hits) },
    { key: "rules", label: "Rules", class: "rules", show: rules },
    { key: "reason", label: "Reason", class: "long reason bare", show: (r) => foreign(r.reason) },
  ],
});

const fingerprints = new List($("panel-ja4").querySelector(".body"), {
  empty: "No request in this range was matched to a TLS handshake.",
  columns: [
    { key: "ja4", label: "JA4", class: "mono ja4", show: (r) => foreign(r.ja4) },
    { key: "requests", label: "Requests", number: true, show: (r) => el("span", {}, short(r.requests), el("meter", { class: "bar", min: 0, max: r.most, value: r.requests, "aria-hidden": "true" })) },
    { key: "clients", label: "Clients", number: true, show: (r) => count(r.clients) },
    { key: "hosts", label: "Hosts", number: true, show: (r) => count(r.hosts) },
    { key: "agent", label: "Most frequent user agent", class: "long bare", show: agent },
  ],
});

const nodes = new List($("panel-nodes").querySelector(".body"), {
  empty: "The pipeline has no nodes.",
  page: 100,
  cards: false,
  columns: [
    { key: "id", label: "Node", show: (r) => el("strong", {}, visible(r.id)) },
    { key: "kind", label: "Kind", class: "mono" },
    ...["rows_in", "rows_out"].map((key) => ({ key, label: key.replace("_", " "), number: true, show: (r) => count(r[key]) })),
    ...["late", "rejected", "evicted"].map((key) => ({ key, label: key, number: true, show: (r) => el("span", { class: r[key] ? "loss" : "dim" }, count(r[key])) })),
    { key: "state_rows", label: "state", number: true, show: (r) => count(r.state_rows) },
    { key: "bytes", label: "bytes", number: true, show: (r) => (r.bytes ? bytes(r.bytes) : el("span", { class: "dim" }, "0")) },
    { key: "watermark_ms", label: "watermark", class: "time", show: watermark },
    { key: "events", label: "more", show: more },
  ],
});

/** What keeps a node from going on, then what only its kind counts. */
function more(row) {
  const troubles = Object.entries(row.troubles ?? {}).map(([part, what]) => el("div", { class: "loss" }, foreign(`${part}: ${what}`)));
  const events = Object.entries(row.events ?? {}).map(([name, number]) => `${name} ${count(number)}`).join(", ");
  return el("div", {}, ...troubles, el("span", { class: "dim" }, events));
}

function watermark(row) {
  // A finished source closes its time with the largest value there is.
  if (!row.watermark_ms) return "–";
  return row.watermark_ms > 8e15 ? "end" : moment(row.watermark_ms);
}

function rules(row) {
  const names = String(row.rules ?? "").split(",").map((name) => name.trim()).filter(Boolean);
  return el("span", {}, ...names.map((name) => el("span", { class: "rule" }, visible(name))));
}

function agent(row) {
  if (!row.agent) return el("span", { class: "dim" }, "none sent");
  // The name helps where the text is long.
  const name = row.agent.length > 40 ? agentName(row.agent) : "";
  const others = row.agents > 1 ? el("span", { class: "dim" }, ` and ${count(row.agents - 1)} more`) : null;
  return el("span", {}, name ? el("strong", {}, visible(name), " ") : null, foreign(row.agent, "dim"), others);
}

function features(row) {
  const pairs = Object.entries(row).filter(([key]) => key !== "reason" && key !== "rules");
  return el("dl", { class: "features" }, ...pairs.map(([key, v]) => el("div", {}, el("dt", {}, key), el("dd", { class: "foreign" }, value(v)))));
}

/** Puts an error where the panel's content would be. */
function problem(place, error) {
  const help = error instanceof Refused && error.help ? el("small", {}, visible(error.help)) : null;
  place.replaceChildren(el("p", { class: "problem", role: "alert" }, visible(error.message), help));
}

/** Runs one panel's part of a refresh; its error stays in the panel. */
async function panel(id, work) {
  const place = $(id);
  try {
    await work();
    place.classList.remove("stale");
    return true;
  } catch (error) {
    if (error.status === 0) {
      place.classList.add("stale");
    } else if (place.querySelector(".chart")) {
      const chart = place.querySelector(".chart");
      chart.hidden = true;
      place.querySelector(".body > .problem")?.remove();
      const holder = el("div");
      problem(holder, error);
      place.querySelector(".body").append(...holder.childNodes);
    } else {
      problem(place.querySelector(".body"), error);
    }
    return false;
  }
}

/** Shows a chart again after an error. */
function mend(id) {
  const place = $(id);
  place.querySelector(".body > .problem, .body > .empty")?.remove();
  place.querySelector(".chart").hidden = false;
}

function tile(label, shown, ...note) {
  return el("div", { class: "tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, shown), el("div", { class: "note" }, ...note));
}

const seconds = (text) => new Date(text).getTime() / 1000;
let range = 0;
let round = 0;

async function refresh() {
  const mine = ++round;
  const current = () => mine === round;
  const online = await header();
  if (!online || !current()) return;

  let extent;
  const known = await panel("panel-requests", async () => { [extent] = (await named("overview/extent")).rows; });
  if (!current()) return;
  const latest = extent?.hi ? seconds(extent.hi) : null;
  const first = latest === null ? null : range ? Math.max(latest - range, seconds(extent.lo)) : seconds(extent.lo);
  const from = range && latest !== null ? new Date((latest - range) * 1000).toISOString() : null;
  $("span").textContent = latest === null ? (known ? "No requests yet." : " ") : `${moment(first * 1000)} to ${moment(latest * 1000)} UTC, ${span(latest - first)}`;
  const step = latest === null ? 60 : bucket(latest - first, 80);
  const wide = latest === null ? 60 : bucket(latest - first, 40);

  const shown = {};
  await Promise.all([
    known && panel("panel-requests", async () => {
      const [[totals], rows] = await Promise.all([named("overview/totals", { from }).then((a) => a.rows), named("overview/requests", { from, step }).then((a) => a.rows)]);
      if (!current()) return;
      shown.totals = totals;
      chart("panel-requests", requestsChart, rows, step, first, latest, "No requests yet.");
    }),
    panel("panel-levels", async () => {
      const rows = (await named("overview/levels", { from, step: wide })).rows;
      if (!current()) return;
      shown.levels = Object.fromEntries(LEVELS.map((l) => [l, rows.reduce((sum, row) => sum + row[l.toLowerCase()], 0)]));
      const last = rows.length ? Math.max(latest ?? 0, seconds(rows.at(-1).t)) : null;
      chart("panel-levels", levelsChart, rows, wide, first ?? (rows.length ? seconds(rows[0].t) : 0), last, "No detections in this range.");
    }),
    panel("panel-detections", async () => {
      const answer = await named("overview/detections", { from, limit: MOST_DETECTIONS });
      if (current()) detections.show(answer.rows);
    }),
    panel("panel-ja4", async () => {
      const { rows } = await named("overview/fingerprints", { from });
      if (current()) fingerprints.show(rows.map((row) => ({ ...row, most: rows[0].requests })));
    }),
  ]);
  if (current()) tiles(shown);
}

function chart(id, bars, rows, step, first, last, empty) {
  mend(id);
  if (last === null || !rows.length) {
    $(id).querySelector(".chart").hidden = true;
    $(id).querySelector(".body").append(el("p", { class: "empty" }, empty));
  } else {
    bars.show(rows, step, first, last);
  }
}

function tiles({ totals, levels }) {
  const share = totals?.requests ? `${((100 * totals.correlated) / totals.requests).toFixed(1)} %` : "–";
  const detected = levels && LEVELS.reduce((sum, l) => sum + levels[l], 0);
  const worst = levels ? LEVELS.filter((l) => levels[l]).map((l) => `${count(levels[l])} ${l.toLowerCase()}`).join(", ") || "none" : "";
  $("tiles").replaceChildren(
    tile("Requests", short(totals?.requests)),
    tile("Correlated", share, totals ? `${count(totals.requests - totals.correlated)} without a handshake` : ""),
    tile("Clients", short(totals?.clients), "distinct addresses"),
    tile("JA4 fingerprints", short(totals?.fingerprints), "distinct"),
    tile("Hosts", short(totals?.hosts), "distinct"),
    tile("Detections", short(detected), worst));
}

/** State and nodes; false if the service does not answer. */
async function header() {
  const chip = $("state");
  try {
    const [now, served] = await Promise.all([status(), tables()]);
    $("pipeline").textContent = visible(now.pipeline);
    document.title = `${visible(now.pipeline)} · ja4-engine`;
    chip.textContent = now.state;
    chip.className = `chip ${now.state}`;
    chip.title = `started ${moment(now.started_at_ms)} UTC, ${span(now.uptime_seconds)} ago`;
    banner(now.message ? `The run has failed: ${now.message}` : "");
    nodes.show(now.nodes);
    $("graph").textContent = now.graph;
    workbench.tables(served);
    return true;
  } catch (error) {
    chip.textContent = "offline";
    chip.className = "chip offline";
    banner(`${error.message}. What is shown is what it said last.`);
    for (const place of document.querySelectorAll(".panel")) place.classList.toggle("stale", place.id !== "panel-sql");
    return false;
  }
}

function banner(text) {
  const shown = text ? visible(text[0].toUpperCase() + text.slice(1)) : "";
  if ($("banner").textContent !== shown) $("banner").textContent = shown;
  $("banner").hidden = !text;
}

function loading() {
  tiles({});
  for (const id of ["panel-detections", "panel-ja4", "panel-nodes"]) {
    $(id).querySelector(".body").replaceChildren(...[0, 1, 2].map(() => el("div", { class: "skeleton" })));
  }
}

const workbench = startWorkbench(problem);
loading();

let timer;
async function loop() {
  clearTimeout(timer);
  await refresh().catch((error) => banner(error.message));
  if ($("auto").checked && !document.hidden) {
    clearTimeout(timer);
    timer = setTimeout(loop, EVERY_MS);
  }
}

$("auto").addEventListener("change", loop);
$("refresh").addEventListener("click", loop);
document.addEventListener("visibilitychange", () => { if (!document.hidden) loop(); });
for (const button of document.querySelectorAll("[data-range]")) {
  button.addEventListener("click", () => {
    range = Number(button.dataset.range);
    for (const other of document.querySelectorAll("[data-range]")) other.setAttribute("aria-pressed", String(other === button));
    loop();
  });
}
$("detections-filter").addEventListener("input", (event) => detections.filter(event.target.value));
$("detections-csv").addEventListener("click", async () => {
  try {
    download("detections.csv", await namedCsv("overview/detections", { limit: 100000 }));
  } catch (error) {
    banner(error.message);
  }
});
loop();
