// Dialogs: what is asked before something is done, and where. Native <dialog>, in the top layer of the page; the focus
// goes into it and back to what opened it.

import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { told } from "./format.js";
import { toast } from "./toast.js";

let dialogs = 0;

/** Show a component in the top layer of the page, outside of what opened it.
 *
 * What opened it may be a row that is taken away or drawn anew while the dialog is open: a dialog inside of it
 * would vanish under the reader's hands.
 *
 * @param {(close: () => void) => any} draw returns the vnode of a Dialog; `close` takes it away
 */
export function openDialog(draw) {
  const opener = document.activeElement;
  const root = document.createElement("div");
  document.body.append(root);
  const close = () => {
    if (!root.isConnected) return;
    render(null, root);
    root.remove();
    // The browser gives the focus back only when the dialog is closed before it is removed.
    if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
  };
  render(draw(close), root);
  return close;
}

/** A modal <dialog> with a heading; Escape and a click beside it call `onCancel`. */
export function Dialog({ title, onCancel, children, wide }) {
  const box = useRef(null);
  const [id] = useState(() => `dialog-${++dialogs}`);
  useLayoutEffect(() => {
    const dialog = box.current;
    dialog.showModal();
    const first = dialog.querySelector("[data-first]");
    if (first) first.focus();
    return () => dialog.close();
  }, []);
  const beside = (event) => {
    if (event.target === box.current && event.detail > 0) onCancel();
  };
  return html`
    <dialog
      ref=${box}
      class=${wide ? "dialog wide" : "dialog"}
      aria-labelledby=${id}
      onCancel=${(event) => {
        event.preventDefault();
        onCancel();
      }}
      onMouseDown=${beside}
    >
      <div class="dialog-body">
        <h2 id=${id}>${title}</h2>
        ${children}
      </div>
    </dialog>
  `;
}

/** A dialog that asks before something is done; the safe answer has the focus where it hurts.
 *
 * @param {object} props title; label of the button that does it; danger; disabled; onConfirm (may return a promise:
 *   the dialog waits for it, and shows why when it rejects); onCancel; children: what will happen, in words, and the fields of a form
 */
export function ConfirmDialog({ title, label, danger, disabled, onConfirm, onCancel, children, wide }) {
  const [busy, setBusy] = useState(false);
  const [refused, setRefused] = useState("");
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const submit = async (event) => {
    event.preventDefault();
    if (busy || disabled) return;
    setBusy(true);
    setRefused("");
    try {
      await onConfirm();
    } catch (error) {
      if (alive.current) setRefused(error.message);
      else toast(`${title}: ${error.message}`, { kind: "error" });
    } finally {
      setBusy(false);
    }
  };
  return html`
    <${Dialog} title=${title} onCancel=${onCancel} wide=${wide}>
      <form class="dialog-form" onSubmit=${submit}>
        ${children}
        <p class="trouble refused" role="alert" data-testid="refused">${told(refused)}</p>
        <div class="dialog-buttons">
          <button type="button" class="button" data-testid="cancel" data-first=${danger ? "" : null} onClick=${onCancel}>
            Cancel
          </button>
          <button
            type="submit"
            class=${danger ? "button danger" : "button primary"}
            data-testid="confirm"
            disabled=${disabled || busy}
            aria-busy=${busy ? "true" : null}
          >
            ${label}
          </button>
        </div>
      </form>
    <//>
  `;
}

/** Ask before something is done; resolves to whether it is wanted.
 *
 * @param {object} question title, sentence (what will happen), label (of the button), danger
 */
export function confirmed({ title, sentence, label, danger }) {
  return new Promise((resolve) => {
    openDialog((close) => {
      const end = (answer) => {
        close();
        resolve(answer);
      };
      return html`
        <${ConfirmDialog}
          title=${title}
          label=${label}
          danger=${danger}
          onConfirm=${() => end(true)}
          onCancel=${() => end(false)}
        >
          <p>${sentence}</p>
        <//>
      `;
    });
  });
}
