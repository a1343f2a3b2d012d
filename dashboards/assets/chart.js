// Stacked bars over time, drawn by uPlot.

import { count, el, moment, short } from "./dom.js";

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800, 2592000];

/** Seconds of a bucket so that `seconds` are at most `most` buckets. */
export const bucket = (seconds, most) => STEPS.find((step) => seconds / step <= most) ?? STEPS.at(-1);

/** A chart in `panel`. `series` are { key, label }; the key names a colour of the style sheet. */
export class StackedBars {
  constructor(panel, series) {
    this.series = series;
    this.place = panel.querySelector(".chart");
    panel.querySelector(".legend").replaceChildren(...series.map((s) => el("li", { class: `s-${s.key}` }, s.label)));
    new ResizeObserver(() => this.resize()).observe(this.place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  /** Shows rows { t, ...counts } in buckets of `step` seconds between `from` and `to`, both in seconds. */
  show(rows, step, from, to) {
    const first = Math.floor(from / step) * step;
    const length = Math.max(1, Math.floor((to - first) / step) + 1);
    const times = Array.from({ length }, (_, i) => first + i * step);
    const counts = this.series.map(() => new Array(length).fill(0));
    for (const row of rows) {
      const i = Math.round((new Date(row.t).getTime() / 1000 - first) / step);
      if (i >= 0 && i < length) this.series.forEach((s, k) => { counts[k][i] += row[s.key] ?? 0; });
    }
    this.current = { times, counts, step };
    const totals = counts.map((c) => c.reduce((a, b) => a + b, 0));
    this.place.setAttribute("role", "img");
    this.place.setAttribute("aria-label", this.series.map((s, k) => `${s.label}: ${count(totals[k])}`).join(", "));
    const frame = `${step}:${first}:${length}`;
    if (this.plot && this.frame === frame) this.plot.setData(this.stacked());
    else this.redraw();
    this.frame = frame;
  }

  /** Sums from below; drawn from the highest to the lowest, so that each bar shows what it adds. */
  stacked() {
    const { times, counts } = this.current;
    let below = new Array(times.length).fill(0);
    const sums = counts.map((c) => (below = c.map((n, i) => n + below[i])));
    return [times, ...sums.reverse()];
  }

  redraw() {
    if (!this.current) return;
    this.plot?.destroy();
    this.place.replaceChildren();
    this.tip = el("div", { class: "tip", hidden: true });
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { times, step } = this.current;
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: colour("muted"), font, ticks: { show: false }, grid: { stroke: colour("line-soft"), width: 1 } };
    const bars = uPlot.paths.bars({ size: [0.82, 36], gap: 0 });
    this.plot = new uPlot({
      width: this.place.clientWidth || 300,
      height: this.place.clientHeight || 230,
      tzDate: (ts) => new Date((ts + new Date(ts * 1000).getTimezoneOffset() * 60) * 1000),
      padding: [10, 10, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: () => [times[0] - step * 0.6, times.at(-1) + step * 0.6] },
        y: { range: (_, __, max) => [0, Math.max(1, max * 1.08)] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 30, space: 70, values: (_, splits) => splits.map((t) => this.tick(t)) },
        { ...axis, size: 46, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8], values: (_, splits) => splits.map(short) },
      ],
      series: [{}, ...[...this.series].reverse().map((s) => ({ label: s.label, fill: colour(s.key), stroke: colour(s.key), width: 0, paths: bars, points: { show: false } }))],
      hooks: { setCursor: [(u) => this.hover(u)] },
    }, this.stacked(), this.place);
    this.place.append(this.tip);
  }

  tick(t) {
    const iso = new Date(t * 1000).toISOString();
    if (t % 86400 === 0) return iso.slice(5, 10);
    return iso.slice(11, t % 60 ? 19 : 16);
  }

  hover(u) {
    const i = u.cursor.idx;
    this.tip.hidden = i === null || i === undefined || u.cursor.left < 0;
    if (this.tip.hidden) return;
    const { times, counts } = this.current;
    this.tip.replaceChildren(el("p", {}, moment(times[i] * 1000)),
      ...this.series.map((s, k) => el("div", {}, el("span", { class: `s-${s.key}` }, el("i"), s.label), el("span", {}, count(counts[k][i])))).reverse());
    const left = u.valToPos(times[i], "x") + u.bbox.left / devicePixelRatio;
    const flip = left > this.place.clientWidth - this.tip.offsetWidth - 24;
    this.tip.style.left = `${flip ? left - this.tip.offsetWidth - 14 : left + 14}px`;
    this.tip.style.top = "12px";
  }

  resize() {
    if (this.plot && this.place.clientWidth) this.plot.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
  }
}
