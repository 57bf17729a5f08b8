// One watcher of Circus: its processes and their children, signals, its options (shown, and set where Circus takes
// them), and charts. The options of an agent are those of its section, and are not set here.

import { html, useEffect, useState } from "../html.js";
import { useResource, under } from "../api.js";
import { useAgent, useHosts, useWatchers } from "../live.js";
import { ConfirmDialog, VerbButton, openDialog, useCanAct, useVerb } from "../actions.js";
import { Chart } from "../charts.js";
import { Link, path } from "../router.js";
import { now, plain, span } from "../format.js";
import { Phase } from "./agent_words.js";
import { AgentsToo, Status, WatcherVerbs } from "./watcher_verbs.js";
import { Loaded, useOperator } from "./per_host.js";

const SIGNALS = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH", "KILL"];
// What Circus 0.19 takes in `set` (circus/commands/util.py), and what makes it replace the processes
// (Watcher.set_opt). `env` and `hooks` are left out: environments carry secrets, and hooks are a file's business.
const SETTABLE = {
  numprocesses: "whole", warmup_delay: "number", working_dir: "text", uid: "text", gid: "text", send_hup: "switch",
  stop_signal: "whole", stop_children: "switch", shell: "switch", cmd: "text", args: "text", graceful_timeout: "number",
  max_age: "whole", max_age_variance: "whole",
};
const REPLACES = ["working_dir", "uid", "gid", "shell", "cmd", "args", "max_age", "max_age_variance"];
const HIDDEN = ["__name__"];

