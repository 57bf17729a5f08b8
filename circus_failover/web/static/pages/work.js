// Work: the assignments in the order of their turn, who has each, and what may be done with it; the tasks that wait for
// agents; and the pools with their load. What is filtered is in the address (?state= &pool= &agent= &id= &all=1).

import { html, memo, useState } from "../html.js";
import { useResource, under } from "../api.js";
import { ConfirmDialog, VerbButton, openDialog, useCanAct, useVerb } from "../actions.js";
import { Link, path, setQuery } from "../router.js";
import { Ago, plain, told } from "../format.js";
import { Parts } from "./bars.js";
import { Pools } from "./pools.js";
import { HostPart, Loaded, counted, useAgentsOf, useFresh, useOperator, useShownHosts } from "./per_host.js";

const LIMIT = 500;
export const TONES = {
  queued: "warn", delivered: "calm", working: "good", done: "plain", failed: "bad", orphaned: "bad", cancelled: "plain",
};
const SYMBOLS = { queued: "…", delivered: "→", working: "●", done: "✓", failed: "✕", orphaned: "!", cancelled: "–" };
const OVER = ["done", "failed", "cancelled"];

export default function Work({ query }) {
  const { hosts, several, unknown } = useShownHosts(query);
  return html`<div class="page work-page">
    <header class="page-head">
      <h1>Work</h1>
      <p class="quiet">Assignments in the order of their turn, and what waits to be typed.</p>
    </header>
    ${unknown && html`<p class="trouble">No host ${plain(unknown)} is known here.</p>`}
    ${hosts.map((host) => html`<${HostWork} key=${host.name} host=${host} several=${several} query=${query} />`)}
  </div>`;
}

function HostWork({ host, several, query }) {
  const agents = useAgentsOf(host.name);
  const asked = new URLSearchParams({ limit: LIMIT });
  for (const key of ["pool", "agent", "id"]) if (query.get(key)) asked.set(key, query.get(key));
  if (query.get("all")) asked.set("all", "true");
  const work = useResource(`${under("hosts", host.name, "work")}?${asked}`, { every: 15 });
  useFresh(host.name, work.reload, { pause: 1500 });
  const operator = useOperator();
  const can = useCanAct(host.name);
  const assign = () => openDialog((close) => html`<${AssignForm} host=${host.name} close=${close}
    done=${work.reload} />`);
  return html`<${HostPart} host=${host} several=${several}>
    <div class="filter">
      ${operator && html`<button type="button" class="button primary" data-testid="assign"
        disabled=${can.disabled || agents.length === 0} title=${can.why || null}
        onClick=${assign}>Assign work…</button>`}
      <label class="field">Pool <select value=${query.get("pool") ?? ""}
        onChange=${(event) => setQuery({ pool: event.target.value || null })}>
        <option value="">any</option>
        ${[...new Set(agents.map((one) => one.pool).filter(Boolean))].sort().map((name) => html`<option key=${name}
          value=${name}>${plain(name)}</option>`)}
      </select></label>
      <label class="field">Agent <select value=${query.get("agent") ?? ""}
        onChange=${(event) => setQuery({ agent: event.target.value || null })}>
        <option value="">any</option>
        ${agents.map((one) => html`<option key=${one.identity} value=${one.identity}>${plain(one.identity)}
          </option>`)}
      </select></label>
      <label class="choice"><input type="checkbox" checked=${Boolean(query.get("all"))}
        onChange=${(event) => setQuery({ all: event.target.checked ? 1 : null })} />
        also what was over in the last 30 days</label>
      ${query.get("id") && html`<button type="button" class="button" data-testid="only-id"
        onClick=${() => setQuery({ id: null })}>Only ${plain(query.get("id"))} <span aria-hidden="true">✕</span><span
        class="sr-only">: show every assignment</span></button>`}
    </div>
    <${Loaded} resource=${work} what="assignments" host=${host}>${(data) => html`
      <${Queue} host=${host.name} data=${data} state=${query.get("state")} reload=${work.reload} />
      <${Pools} host=${host.name} agents=${agents} assignments=${data.assignments} />`}<//>
    <${Tasks} host=${host} />
  <//>`;
}

// --- the queue -------------------------------------------------------------------------------------------

