// Launches and ends of an agent as a picture: a bar for as long as it was up, what it was between two launches, and
// why each ended. The same as a list, for who would rather read it.

import { html, useEffect, useMemo, useState } from "../html.js";
import { Ago, When, full, now, plain, span } from "../format.js";

const RANGES = [["hour", "1 h", 3600], ["day", "24 h", 86400], ["week", "7 d", 7 * 86400], ["all", "all", Infinity]];
const ROOM = 13; // per cent of the picture that a cause's words need
const DRAWN_MS = 15_000; // so often the bar of a launch that is up grows
const LIST = 20;
const LIVE = ["starting", "up", "stopping", "observed"];
const AFTER = { parked: "parked", "operator-stop": "stopped", removed: "stopped", limited: "held" };

/** The picture and the list.
 *
 * @param {object} props launches: of `history`, the newest first; undefined while they are read; agent: its view
 */
export function Timeline({ launches, agent }) {
  const [range, setRange] = useState(null);
  const [at, setAt] = useState(now);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setAt(now()), DRAWN_MS);
    return () => clearInterval(timer);
  }, []);
  // A launch that has just come lies behind the time that was drawn last.
  const until = Math.max(at, launches?.[0]?.started_at ?? 0, launches?.[0]?.ended_at ?? 0, agent.since ?? 0);
  const chosen = range ?? fitting(launches, until);
  const picture = useMemo(() => drawn(launches ?? [], agent.phase, chosen, until), [launches, agent.phase, chosen, until]);
  return html`<section class="card timeline" aria-labelledby="timeline-title">
    <header class="card-head"><h2 id="timeline-title">Launches and ends</h2>
      <span class="ranges" role="group" aria-label="How far back">${RANGES.map(([key, label]) => html`
        <button key=${key} type="button" class="button quiet small" aria-pressed=${String(chosen === key)} onClick=${() => setRange(key)}>${label}</button>`)}</span>
    </header>
    ${launches === undefined ? html`<p class="quiet">Reading its launches …</p>` : null}
    ${launches?.length === 0 ? html`<p class="quiet">It was never launched.</p>` : null}
    ${launches?.length ? html`<${Picture} ...${picture} />
      <p class="legend" aria-hidden="true">
        <span class="swatch bar-up"></span>up <span class="swatch bar-starting"></span>starting
        <span class="swatch bar-parked"></span>parked <span class="swatch bar-down"></span>down
        <span class="swatch bar-stopped"></span>stopped <span class="swatch bar-held"></span>held
        <span class="mark bad">✕</span> ended by itself <span class="mark">◆</span> ended on purpose</p>
      <details open=${launches.length <= 3}><summary>As a list</summary><${List} launches=${launches} /></details>` : null}
  </section>`;
}

// The smallest range that has a whole launch before the present one.
function fitting(launches, until) {
  const first = launches?.[Math.min(launches.length - 1, 2)]?.started_at;
  if (first === undefined) return "hour";
  return (RANGES.find(([, , secs]) => until - first <= secs) ?? RANGES.at(-1))[0];
}

