// What would happen to an agent next: of each who may act on it, what it would do now, why, and by what evidence.
// All of it is circusd's answer to `explain`; nothing is worked out here.

import { html } from "../html.js";
import { Ago, Until, When, percent, plain, span, told } from "../format.js";

/** The cards of all that may act.
 *
 * @param {object} props resource: of `explain`; agent: its view
 */
export function Outlook({ resource, agent }) {
  const { data, error } = resource;
  return html`<section class="card outlook" aria-labelledby="outlook-title" data-testid="outlook">
    <h2 id="outlook-title">What would happen next</h2>
    ${data === null ? html`<p class="quiet">${error ? plain(error.message) : "Asking circusd …"}</p>` : html`
      ${error ? html`<p class="trouble">This is old: ${plain(error.message)}</p>` : null}
      <dl class="outlook-list">
        <${Asked} name="A start" action=${data.start_would.action} reason=${data.start_would.reason} begins=${data.start_would.launch} />
        ${data.wake.cause === "already-live" ? null : html`<${Asked} name="A wake" action=${waking(data.wake)} reason=${data.wake.reason}
          begins=${["fresh", "resume"].includes(data.wake.mode) ? data.wake : null} />`}
        <${Idle} found=${data.idle} up=${agent.phase === "up"} />
        <${Restart} found=${data.restart} phase=${agent.phase} />
        <${Loop} found=${data.crash_loop} />
        ${data.heartbeat ? html`<${Heartbeat} found=${data.heartbeat} />` : null}
        ${data.account ? html`<${Failover} found=${data.account} />` : null}
      </dl>
      <p class="quiet">What is there now: ${plain(data.evidence.liveness)}${data.evidence.reason ? `, ${told(data.evidence.reason)}` : ""}</p>`}
  </section>`;
}

function waking({ mode, cause }) {
  if (mode === "refused") return `refused (${plain(cause)})`;
  if (mode === null) return cause ? "adopt" : "launch nothing";
  return mode;
}

// One of them: who, what it would do, why; `plugin` says whether it runs at all.
function Item({ name, action, reason, plugin, acts, children }) {
  return html`<div class=${`outlook-item${acts ? " acts" : ""}`}>
    <dt>${name}${plugin ? html`<${Plugin} plugin=${plugin} />` : null}</dt>
    <dd><b>${plain(action)}</b>${reason ? html`<span>: ${told(reason)}</span>` : null}
      ${children}</dd>
  </div>`;
}

function Plugin({ plugin }) {
  if (!plugin.runs) {
    return html` <span class="quiet">does not run${plugin.last_tick ? html`, last looked <${Ago} at=${plugin.last_tick} />` : ""}</span>`;
  }
  return html` <span class="quiet">${plugin.dry_run ? "dry run, " : ""}looked <${Ago} at=${plugin.last_tick} /></span>`;
}

function Asked({ name, action, reason, begins }) {
  return html`<${Item} name=${name} action=${action} reason=${reason}>
    ${begins ? html`<span class="evidence"> ${begins.conversation ? html`resumes <code>${plain(begins.conversation)}</code>` : "begins fresh"} (${plain(begins.cause)}${begins.parked_by ? `, parked by ${plain(begins.parked_by)}` : ""}${begins.topic ? `, topic ${plain(begins.topic)}` : ""})</span>` : null}
  <//>`;
}

const SEEN = [
  ["last_activity", "terminal moved"], ["client_activity", "client was active"], ["last_task", "last task"],
  ["ready_at", "ready"], ["last_attached", "last watched"], ["clock_jumped", "clock jumped"],
];

