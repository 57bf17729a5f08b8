// The smaller parts of an agent's page: its work and tasks, what a launch said that failed, its settings.

import { html } from "../html.js";
import { Link } from "../router.js";
import { Ago, Since, now, plain, told } from "../format.js";
import { VerbButton } from "../actions.js";

const TAIL = 40; // lines of a launch's last output

// What it has to do and what waits for it.
export function Waiting({ host, agent, explained }) {
  const work = explained?.work;
  const tasks = explained?.tasks ?? [];
  if (!work || (!work.assignment && work.waiting_count === 0 && tasks.length === 0)) return null;
  return html`<section class="card waiting" aria-labelledby="waiting-title">
    <h2 id="waiting-title">Work and tasks</h2>
    ${work.assignment ? html`<${Has} work=${work} />` : null}
    ${work.waiting.length ? html`<h3>Assignments that wait</h3><ul>${work.waiting.map((one) => html`<li key=${one.id}>
      <${Link} href=${`/work?id=${encodeURIComponent(one.id)}`}>${plain(one.id)}<//> for ${plain(one.wanted ?? `pool ${one.pool}`)}, <${Ago} at=${one.queued_at} /> by ${plain(one.who)}:
      <q>${plain(one.begins)}</q> <span class="quiet">${told(one.note ?? one.waits_for)}</span></li>`)}</ul>
      ${work.waiting_count > work.waiting.length ? html`<p><${Link} href="/work">and ${work.waiting_count - work.waiting.length} more<//></p>` : null}` : null}
    ${tasks.length ? html`<h3>Tasks that wait</h3><ul class="tasks">${tasks.map((one) => html`<li key=${one.id}>
      <span>${plain(one.kind)} ${one.id}: ${plain(one.state)}, <${Ago} at=${one.queued_at} /> by ${plain(one.who)}${one.topic ? `, topic ${plain(one.topic)}` : ""}${one.attempts ? `, tries: ${one.attempts}` : ""}${one.note ? ` (${plain(one.note)})` : ""}: <q>${plain(one.begins)}</q></span>
      ${one.kind === "assignment" ? null : html`<${VerbButton} host=${host} verb="tasks" properties=${{ name: agent.identity, cancel: String(one.id) }}
        label="Cancel" what=${`cancel task ${one.id}`} confirm=${`Task ${one.id} is taken out of the queue of ${plain(agent.identity)} and never typed.`} />`}</li>`)}</ul>` : null}
  </section>`;
}

function Has({ work }) {
  const one = work.assignment;
  const since = one.working_at ?? one.delivered_at ?? one.dispatched_at;
  return html`<p>Assignment <${Link} href=${`/work?id=${encodeURIComponent(one.id)}`}>${plain(one.id)}<//>: ${plain(one.state)}
    ${since ? html` for <${Since} at=${since} />` : ""}, given <${Ago} at=${one.queued_at} /> by ${plain(one.who)}: <q>${plain(one.begins)}</q>
    <span class="quiet"> Launches that died with it: ${one.retries} of ${work.work_retries} allowed.${one.interrupted ? ` Interrupted: ${plain(one.interrupted)}.` : ""}${one.note ? ` ${plain(one.note)}` : ""}</span></p>`;
}

// The last output of the newest launch that is over and had something to say.
export function FailedLaunch({ explained }) {
  const launch = (explained?.launches ?? []).find((one) => one.ended_at !== null && one.last_output);
  if (!launch && !explained?.server_exit) return null;
  const exit = explained.server_exit;
  return html`<section class="card failed" aria-labelledby="failed-title">
    <h2 id="failed-title">How it ended</h2>
    ${exit ? html`<p>Its tmux server: <b>${plain(exit.cause)}</b>${exit.evidence ? ` (${told(exit.evidence)})` : ""}, ${exit.detected === "live" ? "seen as it ended" : "found gone later"}.
      ${exit.forensics ? html` <${Link} href=${`/deaths?since=${daysBack(exit.at)}d&open=${encodeURIComponent(exit.forensics.split("/").at(-1))}`}>Snapshot<//>` : null}</p>` : null}
    ${launch ? html`<p>Launch ${launch.generation} ended <${Ago} at=${launch.ended_at} />: <b>${plain(launch.end_cause)}</b>. What it said last:</p>
      <pre class="last-output" tabindex="0" role="region" aria-label=${`Last output of launch ${launch.generation}`} data-testid="last-output">${tail(launch.last_output)}</pre>` : null}
  </section>`;
}

// So many days back a death is still listed.
function daysBack(at) {
  return Math.max(1, Math.ceil((now() - at) / 86400));
}

function tail(text) {
  return text.split(/\r?\n/).map(plain).filter(Boolean).slice(-TAIL).join("\n");
}

export function Settings({ explained, name }) {
  if (!explained) return null;
  const { settings, intent } = explained;
  const rows = settings === null ? [] : [
    ["Command", settings.command.join(" ")], ["Works in", settings.working_dir], ["Settings", settings.config],
    ["Time to end", `${settings.stop_secs} s`], ["Starts with circusd", settings.autostart ? "yes" : "no"],
  ];
  rows.push(["Gate", explained.gate], ["Stays stopped", explained.stays_stopped ? "yes, until a start" : "no"], ["Log of its pane", explained.pane_log]);
  return html`<section class="card settings" aria-labelledby="settings-title">
    <h2 id="settings-title">Settings</h2>
    ${explained.problems ? html`<p class="trouble">${plain(explained.problems)}</p>` : null}
    <dl class="agent-facts">${rows.filter(([, value]) => value).map(([label, value]) => html`<div key=${label} class="wide"><dt>${label}</dt><dd><code>${plain(value)}</code></dd></div>`)}
      ${intent && intent.intent !== "clear" ? html`<div class="wide"><dt>Last intent</dt><dd>${plain(intent.intent)} by ${plain(intent.who)}, <${Ago} at=${intent.asked_at} />: ${plain(intent.outcome ?? "under way")}${intent.why ? html` <span class="quiet">(${plain(intent.why)})</span>` : null}</dd></div>` : null}
    </dl>
    ${explained.lines?.length ? html`<details><summary>As <code>failoverctl explain ${plain(name)}</code> says it</summary>
      <pre class="explained" tabindex="0">${explained.lines.join("\n")}</pre></details>` : null}
  </section>`;
}
