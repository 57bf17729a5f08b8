// Short messages at the edge of the page: what an action came to. Errors stay until they are closed.

import { html, useLayoutEffect, useReducer } from "./html.js";
import { told } from "./format.js";

const STAYS = 6000; // ms; a person reads a sentence in that
const MOST = 5;

let shown = [];
let number = 0;
const listeners = new Set();

function change(next) {
  shown = next;
  for (const each of [...listeners]) each();
}

function close(id) {
  change(shown.filter((each) => each.id !== id));
}

// Show a text. kind: "ok", "error" or "info"; detail: a second line (a list is shown as lines);
// stays: milliseconds, 0 until it is closed (errors). Returns what closes it.
export function toast(text, { kind = "ok", detail = null, stays = kind === "error" ? 0 : STAYS } = {}) {
  const id = ++number;
  const details = (Array.isArray(detail) ? detail : [detail]).filter(Boolean).map(told);
  change([...shown, { id, text: told(text), kind, details }].slice(-MOST));
  if (stays > 0) setTimeout(() => close(id), stays);
  return () => close(id);
}

const SYMBOL = { ok: "✓", error: "!", info: "i" };

// Where the toasts are; the shell has it once.
export function Toasts() {
  const [, again] = useReducer((count) => count + 1, 0);
  useLayoutEffect(() => {
    listeners.add(again);
    return () => listeners.delete(again);
  }, []);
  return html`<section class="toasts" aria-label="Messages" role="log" aria-live="polite" aria-relevant="additions">
    ${shown.map(({ id, text, kind, details }) => html`
      <div key=${id} class=${`toast toast-${kind}`} data-testid="toast" role=${kind === "error" ? "alert" : null}>
        <span class="toast-symbol" aria-hidden="true">${SYMBOL[kind] ?? SYMBOL.info}</span>
        <div class="toast-text">
          <p>${text}</p>
          ${details.map((line) => html`<p class="dim">${line}</p>`)}
        </div>
        <button type="button" class="icon-button" aria-label="Close this message" onClick=${() => close(id)}>✕</button>
      </div>`)}
  </section>`;
}