// What there is to draw: bars and marks, in per cent of the picture's width.
function drawn(launches, phase, range, until) {
  const ordered = [...launches].reverse();
  const secs = RANGES.find(([key]) => key === range)[2];
  const from = Math.max(until - secs, Math.min(ordered[0]?.started_at ?? until - 60, until - 60));
  const place = (epoch) => ((Math.min(Math.max(epoch, from), until) - from) / (until - from)) * 100;
  const bars = [];
  const marks = [];
  const bar = (kind, begin, end, title) => {
    if (end <= from || begin >= until || end <= begin) return;
    bars.push({ kind, left: place(begin), width: Math.max(0.25, place(end) - place(begin)), title });
  };
  ordered.forEach((launch, index) => {
    const next = ordered[index + 1];
    const end = launch.ended_at ?? (next ? next.started_at : until);
    const up = launch.up_at ?? end;
    bar("starting", launch.started_at, Math.min(up, end), `launch ${launch.generation}, starting`);
    const kind = launch.ended_at === null && phase === "stopping" ? "stopping" : "up";
    bar(kind, up, end, `launch ${launch.generation}, up for ${span(end - up)}`);
    if (launch.ended_at === null) return;
    // Of the last one the present phase says more than its end does.
    const after = next || LIVE.includes(phase) ? AFTER[launch.end_cause] ?? (launch.planned ? "parked" : "down") : phase;
    bar(after, launch.ended_at, next?.started_at ?? until, `${plain(after)} for ${span((next?.started_at ?? until) - launch.ended_at)}`);
    if (launch.ended_at >= from) marks.push({ at: launch.ended_at, left: place(launch.ended_at), launch });
  });
  // Words only where there is room for them, the newest first; the mark itself always.
  let free = 100 + ROOM;
  for (const mark of [...marks].reverse()) {
    mark.words = mark.left <= free - ROOM;
    if (mark.words) free = mark.left;
  }
  return { bars, marks, from, until };
}

function Picture({ bars, marks, from, until }) {
  const ended = marks.length === 0 ? "none ended" : `${marks.length} ended`;
  return html`<div class="picture" role="img" aria-label=${`From ${full(from)} to now: ${ended}; the list below says when and why`}>
    <div class="bars">${bars.map((bar, index) => html`<span key=${index} class=${`bar bar-${bar.kind}`} title=${bar.title}
      style=${{ left: `${bar.left}%`, width: `${bar.width}%` }}></span>`)}</div>
    <div class="marks">${marks.map(({ left, launch, words }) => html`<span key=${launch.generation}
      class=${`mark${launch.planned ? "" : " bad"}${left > 50 ? " to-left" : ""}`} style=${{ left: `${left}%` }}
      title=${`launch ${launch.generation}: ${plain(launch.end_cause)}, ${full(launch.ended_at)}`}>
      ${launch.planned ? "◆" : "✕"}${words ? html`<span class="mark-words">${plain(launch.end_cause)}</span>` : null}</span>`)}</div>
    <div class="times"><span>${html`<${When} at=${from} />`}</span><span>${span((until - from) / 2)} ago</span><span>now</span></div>
  </div>`;
}

function List({ launches }) {
  const [all, setAll] = useState(false);
  const shown = all ? launches : launches.slice(0, LIST);
  return html`<ol class="launches" reversed start=${launches[0]?.generation}>
    ${shown.map((launch) => html`<${Launch} key=${launch.generation} launch=${launch} />`)}
    ${shown.length < launches.length ? html`<li class="none"><button type="button" class="button quiet" onClick=${() => setAll(true)}>
      ${launches.length - shown.length} earlier ones</button></li>` : null}
  </ol>`;
}

function Launch({ launch }) {
  const by = launch.exit_signal !== null ? `, signal ${launch.exit_signal}` : launch.exit_status !== null ? `, exit status ${launch.exit_status}` : "";
  return html`<li value=${launch.generation} data-testid="launch">
    <span><b>${plain(launch.mode ?? "launch")}</b> <span class="quiet">${launch.wake_cause ? `(${plain(launch.wake_cause)}${launch.parked_by ? `, parked by ${plain(launch.parked_by)}` : ""}), ` : ""}
      ${plain(launch.cause)} by ${plain(launch.asked_by)}${launch.account ? ` on ${plain(launch.account)}` : ""}</span>, <${When} at=${launch.started_at} /></span>
    <span>${launch.ended_at === null ? html`<span class="quiet">${launch.up_at === null ? "not proven ready" : "runs"}</span>`
      : html`<span class=${launch.planned ? "" : "bad"}>${launch.planned ? "◆ ended on purpose" : "✕ ended by itself"}: <b>${plain(launch.end_cause)}</b>${by}</span>
        <span class="quiet"> <${Ago} at=${launch.ended_at} />, ${launch.up_at === null ? "never up" : `up for ${span(launch.ended_at - launch.up_at)}`}</span>`}</span>
  </li>`;
}