export function Watcher({ host, name }) {
  const found = useHosts().find((one) => one.name === host);
  const all = useWatchers(host) ?? [];
  const one = all.find((each) => each.name === name) ?? null;
  const known = found !== undefined && (one !== null || all.length > 0);
  // Its processes are other ones after each change that the live messages tell of.
  const resource = useResource(known && one ? under("hosts", host, "watchers", name)
    : null, { every: 10, on: ["watchers"] });
  const shown = plain(name);
  return html`<div class=${`page watcher-page${found && !found.reachable ? " unreachable" : ""}`}>
    <header class="page-head">
      <p class="crumbs"><${Link} href="/circus">Circus<//> / ${plain(host)}</p>
      <h1>${shown} ${one && html`<${Status} status=${one.status} />`}${one?.agent ? html` <span
        class="badge tone-calm">agent</span>` : ""}</h1>
    </header>
    ${found === undefined && html`<p class="trouble">No host ${plain(host)} is known here.</p>`}
    ${known && one === null && html`<p class="trouble">circusd on ${plain(host)} has no watcher ${shown}.</p>`}
    ${one && html`
      ${one.agent && html`<${IsAgent} host=${host} name=${name} />`}
      <${WatcherVerbs} host=${host} one=${one} long=${true} />
      ${found?.local === false ? html`<${Gathered} processes=${resource.data?.processes ?? null} />`
        : html`<${Measured} host=${host} name=${name} />`}
      <${Loaded} resource=${resource} what="the watcher">${(data) => html`
        <${Processes} host=${host} one=${one} processes=${data.processes ?? {}} reload=${resource.reload} />
        <${Options} host=${host} one=${one} options=${data.options ?? {}} reload=${resource.reload} />`}<//>`}
  </div>`;
}

function IsAgent({ host, name }) {
  const view = useAgent(host, name);
  return html`<div class="card note">
    <p>This watcher is an agent${view ? html`: it is <${Phase} agent=${view} />` : ""}. Its terminal, its history and all its verbs are on${" "}
      <${Link} href=${path("agents", host, name)}>its own page<//>. What Circus sees here is its keeper, a small process
      that waits; the agent itself runs in tmux.</p>
    <${AgentsToo} />
  </div>`;
}

// --- charts ----------------------------------------------------------------------------------------------

// What the console itself has measured, also before this page was opened.
function Measured({ host, name }) {
  const resource = useResource(under("hosts", host, "watchers", name, "usage"), { every: 10 });
  return html`<section aria-label="CPU and memory">
    <${Loaded} resource=${resource} what="the charts">${(data) => html`<${Charts} ...${data} />`}<//>
  </section>`;
}

const POINTS = 360; // an hour
const POWER = { "": 0, K: 1, M: 2, G: 3, T: 4 };

// Bytes as Circus 0.19 writes them ("1.45M"; circus/util.py, bytes2human); null where it knows none.
function bytesOf(text) {
  const [, figure, unit] = /^([\d.]+)([KMGT]?)$/.exec(text) ?? [];
  return figure === undefined ? null : Number(figure) * 1024 ** POWER[unit];
}

// The processes of another machine are seen by its circusd only: its figures, for as long as this page is open.
function Gathered({ processes }) {
  const [known, setKnown] = useState({ at: [], cpu: [], rss: [] });
  useEffect(() => {
    if (processes === null) return;
    const all = [];
    const add = (info) => {
      if (info === null || typeof info !== "object") return;
      all.push(info);
      (info.children ?? []).forEach(add);
    };
    Object.values(processes).forEach(add);
    const sum = (figures) => figures.reduce((total, each) => total + (each ?? 0), 0);
    const cpu = sum(all.map((info) => (typeof info.cpu === "number" ? info.cpu : 0)));
    const rss = sum(all.map((info) => bytesOf(info.mem_info1)));
    const grown = (values, value) => [...values.slice(1 - POINTS), value];
    setKnown((before) => ({ at: grown(before.at, now()), cpu: grown(before.cpu, cpu), rss: grown(before.rss, rss) }));
  }, [processes]);
  return html`<section aria-label="CPU and memory">
    <${Charts} ...${known} />
    <p class="quiet">These are the figures of its own circusd, since this page was opened.</p>
  </section>`;
}

function Charts({ at, cpu, rss }) {
  return !at?.length ? html`<p
      class="quiet">Nothing has been measured yet: a first figure comes within some seconds.</p>` : html`<div
      class="charts">
      <figure><figcaption>CPU of its processes</figcaption><${Chart} label="over time" at=${at}
        series=${[{ label: "CPU", values: cpu, unit: "%" }]} height=${160} /></figure>
      <figure><figcaption>Memory of its processes</figcaption><${Chart} label="over time" at=${at}
        series=${[{ label: "Memory", values: rss, unit: "bytes" }]} height=${160} /></figure>
    </div>`;
}

// --- processes -------------------------------------------------------------------------------------------

function Processes({ host, one, processes, reload }) {
  const rows = [];
  const add = (info, top, depth) => {
    rows.push({ info, top, depth });
    for (const child of info.children ?? []) add(child, top, depth + 1);
  };
  // Of a process that has just ended Circus says so in words instead of figures.
  for (const [pid, info] of Object.entries(processes)) {
    const told = info !== null && typeof info === "object";
    add(told ? info : { pid: Number(pid), cmdline: String(info) }, Number(pid), 0);
  }
  return html`<section aria-labelledby="processes">
    <h2 id="processes">Processes</h2>
    ${rows.length === 0 ? html`<p class="nothing">None runs.</p>` : html`<div class="table-room"><table
      class="cards processes">
      <thead><tr><th>Pid</th><th>Command</th><th>User</th><th>CPU</th><th>Memory</th><th>Virtual</th><th>CPU time</th>
        <th>Age</th><th>Nice</th><th><span class="sr-only">Actions</span></th></tr></thead>
      <tbody>${rows.map(({ info, top, depth }) => html`<tr key=${info.pid} data-testid=${`process-${info.pid}`}>
        <td data-label="Pid" class=${`number depth-${Math.min(depth, 4)}`}>${depth > 0 && html`<span
          aria-hidden="true">└ </span><span class="sr-only">child </span>`}${info.pid}</td>
        <td data-label="Command"><code>${plain(info.cmdline)}</code></td>
        <td data-label="User">${plain(info.username) || "–"}</td>
        <td data-label="CPU" class="number">${figure(info.cpu, " %")}</td>
        <td data-label="Memory" class="number">${plain(info.mem_info1) || "–"}${typeof info.mem === "number"
          ? html` <small>${info.mem.toFixed(1)} %</small>` : ""}</td>
        <td data-label="Virtual" class="number">${plain(info.mem_info2) || "–"}</td>
        <td data-label="CPU time" class="number">${plain(info.ctime) || "–"}</td>
        <td data-label="Age" class="number">${typeof info.age === "number" ? span(info.age) : "–"}</td>
        <td data-label="Nice" class="number">${plain(info.nice)}</td>
        <td class="actions"><${Signals} host=${host} one=${one} pid=${info.pid} top=${top} depth=${depth}
          reload=${reload} /></td>
      </tr>`)}</tbody>
    </table></div>`}
  </section>`;
}

const figure = (found, unit) => (typeof found === "number" ? `${found}${unit}` : plain(found) || "–");

function Signals({ host, one, pid, top, depth, reload }) {
  const operator = useOperator();
  const can = useCanAct(host);
  if (!operator) return null;
  const name = plain(one.name);
  const keeper = one.agent ? " It reaches the keeper only: the agent lives on." : "";
  const ask = () => openDialog((close) => html`<${SignalForm} host=${host} one=${one} pid=${pid} top=${top}
    depth=${depth} keeper=${keeper} close=${close} done=${reload} />`);
  return html`<div class="verbs">
    <button type="button" class="button" data-testid="verb-signal" disabled=${can.disabled} title=${can.why || null}
      onClick=${ask}>Signal…</button>
    ${depth === 0 && html`<${VerbButton} host=${host} verb="kill" properties=${{ name: one.name, pid }} label="End"
      what=${`end process ${pid} of ${name}`} danger
      confirm=${`Process ${pid} of ${name} gets the stop signal, and SIGKILL after its graceful_timeout. Circus starts another one.${keeper}`}
        done=${reload} />`}
  </div>`;
}

function SignalForm({ host, one, pid, top, depth, keeper, close, done }) {
  const run = useVerb();
  const [signum, setSignum] = useState("HUP");
  const [reach, setReach] = useState("it");
  const send = async () => {
    const properties = { name: one.name, pid: top, signum };
    if (depth > 0) properties.childpid = pid;
    else if (reach !== "it") properties[reach] = true;
    await run(host, "signal", properties, { what: `SIG${signum} to ${pid} of ${plain(one.name)}`, inPlace: true });
    close();
    done();
  };
  return html`<${ConfirmDialog} title=${`Send a signal to process ${pid}`} label="Send"
    danger=${["KILL", "STOP"].includes(signum)} onConfirm=${send} onCancel=${close}>
    ${keeper && html`<p>${keeper.trim()}</p>`}
    <label class="stacked">Signal <select value=${signum} data-testid="signum" data-first
      onChange=${(event) => setSignum(event.target.value)}>
      ${SIGNALS.map((each) => html`<option key=${each} value=${each}>SIG${each}</option>`)}</select></label>
    ${depth === 0 && html`<label class="stacked">To <select value=${reach}
      onChange=${(event) => setReach(event.target.value)}>
      <option value="it">this process</option><option value="children">its children, and not itself</option><option
        value="recursive">itself and all below it</option></select></label>`}
  <//>`;
}

