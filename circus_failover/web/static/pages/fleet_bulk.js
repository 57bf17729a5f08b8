// What is done to several agents at once: asked first, a few at a time, and what circusd said of each.

import { html, useState } from "../html.js";
import { post, under } from "../api.js";
import { useHosts } from "../live.js";
import { plain } from "../format.js";
import { toast } from "../toast.js";
import { Dialog, openDialog } from "../dialogs.js";

const AT_ONCE = 4; // verbs that wait for an end take seconds; circusd takes them one after another anyway
const NAMED = 8; // refusals that a message names

const VERBS = [
  {
    verb: "wake", label: "Wake", done: "woken", danger: false,
    says: "They are brought up; those that can resume go on in their conversation.",
  },
  {
    verb: "park", label: "Park", done: "parked", danger: true,
    says: "They are ended cleanly, and their next wake resumes them. What they do right now is cut off.",
  },
  {
    verb: "stop", label: "Stop", done: "stopped", danger: true,
    says: "They are ended and stay stopped until somebody starts them. What they do right now is cut off.",
  },
];

function names(count) {
  return count === 1 ? "1 agent" : `${count} agents`;
}

async function runAll(agents, { verb, done, label }, progress) {
  const waiting = [...agents];
  const refused = [];
  let finished = 0;
  const worker = async () => {
    for (let agent = waiting.shift(); agent !== undefined; agent = waiting.shift()) {
      try {
        await post(under("hosts", agent.host, "verbs", verb), { name: agent.identity });
      } catch (error) {
        refused.push(`${plain(agent.identity)}: ${plain(error.answer?.reason || error.message)}`);
      }
      finished += 1;
      progress(`${finished} of ${agents.length}`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, agents.length) }, worker));
  const good = agents.length - refused.length;
  const detail = refused.length > NAMED ? [...refused.slice(0, NAMED), `and ${refused.length - NAMED} more`] : refused;
  const outcome = [];
  if (good > 0) outcome.push(`${names(good)} ${done}`);
  if (refused.length > 0) outcome.push(`${refused.length} refused`);
  toast(`${label}: ${outcome.join(", ")}`, { kind: refused.length > 0 ? "error" : "ok", detail });
}

function Confirm({ agents, verb, several, close, go }) {
  return html`<${Dialog} title=${`${verb.label} ${names(agents.length)}?`} onCancel=${close}>
    <p>${verb.says}</p>
    <ul class="bulk-names">${agents.map((agent) => html`<li key=${`${agent.host}/${agent.identity}`}>
      ${plain(agent.identity)}${several ? html` <span class="dim">on ${plain(agent.host)}</span>` : null}
      <span class="dim"> ${plain(agent.phase)}</span></li>`)}</ul>
    <p class="row">
      <button type="button" class=${verb.danger ? "danger primary" : "primary"} data-testid="confirm" onClick=${go}>
        ${verb.label} ${names(agents.length)}</button>
      <button type="button" data-testid="cancel" data-first onClick=${close}>Cancel</button></p>
  <//>`;
}

export function BulkBar({ agents, several, clear }) {
  const [busy, setBusy] = useState(null);
  const hosts = useHosts();
  const gone = agents.some(({ host }) => !hosts.find(({ name }) => name === host)?.reachable);
  const ask = (verb) => openDialog((close) => html`<${Confirm} agents=${agents} verb=${verb} several=${several}
    close=${close} go=${async () => {
      close();
      setBusy(`${verb.label}: 0 of ${agents.length}`);
      await runAll(agents, verb, (text) => setBusy(`${verb.label}: ${text}`));
      setBusy(null);
      clear();
    }} />`);
  return html`<section class="bulk" aria-label="Selected agents" data-testid="bulk">
    <span role="status">${busy ?? `${names(agents.length)} selected`}</span>
    ${VERBS.map((verb) => html`<button key=${verb.verb} type="button" disabled=${busy !== null || gone}
      data-testid=${`bulk-${verb.verb}`} title=${gone ? "circusd of one of them does not answer" : null}
      onClick=${() => ask(verb)}>${verb.label}</button>`)}
    <button type="button" class="button quiet" disabled=${busy !== null} onClick=${clear}>Clear</button>
  </section>`;
}