// Agents change many times a second, and thousands may wait: it is drawn anew when assignments changed.
const Queue = memo(function Queue({ host, data, state, reload }) {
  const shown = state ? data.assignments.filter((one) => one.state === state) : data.assignments;
  const parts = Object.entries(data.counts).map(([key, count]) => ({ key, count, tone: TONES[key] ?? "plain" }));
  const [advice, setAdvice] = useState(null);
  const changed = (answer) => {
    const told = answer.assignments?.map((one) => one.advice).filter(Boolean) ?? [];
    setAdvice(told.length ? told : null);
    reload();
  };
  return html`<section aria-labelledby=${`queue-${host}`}>
    <h3 id=${`queue-${host}`}>Assignments</h3>
    <${Parts} parts=${parts} label="Assignments" chosen=${state} onChoose=${(key) => setQuery({ state: key })} />
    ${advice && html`<div class="advice" role="status">${advice.map((text) => html`<p key=${text}>
      ${told(text)}</p>`)}
      <button type="button" class="button quiet" onClick=${() => setAdvice(null)}>Close</button></div>`}
    ${shown.length === 0 ? html`<p class="nothing">${state ? `None is ${plain(state)}.`
      : "No work is waiting or under way."}</p>` : html`<div class="table-room"><table class="cards work">
      <thead><tr><th>Turn</th><th>Assignment</th><th>State</th><th>For</th><th>Owner</th><th>Age</th><th>Retries</th>
        <th>Last said</th><th><span class="sr-only">Actions</span></th></tr></thead>
      <tbody>${shown.map((one) => html`<${Assignment} key=${one.id} host=${host} one=${one}
        changed=${changed} />`)}</tbody>
    </table></div>`}
    ${data.more > 0 && html`<p class="quiet">${data.more} more are not shown: choose a pool or an agent.</p>`}
  </section>`;
});

function Assignment({ host, one, changed }) {
  const over = OVER.includes(one.state);
  const id = plain(one.id);
  return html`<tr class=${over ? "over" : ""} data-testid=${`assignment-${one.id}`} data-row>
    <td data-label="Turn" class="number">${one.position ?? (one.owner && !over ? html`<span
      title="its owner has it">now</span>` : "–")}</td>
    <td data-label="Assignment"><b>${id}</b>${one.topic ? html` <small>${plain(one.topic)}</small>` : ""}
      <span class="begins">${plain(one.begins)}${one.characters > one.begins.length ? "…" : ""}</span></td>
    <td data-label="State"><span class=${`badge tone-${TONES[one.state] ?? "plain"}`}><span aria-hidden="true">
      ${SYMBOLS[one.state] ?? "?"} </span>${plain(one.state)}</span></td>
    <td data-label="For">${one.wanted ? html`<${Link} href=${path("agents", host, one.wanted)}>${plain(one.wanted)}
      <//>` : one.pool ? html`pool ${plain(one.pool)}` : "–"}</td>
    <td data-label="Owner">${one.owner ? html`<${Link} href=${path("agents", host, one.owner)}>${plain(one.owner)}
      <//>` : "–"}</td>
    <td data-label="Age"><${Ago} at=${one.queued_at} /><small> by ${plain(one.who)}</small></td>
    <td data-label="Retries" class="number">${one.retries}</td>
    <td data-label="Last said">${told(one.note || one.waits_for || "") || "–"}</td>
    <td class="actions">${!over && html`<${Actions} host=${host} one=${one} id=${id}
      changed=${changed} />`}</td>
  </tr>`;
}

function Actions({ host, one, id, changed }) {
  const operator = useOperator();
  const can = useCanAct(host);
  if (!operator) return null;
  const give = () => openDialog((close) => html`<${ReassignForm} host=${host} one=${one}
    close=${close} done=${changed} />`);
  const back = one.pool && !one.wanted ? `It goes back to pool ${plain(one.pool)}, for another agent`
    : "It was given to an agent by name, so it then waits for a person: reassign or cancel it";
  return html`
    ${(one.owner || one.state === "orphaned") && html`<${VerbButton} host=${host} verb="release"
      properties=${{ ids: [one.id] }} label="Release" what=${`release ${id}`}
      confirm=${`${one.owner ? `It is taken from ${plain(one.owner)}. `
        : ""}${back}. No process is ended: the answer says where one may go on with it.`} done=${changed} />`}
    <button type="button" class="button" data-testid="verb-reassign" disabled=${can.disabled} title=${can.why || null}
      onClick=${give}>Reassign…</button>
    <${VerbButton} host=${host} verb="cancel" properties=${{ ids: [one.id] }} label="Cancel it"
      what=${`cancel ${id}`} danger
      confirm=${`Nobody is told ${id} any more; it cannot be taken up again. No process is ended: the answer says `
        + "where one may go on with it."}
        done=${changed} />`;
}

// --- forms -----------------------------------------------------------------------------------------------

// Whom an assignment is for: value is "agent:NAME" or "pool:NAME".
function Whom({ host, value, onChange }) {
  const agents = useAgentsOf(host);
  const pools = [...new Set(agents.map((one) => one.pool).filter(Boolean))].sort();
  return html`<label class="stacked">For
    <select value=${value} required data-testid="whom" data-first onChange=${(event) => onChange(event.target.value)}>
      <option value="">choose an agent or a pool</option>
      ${pools.length > 0 && html`<optgroup label="Pools: whoever is free">${pools.map((name) => html`<option
        key=${name} value=${`pool:${name}`}>pool ${plain(name)}</option>`)}</optgroup>`}
      <optgroup label="Agents">${agents.map((one) => html`<option key=${one.identity}
        value=${`agent:${one.identity}`}>
        ${plain(one.identity)} (${plain(one.phase)}${one.assignment ? ", has work" : ""})</option>`)}</optgroup>
    </select>
  </label>`;
}

function whom(value) {
  return value.startsWith("pool:") ? { pool: value.slice(5) } : { name: value.slice(6) };
}

function AssignForm({ host, close, done }) {
  const run = useVerb();
  const [to, setTo] = useState("");
  const [task, setTask] = useState("");
  const [topic, setTopic] = useState("");
  const [id, setId] = useState("");
  const assign = async () => {
    const properties = { ...whom(to), task };
    if (topic.trim()) properties.topic = topic.trim();
    if (id.trim()) properties.id = id.trim();
    // What was typed stays there when circusd refuses it.
    await run(host, "assign", properties, { what: "assign", inPlace: true });
    close();
    done();
  };
  return html`<${ConfirmDialog} title="Assign work" label="Assign" disabled=${!to || !task.trim()} onConfirm=${assign}
    onCancel=${close}>
    <${Whom} host=${host} value=${to} onChange=${setTo} />
    <label class="stacked">What it is told
      <textarea rows="6" required value=${task} data-testid="task" onInput=${(event) => setTask(event.target.value)}>
        </textarea></label>
    <label class="stacked">Topic, if it has one
      <input type="text" value=${topic} autocomplete="off" data-testid="topic"
        onInput=${(event) => setTopic(event.target.value)} /></label>
    <label class="stacked">Id, else one is made
      <input type="text" value=${id} autocomplete="off" maxlength="100" pattern="[A-Za-z0-9._:\\-]{1,100}"
        data-testid="id"
        title="1 to 100 letters, digits, . _ : or -" onInput=${(event) => setId(event.target.value)} /></label>
    <p class="quiet">The same id with the same text again is not a second assignment.</p>
  <//>`;
}