// --- options ---------------------------------------------------------------------------------------------

function Options({ host, one, options, reload }) {
  const operator = useOperator();
  const names = Object.keys(options).filter((name) => !HIDDEN.includes(name)).sort();
  return html`<section aria-labelledby="options">
    <h2 id="options">Options</h2>
    <p class="quiet">
      ${one.agent ? "They come from its section of circus.ini: change that, then reload it; failover.* take effect without touching the agent."
      : "What is set here holds until circusd is started anew, or its section is reloaded."}</p>
    <div class="table-room"><table class="cards options">
      <thead><tr><th>Option</th><th>Value</th><th><span class="sr-only">Actions</span></th></tr></thead>
      <tbody>${names.map((name) => html`<tr key=${name} data-testid=${`option-${name}`}>
        <td data-label="Option"><code>${plain(name)}</code></td>
        <td data-label="Value"><${Value} name=${name} value=${options[name]} /></td>
        <td class="actions">${operator && !one.agent && SETTABLE[name] && html`<${Change} host=${host} one=${one}
          name=${name} value=${options[name]} done=${reload} />`}</td>
      </tr>`)}</tbody>
    </table></div>
  </section>`;
}

function Value({ name, value }) {
  const [shown, setShown] = useState(false);
  if (value === null || value === undefined) return html`<span class="none">–</span>`;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "object") return html`<code class="value">${plain(value) || "“”"}</code>`;
  const entries = Object.entries(value).filter(([key]) => key !== "__name__");
  if (entries.length === 0) return html`<span class="none">none</span>`;
  // The values of an environment may be keys and passwords: somebody may look over the reader's shoulder.
  const hide = name === "env" && !shown;
  return html`<ul class="entries">${entries.map(([key, each]) => html`<li key=${key}><code>
    ${plain(key)}${hide ? "" : ` = ${plain(typeof each === "object" ? JSON.stringify(each) : each)}`}</code>
    </li>`)}</ul>
    ${name === "env" && html`<button type="button" class="button quiet" aria-pressed=${shown ? "true" : "false"}
      onClick=${() => setShown(!shown)}>${shown ? "Hide the values" : "Show the values"}</button>`}`;
}

