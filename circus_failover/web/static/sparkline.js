// A line without axes for a few values, with its newest figure in words for who cannot see it.

import { html, useLayoutEffect, useRef } from "./html.js";
import { percent, bytes } from "./format.js";
import { usageOf, watchUsage, SAMPLES } from "./live.js";
import { onVisible } from "./visible.js";

const WIDTH = 60;
const HEIGHT = 18;

// The path of the values in a box of WIDTH by HEIGHT, the newest at the right edge; unknown ones are gaps.
export function linePath(values, max, slots = values.length) {
  const top = max > 0 ? max : 1;
  const step = WIDTH / Math.max(1, slots - 1);
  let text = "";
  let pen = "M";
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index];
    if (value === null || value === undefined || Number.isNaN(value)) {
      pen = "M";
      continue;
    }
    const x = WIDTH - (values.length - 1 - index) * step;
    const y = HEIGHT - 1 - (Math.min(value, top) / top) * (HEIGHT - 2);
    text += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  }
  return text;
}

export function largest(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most;
}

// `label` is the text alternative ("CPU 3 %"); `max` the value at the top edge (the largest one when not given).
export function Sparkline({ values, label, max }) {
  return html`<svg class="sparkline" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img"
    aria-label=${label}>
    <path d=${linePath(values, max ?? largest(values))} vector-effect="non-scaling-stroke" />
  </svg>`;
}

// What the two lines of a process tree are, and where their top edge is: one busy agent and one that does
// nothing must not look alike, so a line has a least height of scale.
const KINDS = {
  cpu: { say: percent, top: (most) => Math.max(most * 1.1, 25) },
  rss: { say: bytes, top: (most) => Math.max(most * 1.1, 64e6) },
};

// The live line and figure of an agent's or watcher's process tree; `kind` is "cpu" or "rss".
// It is drawn past preact: hundreds of these change each five seconds, and only those in view are touched.
export function UsageLine({ host, name, kind }) {
  const root = useRef(null);
  useLayoutEffect(() => {
    const [svg, figure] = root.current.children;
    const line = svg.firstElementChild;
    const { say, top } = KINDS[kind];
    let drawn = null;
    const draw = () => {
      const values = usageOf(host, name)[kind];
      const path = linePath(values, top(largest(values)), SAMPLES);
      if (path !== drawn) {
        line.setAttribute("d", path);
        drawn = path;
      }
      const text = say(values.at(-1));
      if (figure.textContent !== text) figure.textContent = text;
    };
    let off = null;
    const unseen = onVisible(root.current, (visible) => {
      off?.();
      off = visible ? watchUsage(host, name, draw) : null;
      if (visible) draw();
    });
    return () => {
      off?.();
      unseen();
    };
  }, [host, name, kind]);
  return html`<span class="usage" ref=${root}>
    <svg class="sparkline sparkline-${kind}" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none"
      aria-hidden="true">
      <path vector-effect="non-scaling-stroke" />
    </svg>
    <span class="figure"></span>
  </span>`;
}
