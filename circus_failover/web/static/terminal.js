// An agent's terminal on its page: live, read-only until somebody takes over, and readable as text.
// The frames come from the web socket while the page is looked at; who may type, and how, is takeover.js's.

import { html, stylesheet, useCallback, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { ApiError, post, under } from "./api.js";
import { on, send } from "./live.js";
import { plain, told } from "./format.js";
import { TELL_SECS, useCanAct } from "./actions.js";
import { openScreen } from "./screen.js";
import { useTakeOver } from "./takeover.js";
import { useDark } from "./dark.js";

const AS_TEXT_MS = 1000; // how often the plain text follows: a screen reader is not to be chased

// For hands without a keyboard. [what is shown, what it is called, what it sends]
const PADS = [
  ["Esc", "Escape", "\u001b"], ["Tab", "Tab", "\t"], ["↑", "Up", "\u001b[A"], ["↓", "Down", "\u001b[B"],
  ["←", "Left", "\u001b[D"], ["→", "Right", "\u001b[C"], ["⏎", "Enter", "\r"], ["⌫", "Backspace", "\u007f"],
  ["Ctrl+C", "Interrupt", "\u0003"],
];

/** The terminal of an agent.
 *
 * @param {object} props host: its name; agent: its view, as `fleet` gives it
 */
export function Terminal({ host, agent }) {
  const name = agent.identity;
  const [screen, setScreen] = useState(null);
  const [state, setState] = useState({ gone: null, title: "", size: "", seen: false });
  // All columns of a terminal on a phone would be too small to be read.
  const [readable, setReadable] = useState(() => matchMedia("(max-width: 639px)").matches);
  const [asText, setAsText] = useState(false);
  const [trouble, setTrouble] = useState("");
  const box = useRef(null);
  const dark = useDark();
  const can = useCanAct(host);
  const up = agent.phase === "up" && state.gone === null;
  const taken = useTakeOver({ host, name, generation: agent.generation, possible: up && !can.disabled && !can.hidden, screen });

  useLayoutEffect(() => {
    let closed = false;
    let opened = null;
    Promise.all([stylesheet("vendor/xterm.css"), stylesheet("agent.css")])
      .then(() => openScreen(box.current, { dark, label: `Terminal of ${plain(name)}` }))
      .then((made) => {
        opened = made;
        if (closed) made.close();
        else setScreen(made);
      }, (error) => setTrouble(`The terminal cannot be shown here: ${plain(error.message)}`));
    return () => {
      closed = true;
      opened?.close();
      setScreen(null);
    };
  }, [host, name]);

  useFrames(host, name, screen, setState);
  useEffect(() => screen?.look(dark), [screen, dark]);

  useEffect(() => {
    if (screen === null) return undefined;
    screen.readable = readable;
    screen.fit();
    const watch = new ResizeObserver(() => screen.fit());
    watch.observe(box.current);
    const fit = () => screen.fit();
    addEventListener("resize", fit);
    return () => {
      watch.disconnect();
      removeEventListener("resize", fit);
    };
  }, [screen, readable]);

  // A paste of several lines would be several answers, each at the mercy of what the agent asks by then.
  const pasted = (event) => {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!taken.typing || !/[\r\n]/.test(text.trim())) return;
    event.preventDefault();
    event.stopPropagation();
    setDraft(text);
    lineBox.current?.focus();
  };
  const [draft, setDraft] = useState("");
  const lineBox = useRef(null);
  const takeButton = useRef(null);
  const was = useRef(false);
  useEffect(() => {
    // The keyboard goes back to where it was before, unless the reader has gone on elsewhere.
    if (was.current && !taken.typing && document.activeElement === document.body) takeButton.current?.focus();
    was.current = taken.typing;
  }, [taken.typing]);

  const said = taken.typing ? `typed into by you` : "read-only";
  return html`<section class=${`terminal-card card${taken.typing ? " taken" : ""}`} aria-labelledby="terminal-title">
    <header class="terminal-head">
      <h2 id="terminal-title">Terminal</h2>
      <span class="terminal-mode">${said}${state.size ? html`<span class="quiet"> ${state.size}</span>` : null}</span>
      ${state.title ? html`<span class="terminal-name quiet">${plain(state.title)}</span>` : null}
      <span class="terminal-buttons">
        <button type="button" class="button quiet" aria-pressed=${String(readable)} onClick=${() => setReadable(!readable)}>
          Larger text</button>
        <button type="button" class="button quiet" aria-pressed=${String(asText)} data-testid="read-as-text"
          onClick=${() => setAsText(!asText)}>Read as text</button>
        ${can.hidden || taken.typing ? null : html`<button type="button" class="button" ref=${takeButton} data-testid="take-over"
          disabled=${!up || can.disabled || screen === null}
          title=${can.why || (up ? "type into this agent" : "nothing can be typed into it now")}
          onClick=${taken.take}>Take over</button>`}
      </span>
    </header>
    ${taken.typing ? html`<${Banner} name=${name} taken=${taken} />` : null}
    <p class="terminal-said" role="status">${taken.typing ? taken.trouble : taken.why}</p>
    ${state.gone !== null ? html`<p class="terminal-gone" data-testid="terminal-gone">No terminal to see: ${told(state.gone)}</p>` : null}
    ${trouble ? html`<p class="trouble">${trouble}</p>` : null}
    <div class=${`terminal-box${state.gone !== null ? (state.seen ? " gone" : " never") : ""}`} data-testid="terminal" ref=${box} onPasteCapture=${pasted}></div>
    ${state.seen || state.gone !== null ? null : html`<p class="quiet">Looking at its terminal …</p>`}
    ${asText && screen !== null ? html`<${AsText} screen=${screen} name=${name} />` : null}
    ${taken.typing ? html`<${LineBox} host=${host} agent=${agent} draft=${draft} setDraft=${setDraft} stay=${taken.stay} field=${lineBox} />` : null}
  </section>`;
}

