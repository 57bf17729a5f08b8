// Lines over time with axes (uPlot), in the page's colours, and as a table for who cannot see them.

import { html, stylesheet, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { bytes, full, percent, when } from "./format.js";
import { useDark } from "./dark.js";

const UNITS = { "%": percent, percent, bytes };
const COLOURS = { light: ["#1c55b3", "#a34a00", "#2c6e1f"], dark: ["#7fb0f5", "#f0a35e", "#8fce7a"] };
const AXES = { light: { text: "#4d5560", grid: "#dfe3e8" }, dark: { text: "#a5aebb", grid: "#2b323c" } };
const ROWS = 20; // of the table: as many as can be listened to
const KILO = 1000; // as `bytes` writes them

let loaded = null;

function load() {
  loaded ??= Promise.all([import("./vendor/uplot.mjs"), stylesheet("vendor/uplot.css")]).then(([module]) => module.default);
  return loaded;
}

function written(unit) {
  return UNITS[unit] ?? ((value) => (value === null || value === undefined ? "–" : String(value)));
}

/** A chart.
 *
 * @param {object} props at: epoch seconds, ascending; series: [{label, values, unit: "%" or "bytes"}], as many values
 *   as times, null where it is unknown; height in px; label: what the chart is called for who cannot see it
 */
export function Chart({ at, series, height = 160, label }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [uPlot, setPlot] = useState(null);
  const dark = useDark();
  const named = series.map((one) => one.label).join(", ");
  const units = series.map((one) => one.unit).join(",");
  const data = [at, ...series.map((one) => one.values)];
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    let there = true;
    load().then((found) => there && setPlot(() => found), () => {});
    return () => void (there = false);
  }, []);

  useLayoutEffect(() => {
    if (uPlot === null) return undefined;
    const element = box.current;
    const made = new uPlot(options(uPlot, series, element.clientWidth, height, dark), latest.current, element);
    plot.current = made;
    const watch = new ResizeObserver(() => {
      if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height });
    });
    watch.observe(element);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [uPlot, dark, height, named, units]);

  useEffect(() => plot.current?.setData(data), [at, ...series.map((one) => one.values)]);

  const summary = series.map((one) => said(one)).join("; ");
  return html`<figure class="chart">
    <div class="chart-box" ref=${box} role="img" aria-label=${`${label ? `${label}. ` : ""}${summary}`}></div>
    <${Table} at=${at} series=${series} label=${label ?? named} />
  </figure>`;
}

// What a chart shows, in a sentence.
function said({ label, values, unit }) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length === 0) return `${label}: nothing is known yet`;
  const write = written(unit);
  const most = known.reduce((one, other) => Math.max(one, other));
  return `${label}: now ${write(known.at(-1))}, at most ${write(most)}`;
}

// Some of the times, the newest first; each with the largest value since the one before.
function Table({ at, series, label }) {
  const [open, setOpen] = useState(false);
  const rows = useMemo(() => (open ? thinned(at, series) : []), [open, at, series]);
  return html`<details class="chart-table" onToggle=${(event) => setOpen(event.target.open)}>
    <summary>As a table<span class="sr-only">: ${label}</span></summary>
    ${open ? html`<table>
      <caption class="sr-only">${label}</caption>
      <thead><tr><th scope="col">Time</th>${series.map((one) => html`<th scope="col">${one.label}</th>`)}</tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.at}><th scope="row"><time title=${full(row.at)}>${when(row.at)}</time></th>
        ${row.values.map((value, index) => html`<td class="number">${written(series[index].unit)(value)}</td>`)}</tr>`)}</tbody>
    </table>` : null}
  </details>`;
}

function thinned(at, series) {
  const step = Math.max(1, Math.ceil(at.length / ROWS));
  const rows = [];
  for (let end = at.length; end > 0; end -= step) {
    const begin = Math.max(0, end - step);
    const values = series.map(({ values: all }) => {
      const some = all.slice(begin, end).filter((value) => value !== null && value !== undefined);
      return some.length > 0 ? some.reduce((one, other) => Math.max(one, other)) : null;
    });
    rows.push({ at: at[end - 1], values });
  }
  return rows;
}

function options(uPlot, series, width, height, dark) {
  const theme = dark ? "dark" : "light";
  const { text, grid } = AXES[theme];
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const write = written(series[0]?.unit);
  return {
    width: Math.max(width, 100),
    height,
    legend: { show: true, live: true },
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, top(most, series[0]?.unit)] } },
    axes: [
      { ...axis, space: 70, values: (_, splits) => splits.map((split) => clock.format(split * 1000)) },
      { ...axis, size: 64, space: 32, values: (_, splits) => splits.map((split) => (split === 0 ? "0" : write(split))) },
    ],
    series: [
      { label: "Time", value: (_, value) => (value === null ? "–" : when(value)) },
      ...series.map((one, index) => ({
        label: one.label, stroke: COLOURS[theme][index % 3], width: 1.5, points: { show: false }, spanGaps: false,
        fill: `${COLOURS[theme][index % 3]}22`, value: (_, value) => written(one.unit)(value),
      })),
    ],
  };
}

// The upper end of the axis: a little above the largest value, never so low that noise fills the picture.
function top(most, unit) {
  const least = unit === "bytes" ? KILO * KILO : 5;
  return Math.max((most ?? 0) * 1.1, least);
}