function ReassignForm({ host, one, close, done }) {
  const run = useVerb();
  const [to, setTo] = useState("");
  const id = plain(one.id);
  const give = async () => {
    const answer = await run(host, "reassign", { ids: [one.id], ...whom(to) }, { what: `reassign ${id}`, inPlace: true });
    close();
    done(answer);
  };
  return html`<${ConfirmDialog} title=${`Give ${id} to somebody else`} label="Reassign" disabled=${!to}
    onConfirm=${give} onCancel=${close}>
    ${one.owner && html`<p>
      ${plain(one.owner)} has it now, and has it no more then. No process is ended: the answer says where one may go on with it.</p>`}
    <${Whom} host=${host} value=${to} onChange=${setTo} />
  <//>`;
}

// --- tasks -----------------------------------------------------------------------------------------------

function Tasks({ host }) {
  const tasks = useResource(under("hosts", host.name, "tasks"), { every: 15 });
  useFresh(host.name, tasks.reload);
  return html`<section aria-labelledby=${`tasks-${host.name}`}>
    <h3 id=${`tasks-${host.name}`}>Tasks that wait to be typed</h3>
    <${Loaded} resource=${tasks} what="tasks" host=${host}>${(data) => html`<${PerAgent} host=${host.name}
      tasks=${data.tasks} reload=${tasks.reload} />`}<//>
  </section>`;
}

function PerAgent({ host, tasks, reload }) {
  const agents = new Map();
  for (const task of tasks) agents.set(task.agent, [...(agents.get(task.agent) ?? []), task]);
  if (tasks.length === 0) return html`<p class="nothing">No task waits.</p>`;
  return html`<ul class="task-agents">${[...agents].map(([name, waiting]) => html`<li key=${name} class="card">
    <header class="card-head">
      <h4><${Link} href=${path("agents", host, name)}>${plain(name)}<//> <small>${counted(waiting.length, "task")}
        </small></h4>
      ${waiting.length > 1 && html`<${VerbButton} host=${host} verb="tasks"
        properties=${{ names: [name], cancel: "all" }} label="Cancel all"
        what=${`cancel all tasks of ${plain(name)}`} danger
        confirm=${`${counted(waiting.length, "task")} of ${plain(name)} are taken out of its queue and never typed.`}
          done=${reload} />`}
    </header>
    <ul class="tasks">${waiting.map((task) => html`<li key=${task.id} data-testid=${`task-${task.id}`}>
      <span class="badge tone-plain">${plain(task.kind)}</span> <span class="task-state">${plain(task.state)}</span>
      <span class="begins">${plain(task.begins)}${task.characters > task.begins.length ? "…" : ""}</span>
      <small>#${task.id}${task.topic ? `, ${plain(task.topic)}` : ""}, since <${Ago}
        at=${task.queued_at} /> by ${plain(task.who)}${task.attempts ? `, ${counted(task.attempts, "try", "tries")}`
        : ""}${task.note ? `: ${told(task.note)}` : ""}</small>
      ${task.kind !== "assignment" && html`<${VerbButton} host=${host} verb="tasks"
        properties=${{ names: [name], cancel: String(task.id) }} label="Cancel it" what=${`cancel task ${task.id}`}
        confirm=${`Task ${task.id} of ${plain(name)} is taken out of its queue and never typed.`} done=${reload} />`}
    </li>`)}</ul>
  </li>`)}</ul>`;
}