// Have the frames of an agent painted while this page is looked at, and its socket is there.
function useFrames(host, name, screen, setState) {
  useEffect(() => {
    if (screen === null) return undefined;
    const ours = (message) => message.host === host && message.name === name;
    const ask = (wanted) => send({ do: "terminal", host, name, on: wanted });
    const keep = (next) => setState((before) => (Object.keys(next).every((key) => before[key] === next[key]) ? before : { ...before, ...next }));
    const stops = [
      on("terminal", (message) => {
        if (!ours(message)) return;
        const { frame } = message;
        // Without the frames before it there is nothing that it could go on from.
        if (screen.frame === null && screen.next === null && !frame.reset) return;
        screen.paint(frame);
        keep({ gone: null, title: frame.title, size: `${frame.cols} × ${frame.rows}`, seen: true });
      }),
      on("terminal-gone", (message) => {
        if (!ours(message)) return;
        screen.lost();
        keep({ gone: message.reason });
      }),
      // Another socket knows nothing of what the last one was asked for.
      on("hello", () => document.hidden || ask(true)),
    ];
    const visible = () => ask(!document.hidden);
    document.addEventListener("visibilitychange", visible);
    ask(!document.hidden);
    return () => {
      for (const stop of stops) stop();
      document.removeEventListener("visibilitychange", visible);
      ask(false);
    };
  }, [host, name, screen]);
}

function Banner({ name, taken }) {
  return html`<div class="takeover" role="region" aria-label="Taken over" data-testid="taken-over">
    <p><strong>You type into this agent.</strong> Keys go to ${plain(name)} at once, also what its tools ask. Ctrl+] hands back.</p>
    <button type="button" class="button primary" data-testid="hand-back" onClick=${() => taken.back()}>Hand back</button>
    <div class="pads" role="group" aria-label="Keys">
      ${PADS.map(([shown, called, sends]) => html`<button key=${called} type="button" class="pad" aria-label=${called}
        onClick=${() => taken.press(sends)}>${shown}</button>`)}
    </div>
  </div>`;
}

// A text that arrives as a whole, and is seen to.
function LineBox({ host, agent, draft, setDraft, stay, field }) {
  const [said, setSaid] = useState(null);
  const [busy, setBusy] = useState(false);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const submit = useCallback(async (event) => {
    event.preventDefault();
    if (busy || !draft.trim()) return;
    stay();
    setBusy(true);
    setSaid({ text: "on its way: it is typed when the agent takes input …" });
    let came;
    try {
      await post(under("hosts", host, "verbs", "tell"), { name: agent.identity, text: draft, secs: TELL_SECS });
      came = { text: "it has arrived" };
    } catch (error) {
      const reason = error instanceof ApiError ? error.answer?.reason ?? error.message : String(error);
      came = { text: told(reason), bad: true };
    }
    if (!alive.current) return;
    if (!came.bad) setDraft("");
    setSaid(came);
    setBusy(false);
    field.current?.focus();
  }, [busy, draft, host, agent.identity, stay]);
  const typed = (event) => {
    stay();
    setDraft(event.target.value);
  };
  const entered = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  return html`<form class="line-box" onSubmit=${submit}>
    <label for="line">Send a line</label>
    <textarea id="line" rows=${Math.min(6, draft.split("\n").length)} ref=${field} value=${draft} data-testid="line"
      onInput=${typed} onKeyDown=${entered} placeholder="Enter sends, Shift+Enter begins another line"></textarea>
    <button type="submit" class="button primary" data-testid="line-send" disabled=${busy || !draft.trim()}
      aria-busy=${busy ? "true" : null}>Send</button>
    <p class=${said?.bad ? "trouble" : "quiet"} role="status">${said?.text}</p>
  </form>`;
}

// The last lines without colours, for a screen reader, or to copy from on a phone.
function AsText({ screen, name }) {
  const [text, setText] = useState(() => screen.text());
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setText(screen.text()), AS_TEXT_MS);
    return () => clearInterval(timer);
  }, [screen]);
  return html`<pre class="as-text" tabindex="0" role="region" aria-label=${`Last lines of the terminal of ${plain(name)}`}
    data-testid="terminal-text">${text || "(nothing)"}</pre>`;
}