function Idle({ found, up }) {
  if (!up) return null;
  const { evidence } = found;
  const share = found.idle !== null && found.idle_secs > 0 ? Math.min(1, found.idle / found.idle_secs) : null;
  return html`<${Item} name="Idle reaper" plugin=${found.reaper} action=${found.action} reason=${found.reason} acts=${found.action === "park"}>
    ${share !== null ? html`<progress max="1" value=${share} aria-label=${`idle for ${span(found.idle)} of ${span(found.idle_secs)}`}></progress>` : null}
    ${evidence ? html`<ul class="evidence">
      ${SEEN.filter(([key]) => evidence[key] !== null).map(([key, label]) => html`<li key=${key}>${label} <${Ago} at=${evidence[key]} /></li>`)}
      ${evidence.tasks_waiting ? html`<li>tasks waiting: ${evidence.tasks_waiting}</li>` : null}
      ${evidence.attached !== null ? html`<li>terminals attached: ${evidence.attached}</li>` : null}
      ${evidence.tool_children !== null ? html`<li>tools at work: ${Array.isArray(evidence.tool_children) ? evidence.tool_children.length : plain(evidence.tool_children)}</li>` : null}
      ${evidence.state ? html`<li>state: ${plain(evidence.state)}</li>` : null}</ul>` : null}
  <//>`;
}

function Restart({ found, phase }) {
  const { guard } = found;
  const acts = guard.runs && found.action !== "leave";
  return html`<${Item} name="Crash-loop guard" plugin=${guard} action=${found.action === "leave" ? `leaves it ${phase}` : found.action}
    reason=${found.reason} acts=${acts}>
    ${found.at ? html`<span class="evidence"> at <${When} at=${found.at} /> (<${Until} at=${found.at} />)</span>` : null}
    <ul class="evidence">
      ${found.policy ? html`<li>comes back: ${plain(found.policy)}</li>` : null}
      ${guard.alert ? html`<li>${plain(guard.alert)}</li>` : null}
      ${guard.incident ? html`<li>many died together: they come back one after another</li>` : null}
    </ul>
  <//>`;
}

function Loop({ found }) {
  const deaths = `${found.deaths} of ${found.crash_max} deaths in ${span(found.window_secs)}`;
  const words = { closed: "nothing is held back", open: "held", "half-open": "one launch is on trial", "given-up": "given up: reset or start it" };
  return html`<${Item} name="Crash loop" action=${words[found.state] ?? found.state} reason=${deaths} acts=${found.state !== "closed"}>
    ${found.until ? html`<span class="evidence"> until <${When} at=${found.until} /> (<${Until} at=${found.until} />)</span>` : null}
    ${found.failures ? html`<span class="evidence"> failed trials: ${found.failures} of ${found.trials}</span>` : null}
  <//>`;
}

function Heartbeat({ found }) {
  return html`<${Item} name="Heartbeat" plugin=${found.heartbeat} action=${found.action} reason=${found.reason} acts=${found.action !== "leave"}>
    <ul class="evidence">
      <li>${found.contract ? "it has a heartbeat contract" : "no heartbeat contract"}</li>
      ${found.age !== null ? html`<li>last sign of it: ${span(found.age)} ago</li>` : null}
      ${found.nudge ? html`<li>it would be nudged</li>` : null}
    </ul>
  <//>`;
}

function Failover({ found }) {
  const others = found.considered.filter((one) => one.account !== found.name);
  return html`<${Item} name="Account failover" plugin=${found.failover} action=${found.action} reason=${found.reason} acts=${found.action !== "leave"}>
    ${found.to ? html`<span class="evidence"> to ${plain(found.to)}</span>` : null}
    <ul class="evidence">
      <li>${plain(found.name)} is ${plain(found.state)}${found.limit ? `: ${plain(found.limit)}` : ""}${found.until ? html` until <${When} at=${found.until} /> (<${Until} at=${found.until} />)` : null}
        ${found.headroom !== null ? `, ${percent(found.headroom * 100)} left` : ""}, agents on it: ${found.agents}${found.max_agents !== null ? ` of ${found.max_agents}` : ""}</li>
      ${found.text ? html`<li>${plain(found.text)}</li>` : null}
      <li>at a limit: ${plain(found.on_limit)}</li>
      ${found.held_until ? html`<li>held until <${When} at=${found.held_until} /></li>` : null}
      ${found.models.map((one) => html`<li key=${one.name}>${plain(one.name)} limited${one.until ? html`, <${Until} at=${one.until} />` : ""}</li>`)}
      ${others.map((one) => html`<li key=${one.account}>${plain(one.account)}: ${told(one.why)}</li>`)}
      ${found.earliest && others.length ? html`<li>the first is free again <${Until} at=${found.earliest} /></li>` : null}
    </ul>
  <//>`;
}
