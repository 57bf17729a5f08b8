// The head of an agent's page: its phase and why, and what is known of its launch.

import { html, useState } from "../html.js";
import { Link, path } from "../router.js";
import { Ago, Since, Until, When, plain, told } from "../format.js";
import { Phase, State } from "./agent_words.js";

const RUNS = ["up", "starting", "stopping", "observed"];

// children: the buttons. They stand above all that comes and goes with a change of phase: what moves under a press
// would be another button's, or lost.
export function AgentHead({ host, agent, explained, children }) {
  const launch = explained?.agent.generation === agent.generation ? explained.launches[0] : null;
  const why = [agent.cause && `cause: ${agent.cause}`, agent.held_until && html`held until <${When} at=${agent.held_until} /> (<${Until} at=${agent.held_until} />)`]
    .filter(Boolean);
  return html`<header class="agent-head">
    <p class="crumbs"><${Link} href="/">Fleet<//> / ${plain(host)}</p>
    <h1>${plain(agent.identity)} <${Phase} agent=${agent} /></h1>
    ${children}
    ${agent.reason ? html`<p class="agent-reason" data-testid="reason">${told(agent.reason)}</p>` : null}
    <p class="agent-why quiet">${why.map((one, index) => html`${index ? ", " : ""}${typeof one === "string" ? plain(one) : one}`)}
      ${agent.last_cause ? html`${why.length ? "; " : ""}last launch ended: ${plain(agent.last_cause)}` : null}</p>
    ${explained && explained.gate !== "ok" ? html`<p class="trouble">The gate: ${plain(explained.gate)}</p>` : null}
    ${explained?.problems ? html`<p class="trouble">Its settings: ${plain(explained.problems)}</p>` : null}
    ${agent.fault ? html`<${Fault} fault=${agent.fault} />` : null}
    <dl class="agent-facts">
      <${Fact} name="State"><${State} agent=${agent} /><//>
      ${agent.state_evidence ? html`<${Fact} name="Evidence">${told(agent.state_evidence)}
        <span class="quiet">${agent.state_source ? ` (${plain(agent.state_source)})` : ""} ${agent.state_at ? html`<${Ago} at=${agent.state_at} />` : null}</span><//>` : null}
      ${agent.phase === "up"
        ? html`<${Fact} name="Up for"><${Since} at=${launch?.up_at ?? agent.since} /><//>`
        : html`<${Fact} name=${`${plain(agent.phase)} for`}>${agent.since ? html`<${Since} at=${agent.since} />` : "–"}<//>`}
      ${RUNS.includes(agent.phase) ? html`<${Fact} name="Idle for">${agent.last_activity ? html`<${Since} at=${agent.last_activity} />` : "unknown"}<//>` : null}
      <${Fact} name="Account"><${Account} agent=${agent} /><//>
      <${Fact} name="Runtime">${plain(agent.runtime)}${agent.mode === "observe" ? ", only observed" : ""}<//>
      <${Fact} name="Launch">${agent.generation ? `generation ${agent.generation}` : "never launched"}
        ${launch?.mode ? html`<span class="quiet">, ${plain(launch.mode)} (${plain(launch.wake_cause)})</span>` : null}<//>
      <${Fact} name="Comes back">${plain(agent.restart)}<//>
      ${agent.pool ? html`<${Fact} name="Pool"><${Link} href=${`/?pool=${encodeURIComponent(agent.pool)}`}>${plain(agent.pool)}<//><//>` : null}
      <${Fact} name="Assignment">${agent.assignment
        ? html`<${Link} href=${`/work?id=${encodeURIComponent(agent.assignment)}`}>${plain(agent.assignment)}<//>${" "}
          <span class="quiet">${plain(agent.assignment_state)} ${agent.assignment_since ? html`for <${Since} at=${agent.assignment_since} />` : null}</span>`
        : "none"}<//>
      ${agent.tasks ? html`<${Fact} name="Tasks waiting">${agent.tasks}<//>` : null}
      ${agent.pid ? html`<${Fact} name="Process">${agent.pid}${agent.server_pid ? html`<span class="quiet">, tmux server ${agent.server_pid}</span>` : null}<//>` : null}
      ${agent.conversation ? html`<${Fact} name="Conversation"><code>${plain(agent.conversation)}</code><${Copy} text=${agent.conversation} what="conversation" /><//>` : null}
      ${agent.socket ? html`<${Fact} name="Socket" wide><code>${plain(agent.socket)}</code><//>` : null}
      ${agent.socket && RUNS.includes(agent.phase) ? html`<${Fact} name="Attach" wide><code>failoverctl attach ${plain(agent.identity)}</code>
        <${Copy} text=${`failoverctl attach ${agent.identity}`} what="command" /><//>` : null}
    </dl>
  </header>`;
}

function Fact({ name, wide, children }) {
  return html`<div class=${wide ? "wide" : null}><dt>${name}</dt><dd>${children}</dd></div>`;
}

function Account({ agent }) {
  if (!agent.account) return "none";
  return html`<${Link} href=${`/accounts?account=${encodeURIComponent(agent.account)}`}>${plain(agent.account)}<//>
    ${agent.switching_from ? html`<span class="quiet"> on its way from ${plain(agent.switching_from)}</span>` : null}
    ${!agent.switching_from && agent.switched_from ? html`<span class="quiet"> switched from ${plain(agent.switched_from)}</span>` : null}
    ${agent.limited_until ? html`<span> limited, <${Until} at=${agent.limited_until} /></span>` : null}`;
}

function Fault({ fault }) {
  return html`<p class="trouble">Its last turn failed: ${plain(fault.kind)}${fault.window ? ` (${plain(fault.window)})` : ""}
    ${fault.kind === "usage-limit" ? (fault.resets_at ? html`, until <${When} at=${fault.resets_at} />` : ", reset time unknown") : null}
    ${fault.model_only ? ", of one model only" : ""}${fault.retrying ? ", it tries again by itself" : ""}${fault.text ? `: ${plain(fault.text)}` : ""}</p>`;
}

// A button that copies a text. Without a secure page there is no clipboard: it says so instead of failing silently.
function Copy({ text, what }) {
  const [came, setCame] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCame("copied");
    } catch {
      setCame("not allowed here: select it");
    }
    setTimeout(() => setCame(""), 2500);
  };
  return html`<button type="button" class="button quiet small copy" onClick=${copy}>Copy<span class="sr-only"> the ${what}</span></button>
    <span class="quiet" role="status">${came}</span>`;
}
