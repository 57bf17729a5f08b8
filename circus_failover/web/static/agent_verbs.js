// The verbs of an agent as buttons, and as the list that a row of a table opens.

import { html, useEffect, useRef, useState } from "./html.js";
import { plain } from "./format.js";
import { Dialog, confirmed, openDialog } from "./dialogs.js";
import { useCanAct, useVerb } from "./verbs.js";
import { AssignForm, PurgeForm, RemoveForm, SwitchForm, TellForm, WakeForm } from "./agent_forms.js";

const CUT_OFF = "What it does right now is cut off.";

/** What each verb of an agent that asks one question at most does, in words.
 *
 * `asks`: what is said before; null: it does not hurt. `fits`: the phases in which somebody is likely to want it.
 */
const SIMPLE = {
  start: {
    label: "Start",
    hint: "bring it up through the gate, also when it was stopped or given up",
    asks: null,
    fits: ["stopped", "down", "held", "refused"],
  },
  stop: {
    label: "Stop",
    hint: "end it until somebody starts it",
    asks: (name) =>
      `${name} is ended: it has its time to end by itself, then it is killed. ${CUT_OFF} It stays stopped, also when ` +
      "circusd is started anew, until somebody starts it; then it resumes its conversation.",
    fits: ["up", "starting"],
  },
  restart: {
    label: "Restart",
    hint: "end it and bring it back in the same conversation",
    asks: (name) => `${name} is ended and brought back in its conversation. ${CUT_OFF}`,
    fits: ["up"],
  },
  park: {
    label: "Park",
    hint: "end it cleanly; its next wake resumes it",
    asks: (name) => `${name} is ended cleanly. ${CUT_OFF} It stays down until a wake, which resumes its conversation.`,
    fits: ["up"],
  },
  fresh: {
    label: "Fresh",
    danger: true,
    hint: "end it and begin a new conversation",
    asks: (name) =>
      `${name} is ended and begins anew at once, in a new conversation. ${CUT_OFF} The conversation so far is not ` +
      "gone on with.",
    fits: [],
  },
  reset: { label: "Reset", hint: "forgive the deaths that the crash-loop guard counts", asks: null, fits: ["held"] },
  nudge: { label: "Nudge", hint: "remind it of its assignment", asks: null, fits: [] },
};

/** The verbs that have a form, and the form. */
const FORMS = {
  wake: { label: "Wake", hint: "bring it up, with a task if you like", form: WakeForm, fits: ["parked", "down"] },
  tell: { label: "Tell", hint: "say something to it now", form: TellForm, fits: ["up"] },
  switch: { label: "Switch", hint: "go on in the same conversation on another account", form: SwitchForm, fits: [] },
  assign: { label: "Assign", hint: "give it work", form: AssignForm, fits: [] },
  rm: { label: "Remove…", hint: "take it out of circusd", form: RemoveForm, danger: true, fits: [] },
  purge: { label: "Purge…", hint: "delete all that is remembered of it", form: PurgeForm, danger: true, fits: [] },
};

const VERBS = { ...SIMPLE, ...FORMS };
const SHOWN = ["wake", "start", "restart", "park", "stop", "tell", "switch", "assign", "nudge", "fresh", "reset"];
const MORE = ["rm", "purge"];

/** All verbs of an agent.
 *
 * @param {object} props host: its name; agent: its view, as `fleet` gives it; compact: one button that opens a list
 *   of them, for a row of a table
 */
export function AgentActions({ host, agent, compact }) {
  const can = useCanAct(host);
  if (can.hidden) return null;
  const open = (verbs) =>
    openDialog((close) => html`<${Menu} host=${host} agent=${agent} verbs=${verbs} close=${close} />`);
  if (compact) {
    return html`
      <button
        type="button"
        class="button quiet menu-button"
        aria-haspopup="dialog"
        aria-label=${`Actions for ${plain(agent.identity)}`}
        data-testid=${`actions-${agent.identity}`}
        disabled=${can.disabled}
        title=${can.why || null}
        onClick=${(event) => {
          event.stopPropagation();
          open([...SHOWN, ...MORE]);
        }}
      >
        <span aria-hidden="true">⋯</span>
      </button>
    `;
  }
  return html`
    <div class="agent-actions" role="group" aria-label=${`Actions for ${plain(agent.identity)}`}>
      ${SHOWN.map((verb) => html`<${AgentVerb} key=${verb} host=${host} agent=${agent} verb=${verb} />`)}
      <button
        type="button"
        class="button quiet"
        aria-haspopup="dialog"
        data-testid="more-verbs"
        disabled=${can.disabled}
        title=${can.why || null}
        onClick=${() => open(MORE)}
      >
        More…
      </button>
    </div>
  `;
}

/** One verb of an agent; `before` is called when it is chosen, as to close the list that it is in. */
function AgentVerb({ host, agent, verb, before, long }) {
  const { label, hint, danger, asks, fits, form } = VERBS[verb];
  const can = useCanAct(host);
  const send = useVerb();
  const [busy, setBusy] = useState(false);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const name = plain(agent.identity);
  const click = async () => {
    if (before) before();
    if (form) {
      openDialog((close) => html`<${form} host=${host} agent=${agent} close=${close} />`);
      return;
    }
    const sentence = asks && asks(name);
    if (sentence && !(await confirmed({ title: `${label} ${name}?`, sentence, label, danger }))) return;
    setBusy(true);
    const properties = verb === "nudge" ? { name: agent.identity } : { names: [agent.identity] };
    await send(host, verb, properties, { what: `${verb} ${name}` });
    if (alive.current) setBusy(false);
  };
  const apt = fits.includes(agent.phase);
  return html`
    <button
      type="button"
      class=${`button${danger ? " danger" : ""}${apt ? " apt" : ""}`}
      data-testid=${`verb-${verb}`}
      disabled=${can.disabled || busy}
      aria-busy=${busy ? "true" : null}
      aria-haspopup=${form || asks ? "dialog" : null}
      title=${can.why || hint}
      onClick=${click}
    >
      ${label}${long ? html`<span class="verb-hint">${hint}</span>` : null}
    </button>
  `;
}

/** The list of verbs that a row's button opens. */
function Menu({ host, agent, verbs, close }) {
  return html`
    <${Dialog} title=${`${plain(agent.identity)}: ${plain(agent.phase)}`} onCancel=${close}>
      <div class="verb-list">
        ${verbs.map(
          (verb) => html`<${AgentVerb} key=${verb} host=${host} agent=${agent} verb=${verb} before=${close} long />`,
        )}
      </div>
      <div class="dialog-buttons">
        <button type="button" class="button" data-testid="cancel" data-first onClick=${close}>Close</button>
      </div>
    <//>
  `;
}