function Change({ host, one, name, value, done }) {
  const can = useCanAct(host);
  const ask = () => openDialog((close) => html`<${SetForm} host=${host} one=${one} name=${name} value=${value}
    close=${close} done=${done} />`);
  return html`<button type="button" class="button" disabled=${can.disabled} title=${can.why || null}
    data-testid="verb-set" onClick=${ask}>Change…</button>`;
}

function SetForm({ host, one, name, value, close, done }) {
  const run = useVerb();
  const kind = SETTABLE[name];
  const [text, setText] = useState(value === null || value === undefined ? "" : String(value));
  const wanted = kind === "switch" ? text === "true" : kind === "text" ? text : Number(text);
  const noNumber = text.trim() === "" || !(Number(text) >= 0 && Number.isFinite(Number(text)));
  const bad = (kind === "whole" && !/^\d+$/.test(text.trim())) || (kind === "number" && noNumber);
  const set = async () => {
    const properties = { name: one.name, options: { [name]: wanted } };
    await run(host, "set", properties, { what: `set ${name} of ${plain(one.name)}`, inPlace: true });
    close();
    done();
  };
  const fewer = name === "numprocesses" && Number(text) < (one.pids?.length ?? 0);
  return html`<${ConfirmDialog} title=${`${name} of ${plain(one.name)}`} label="Set" disabled=${bad}
    danger=${REPLACES.includes(name) || fewer} onConfirm=${set} onCancel=${close}>
    <label class="stacked">${name}
      ${kind === "switch" ? html`<select value=${text} data-first data-testid="option-value"
        onChange=${(event) => setText(event.target.value)}><option value="true">yes</option><option
        value="false">no</option></select>`
        : html`<input type="text" inputmode=${kind === "text" ? "text" : "decimal"} value=${text}
          autocomplete="off" data-first data-testid="option-value"
          onInput=${(event) => setText(event.target.value)} />`}
    </label>
    ${REPLACES.includes(name) && html`
      <p>Its processes are replaced: Circus reloads the watcher when this changes.</p>`}
    ${fewer && html`<p>Processes beyond that number are ended.</p>`}
  <//>`;
}
