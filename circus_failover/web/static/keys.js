// Keys for those who would rather not reach for the mouse, and the list of them. None takes effect while somebody
// writes, or with a modifier: those keys are the browser's.

import { html, useEffect, useLayoutEffect, useRef } from "./html.js";
import { navigate } from "./router.js";

const PLACES = { f: "/", d: "/deaths", a: "/accounts", w: "/work", c: "/circus" };
const SECOND_KEY = 1500; // ms for the second key of "g f"

const LIST = [
  ["/", "Write in the filter"],
  ["j  k", "Next and previous row"],
  ["Enter", "Open the row"],
  ["x", "Select the row"],
  ["m", "Menu of the row"],
  ["Esc", "Leave the filter; clear the selection"],
  ["g then f d a w c", "Fleet, deaths, accounts, work, circus"],
  ["?", "These keys"],
];

// Whether a key is meant for what is written in, or for a dialog, and not for the page.
export function writing(event) {
  const target = event.target instanceof Element ? event.target : null;
  return event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing
    || target?.closest("input:not([type=checkbox]), textarea, select, [contenteditable], .xterm, [data-own-keys]") != null
    || document.querySelector("dialog[open]") !== null;
}

export function Keys({ open, setOpen }) {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    if (open && !dialog.current.open) dialog.current.showModal();
    if (!open && dialog.current.open) dialog.current.close();
  }, [open]);
  useEffect(() => {
    let begun = 0;
    const press = (event) => {
      if (writing(event)) return;
      if (event.key === "?") setOpen(true);
      else if (event.key === "g") begun = Date.now();
      else if (event.key in PLACES && Date.now() - begun < SECOND_KEY) navigate(PLACES[event.key]);
      else return;
      if (event.key !== "g") begun = 0;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  return html`<dialog class="keys" ref=${dialog} onClose=${() => setOpen(false)} aria-labelledby="keys-title">
    <h2 id="keys-title">Keys</h2>
    <dl>${LIST.map(([key, what]) => html`<div key=${key}><dt>${key.split(/ +/).map((part) =>
      part === "then" ? " then " : html`<kbd>${part}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl>
    <form method="dialog"><button autofocus>Close</button></form>
  </dialog>`;
}
