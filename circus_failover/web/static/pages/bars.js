// Small pictures of numbers, drawn without a library: a bar that is so full, a bar of parts, a mark for a cause.
// Each has its numbers as text beside it or as its label: nothing is told by length or colour alone.

import { html } from "../html.js";

// A bar that is filled to `share` (0 to 1; null: not known), in a tone of pages.css.
export function Bar({ share, tone = "plain", label }) {
  const known = typeof share === "number" && Number.isFinite(share);
  const width = known ? Math.min(1, Math.max(0, share)) * 100 : 0;
  return html`<svg class=${`bar tone-${tone}${known ? "" : " not-known"}`} viewBox="0 0 100 8"
    preserveAspectRatio="none"
      role="img" aria-label=${label}>
    <rect class="bar-room" x="0" y="0" width="100" height="8" />
    <rect class="bar-full" x="0" y="0" width=${width} height="8" />
  </svg>`;
}

// One bar of several counts, with a legend that says each of them. parts: [{key, count, tone}]; `chosen` is the key of
// the one that is picked out, `onChoose` makes the legend buttons.
export function Parts({ parts, label, chosen = null, onChoose = null }) {
  const shown = parts.filter((part) => part.count > 0);
  const total = shown.reduce((sum, part) => sum + part.count, 0);
  let x = 0;
  const rects = shown.map((part) => {
    const width = (part.count / total) * 100;
    const rect = html`<rect key=${part.key} class=${`part tone-${part.tone}`} x=${x} y="0" width=${width}
      height="8" />`;
    x += width;
    return rect;
  });
  const said = shown.map((part) => `${part.count} ${part.key}`).join(", ");
  return html`<div class="parts">
    ${total > 0 && html`<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
      aria-label=${`${label}: ${said}`}>${rects}</svg>`}
    <ul class="legend">
      ${parts.map((part) => html`<li key=${part.key}>${onChoose === null
        ? html`<span class="legend-entry"><span class=${`swatch tone-${part.tone}`} aria-hidden="true"></span>
          ${part.key} <b>${part.count}</b></span>`
        : html`<button type="button" class="legend-entry" aria-pressed=${chosen === part.key ? "true" : "false"}
            onClick=${() => onChoose(chosen === part.key ? null : part.key)}>
            <span class=${`swatch tone-${part.tone}`} aria-hidden="true"></span>${part.key} <b>${part.count}</b>
          </button>`}</li>`)}
    </ul>
  </div>`;
}

// --- marks of causes -------------------------------------------------------------------------------------
// A path in a square of 10 by 10, and a tone. Of every cause that a death can have (docs/records.md).

const CROSS = "M1.5 0 5 3.5 8.5 0 10 1.5 6.5 5 10 8.5 8.5 10 5 6.5 1.5 10 0 8.5 3.5 5 0 1.5Z";
const BURST = "M5 0 6.2 3.1 9.3 1.2 7.4 4.3 10 5.5 7.2 6.4 8.8 9.5 5.7 7.6 4.6 10 3.7 7.4.7 8.8 2.6 5.7 0 4.6 2.9 3.7.9.8 4 2.7Z";
const DIAMOND = "M5 0 10 5 5 10 0 5Z";
const SQUARE = "M1 1H9V9H1Z";
const RING = "M5 .5A4.5 4.5 0 1 1 5 9.5 4.5 4.5 0 1 1 5 .5ZM5 2.7A2.3 2.3 0 1 0 5 7.3 2.3 2.3 0 1 0 5 2.7Z";
const DISC = "M5 .8A4.2 4.2 0 1 1 5 9.2 4.2 4.2 0 1 1 5 .8Z";
const UP = "M5 .8 9.8 9.2H.2Z";
const DOWN = "M5 9.2.2.8H9.8Z";
const PLUS = "M3.7 0H6.3V3.7H10V6.3H6.3V10H3.7V6.3H0V3.7H3.7Z";
const HOURGLASS = "M1 0H9L6 5 9 10H1L4 5Z";

const MARKS = {
  killed: [CROSS, "bad"],
  crashed: [BURST, "bad"],
  "oom-likely": [DIAMOND, "odd"],
  "orderly-unintended": [SQUARE, "warn"],
  unknown: [RING, "odd"],
  "server-lost": [CROSS, "bad"],
  "server-ended": [SQUARE, "warn"],
  exited: [DISC, "calm"],
  signaled: [UP, "warn"],
  "launch-failed": [DOWN, "warn"],
  "session-gone": [RING, "odd"],
  "ended-unknown": [RING, "odd"],
  "host-reboot": [PLUS, "calm"],
  stuck: [HOURGLASS, "warn"],
  "usage-limit": [HOURGLASS, "calm"],
  credentials: [DOWN, "calm"],
};

// The path and the tone of a cause; of one that a newer circusd has, those of "unknown".
export function markOf(cause) {
  return Object.hasOwn(MARKS, cause) ? MARKS[cause] : MARKS.unknown;
}

// The mark of a cause as a picture of its own; the cause stands beside it as text.
export function Mark({ cause }) {
  const [d, tone] = markOf(cause);
  return html`<svg class=${`mark tone-${tone}`} viewBox="0 0 10 10" aria-hidden="true"><path d=${d}
    fill-rule="evenodd" /></svg>`;
}
