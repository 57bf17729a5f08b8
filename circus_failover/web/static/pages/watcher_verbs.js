// What the pages about Circus say of one watcher in the same way: its status, its verbs, and what those do to an agent.

import { html } from "../html.js";
import { Dialog, VerbButton, openDialog, useCanAct } from "../actions.js";
import { plain } from "../format.js";
import { counted, useOperator } from "./per_host.js";

// What Circus's verbs do to an agent.
export function AgentsToo() {
  return html`<details class="agents-too">
    <summary>What these do to agents</summary>
    <ul>
      <li><b>start</b> goes through the gate: it brings the agent up, or says why not.</li>
      <li><b>stop</b> and <b>restart</b> of an agent <b>end</b> it: first it may end by itself, then it is killed. After
        <b> stop</b> it stays stopped.</li>
      <li><b>reload</b>, <b>reloadconfig</b>, <b>signal</b> and <b>kill</b>, and a restart of circusd itself only
        <b> detach</b>: they reach the keeper, the small process that Circus sees; the agent lives on and is adopted
        again.</li>
      <li><b>More or fewer processes</b> is refused: an agent has exactly one.</li>
    </ul>
  </details>`;
}

const STATUS = { active: ["●", "good"], stopped: ["■", "plain"], starting: ["▲", "warn"], stopping: ["▼", "warn"] };

export function Status({ status }) {
  const [symbol, tone] = STATUS[status] ?? ["?", "odd"];
  return html`<span class=${`badge tone-${tone}`}><span aria-hidden="true">${symbol} </span>${plain(status)}</span>`;
}

// The verbs of one watcher. Where it is an agent they say what happens to it. compact: one button that opens a list of
// them; long: also those that do nothing to one that is stopped; done(): called after one was agreed to.
export function WatcherVerbs({ host, one, long = false, compact = false, done = null }) {
  const operator = useOperator();
  const can = useCanAct(host);
  if (!operator) return null;
  const name = plain(one.name);
  if (compact) {
    const open = () => openDialog((close) => html`<${Dialog} title=${`${name}: ${plain(one.status)}`}
      onCancel=${close}>
      <${WatcherVerbs} host=${host} one=${one} done=${close} />
      <div class="dialog-buttons"><button type="button" class="button" data-testid="cancel" data-first
        onClick=${close}>Close</button></div>
    <//>`);
    return html`<button type="button" class="button quiet" aria-haspopup="dialog" aria-label=${`Actions for ${name}`}
      disabled=${can.disabled}
      title=${can.why || null} onClick=${open}><span aria-hidden="true">⋯</span></button>`;
  }
  // A watcher's name may hold what a pattern would read otherwise.
  const match = (verb) => (["start", "stop", "restart"].includes(verb) ? { match: "simple" } : {});
  const button = (verb, label, more = {}) => html`<${VerbButton} host=${host} verb=${verb} properties=${{ name: one.name, ...match(verb) }}
    label=${label}
    what=${`${verb} ${name}`} done=${done} ...${more} />`;
  const runs = one.status !== "stopped";
  const processes = counted(one.pids?.length ?? 0, "process", "processes");
  return html`<div class="verbs" role="group" aria-label=${`Actions for ${name}`}>
    ${!runs && button("start", "Start")}
    ${runs && button("stop", "Stop", { danger: true, confirm: one.agent
      ? `The agent ${name} is ended: it may end by itself first, then it is killed. It stays stopped until somebody starts it.`
      : `${name} is stopped: its ${processes} get the stop signal, and are killed after its graceful_timeout.` })}
    ${runs && button("restart", "Restart", { confirm: one.agent
      ? `The agent ${name} is ended and brought back in its conversation. What it does right now is cut off.`
      : `${name} is stopped and started again.` })}
    ${(runs || long) && button("reload", "Reload", { confirm: one.agent
      ? `Only the keeper of ${name} is replaced: the agent lives on and is adopted again.`
      : `The processes of ${name} are replaced one after another; with send_hup they are sent SIGHUP instead.` })}
    ${!one.agent && button("incr", "+1", { title: "one process more" })}
    ${!one.agent && button("decr", "−1", { title: "one process less", confirm: (one.pids?.length ?? 0) > 0 ? `One process of ${name} is ended.`
      : null, disabled: (one.pids?.length ?? 0) === 0 })}
  </div>`;
}
