// The snapshot of a host at the moment a tmux server died (docs/canary.md, "Snapshots"), section by section, for
// reading in place; as JSON beneath, to fold out and to copy.
//
// The file may have been written by another version, and holds what programs printed: every section is looked at
// before it is believed, one that could not be taken is {"error": text}, and what is not known here is shown as JSON.

import { html, useRef, useState } from "../html.js";
import { useResource, under } from "../api.js";
import { Ago, When, bytes, plain } from "../format.js";
import { toast } from "../toast.js";
import { Bar } from "./bars.js";
import { Facts, Loaded, counted } from "./per_host.js";

const KNOWN = new Set([
  "taken_at", "trimmed", "server", "agents", "core_dump", "kernel_log", "cgroup", "memory_kb", "swap_kb", "pressure",
  "load", "processes",
]);

// The snapshot in a file of a host's forensics folder.
export function Snapshot({ host, file }) {
  const resource = useResource(under("hosts", host, "deaths", "forensics", file));
  return html`<section class="snapshot" data-testid="snapshot" aria-label=${`Snapshot ${file}`}>
    <${Loaded} resource=${resource} what="the snapshot">${(data) => html`<${Sections} data=${data}
      file=${file} />`}<//>
  </section>`;
}

const object = (found) => found !== null && typeof found === "object" && !Array.isArray(found);
const failure = (found) => (object(found) && Object.keys(found).join() === "error" ? String(found.error) : null);
const list = (found) => (Array.isArray(found) ? found : []);
const lines = (found) => list(found)
  .map((line) => (typeof line === "string" ? visible(line) : `(${line?.left_out ?? "some"} left out)`)).join("\n");

// A line as it was printed, with blanks kept; what would move or hide text is made visible.
function visible(line) {
  // eslint-disable-next-line no-control-regex
  return line.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");
}

function Sections({ data, file }) {
  const further = Object.keys(data).filter((key) => !KNOWN.has(key));
  return html`
    <header class="snapshot-head">
      <h3>Snapshot of the host</h3>
      <p class="quiet">taken <${When} at=${data.taken_at} />, <${Ago} at=${data.taken_at} />${data.trimmed
        ? html`; ${plain(data.trimmed)}` : ""}</p>
    </header>
    <${Part} title="Agents in it" found=${data.agents}>
      ${list(data.agents).map((agent, index) => html`<${AgentThen} key=${index} agent=${agent}
        alone=${data.agents.length === 1} />`)}
    <//>
    <div class="snapshot-grid">
      <${Memory} memory=${data.memory_kb} swap=${data.swap_kb} />
      <${Counters} cgroup=${data.cgroup} />
      <${Pressure} pressure=${data.pressure} load=${data.load} />
      <${Biggest} processes=${data.processes} />
    </div>
    <${Part} title="Kernel log lines about it" found=${data.kernel_log}>
      ${list(data.kernel_log).length ? html`<pre class="printed" tabindex="0">${lines(data.kernel_log)}</pre>` : html`
        <p class="quiet">None names its process.</p>`}
    <//>
    <${CoreDump} found=${data.core_dump} />
    ${further.map((key) => html`<${Part} key=${key} title=${plain(key.replaceAll("_", " "))} found=${data[key]}><pre
      class="printed" tabindex="0">${visible(JSON.stringify(data[key], null, 1))}</pre><//>`)}
    <${Raw} data=${data} file=${file} />`;
}

// One section with its heading; one that could not be taken says why.
function Part({ title, found, children }) {
  const error = failure(found);
  return html`<section class="snapshot-part">
    <h4>${title}</h4>
    ${error !== null ? html`<p class="trouble">It could not be taken: ${plain(error)}</p>`
      : found === undefined || found === null ? html`<p class="quiet">It is not in this snapshot.</p>` : children}
  </section>`;
}

// --- agents ----------------------------------------------------------------------------------------------

function AgentThen({ agent, alone }) {
  const error = failure(agent);
  if (error !== null) return html`<p class="trouble">An agent could not be looked at: ${plain(error)}</p>`;
  if (!object(agent)) return null;
  if (agent.left_out) return html`<p class="quiet">${counted(agent.left_out, "agent")} left out.</p>`;
  const own = object(agent.process) ? `pid ${agent.process.pid}, ${lives(agent.process.lives)}` : null;
  return html`<div class="agent-then">
    ${!alone && html`<h5>${plain(agent.identity)}</h5>`}
    <${Facts} rows=${[
      ["launch", `${agent.generation ?? "–"}${agent.launch ? ` (${plain(agent.launch)})` : ""}`],
      ["session and pane", [agent.session, agent.pane].filter(Boolean).map(plain).join(", ")],
      ["its own process", own],
    ]} />
    <${LastScreen} log=${agent.pane_log} />
    <${Processes} title="Processes of the launch, as last noted" found=${agent.tree} none="None was noted." />
    <${Processes} title="What else carried its name" found=${agent.also_living} none=${null} />
  </div>`;
}

const lives = (found) => (found === null || found === undefined ? "not known whether it lived" : found ? "lived on"
  : "gone");

function LastScreen({ log }) {
  const error = failure(log);
  if (error !== null) return html`<p class="quiet">Its last output could not be read: ${plain(error)}</p>`;
  if (!object(log)) return null;
  return html`<figure class="last-screen">
    <figcaption>Last output <small>
      ${plain(log.file)}, ${bytes(log.bytes)}${log.left_out_bytes ? `, ${bytes(log.left_out_bytes)} left out` : ""}
      </small></figcaption>
    ${list(log.lines).length ? html`<pre class="printed terminal-like" tabindex="0">${lines(log.lines)}</pre>` : html`
      <p class="quiet">It had printed nothing.</p>`}
  </figure>`;
}

function Processes({ title, found, none }) {
  const error = failure(found);
  if (error !== null) return html`<p class="quiet">${title}: ${plain(error)}</p>`;
  const rows = list(found);
  if (rows.length === 0) return none === null || found === null || found === undefined ? null : html`<p class="quiet">
    ${title}: ${none}</p>`;
  return html`<div class="table-room"><table class="small">
    <caption>${title}</caption>
    <thead><tr><th>Pid</th><th>Name</th><th>Then</th></tr></thead>
    <tbody>${rows.map((row, index) => row?.left_out
      ? html`<tr key=${index}><td colspan="3">${counted(row.left_out, "process", "processes")} left out</td></tr>`
      : html`<tr key=${index} class=${row.lives === false ? "gone" : ""}>
          <td class="number">${row.pid}</td><td><code>${plain(row.name)}</code></td>
          <td>${row.lives === undefined || row.lives ? html`<span
            aria-hidden="true">● </span>lived on` : row.lives === null ? "not known" : html`<span
            aria-hidden="true">✕ </span>gone`}</td>
        </tr>`)}</tbody>
  </table></div>`;
}

// --- memory, pressure, processes -------------------------------------------------------------------------

const kb = (found) => (typeof found === "number" ? bytes(found * 1024) : "–");

function Used({ name, total, left }) {
  if (typeof total !== "number" || typeof left !== "number") return null;
  if (total === 0) return html`<p>${name}: none</p>`;
  const share = (total - left) / total;
  const text = `${name}: ${kb(total - left)} of ${kb(total)} in use, ${kb(left)} left`;
  return html`<p class="bar-line"><span>${text}</span><${Bar} share=${share}
    tone=${share > 0.9 ? "bad" : share > 0.7 ? "warn" : "good"} label=${text} /></p>`;
}

function Memory({ memory, swap }) {
  const rest = object(memory) ? Object.entries(memory).filter(([, value]) => typeof value === "number") : [];
  return html`<${Part} title="Memory of the host" found=${memory}>
    <${Used} name="Memory" total=${memory?.MemTotal} left=${memory?.MemAvailable} />
    ${failure(swap) ? html`<p class="quiet">Swap: ${plain(failure(swap))}</p>` : html`<${Used} name="Swap"
      total=${swap?.SwapTotal} left=${swap?.SwapFree} />`}
    ${rest.length > 0 && html`<details><summary>All figures</summary><${Facts}
      rows=${rest.map(([name, value]) => [name, kb(value)])} /></details>`}
  <//>`;
}

// What is behind a counter's key "FILE:FIELD", for people.
function counterName(key) {
  const at = key.lastIndexOf(":");
  const file = key.slice(0, at);
  return `${key.slice(at + 1)} of ${file === "/proc/vmstat" ? "the host" : "its cgroup"}`;
}

function Counters({ cgroup }) {
  const before = object(cgroup?.counters_at_arming) ? cgroup.counters_at_arming : {};
  const after = object(cgroup?.counters_now) ? cgroup.counters_now : {};
  const values = object(cgroup?.values) ? cgroup.values : {};
  const keys = Object.keys(before);
  return html`<${Part} title="Out-of-memory counters" found=${cgroup}>
    ${keys.length === 0 ? html`<p class="quiet">None could be read.</p>` : html`<table class="small">
      <thead><tr><th>Counter</th><th>When armed</th><th>Then</th></tr></thead>
      <tbody>${keys.map((key) => html`<tr key=${key} class=${after[key] !== before[key] ? "moved" : ""}>
        <td title=${plain(key)}>${plain(counterName(key))}</td><td class="number">${before[key]}</td>
        <td class="number">${after[key] ?? "gone"}${after[key] !== undefined && after[key] !== before[key]
          ? html` <b>moved</b>` : ""}</td>
      </tr>`)}</tbody>
    </table>`}
    ${cgroup?.folder && html`<details><summary>Its cgroup</summary>
      <p><code>${plain(cgroup.folder)}</code></p>
      <pre class="printed" tabindex="0">
        ${Object.entries(values).map(([name, found]) => `${name}: ${list(found).join("; ")}`).map(visible).join("\n")}</pre>
    </details>`}
  <//>`;
}

function Pressure({ pressure, load }) {
  const rows = Object.entries(object(pressure) ? pressure : {})
    .flatMap(([name, found]) => list(found).map((line) => [name, ...psi(String(line))]));
  const averages = list(load?.averages);
  return html`<${Part} title="Load and pressure" found=${load ?? pressure}>
    ${averages.length > 0 && html`
      <p>Load ${averages.join(", ")} over 1, 5 and 15 minutes${load.processors ? `, on ${counted(load.processors, "processor")}`
      : ""}${load.running ? `; running of all threads ${plain(load.running)}` : ""}</p>`}
    ${rows.length > 0 ? html`<table class="small">
      <caption>Share of time that somebody, or everybody, waited</caption>
      <thead><tr><th>For</th><th>Who</th><th>10 s</th><th>60 s</th><th>300 s</th></tr></thead>
      <tbody>${rows.map(([name, who, ...shares], index) => html`<tr key=${index}><td>${plain(name)}</td><td>
        ${who === "full" ? "all" : who}</td>
        ${shares.map((share, at) => html`<td key=${at} class="number">${share} %</td>`)}</tr>`)}</tbody>
    </table>` : html`<p class="quiet">This kernel tells no pressure.</p>`}
  <//>`;
}

// "some avg10=7.10 avg60=2.11 avg300=1.27 total=…" as ["some", "7.10", "2.11", "1.27"].
function psi(line) {
  const [who, ...rest] = line.split(" ");
  const of = (name) => plain(rest.find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1) ?? "–");
  return [plain(who), of("avg10"), of("avg60"), of("avg300")];
}

const FEW = 8;

function Biggest({ processes }) {
  const top = list(processes?.top_by_memory);
  return html`<${Part} title="Processes with the most memory" found=${processes}>
    ${typeof processes?.number === "number" && html`<p
      class="quiet">Of ${processes.number}${processes.environments_unreadable ? `; of ${processes.environments_unreadable} the environment could not be read`
      : ""}.</p>`}
    <${Sizes} rows=${top.slice(0, FEW)} most=${top[0]?.rss_kb} />
    ${top.length > FEW && html`<details><summary>${top.length - FEW} more</summary><${Sizes} rows=${top.slice(FEW)}
      most=${top[0]?.rss_kb} /></details>`}
  <//>`;
}

function Sizes({ rows, most }) {
  return html`<table class="small biggest">
      <thead><tr><th>Pid</th><th>Name</th><th>Memory</th><th><span class="sr-only">Compared</span></th></tr></thead>
      <tbody>${rows.map((one) => html`<tr key=${one.pid}><td class="number">${one.pid}</td><td><code>
        ${plain(one.name)}</code></td><td class="number">${kb(one.rss_kb)}</td>
        <td class="bar-cell"><${Bar} share=${(one.rss_kb ?? 0) / (most || 1)} label=${kb(one.rss_kb)} /></td>
          </tr>`)}</tbody>
    </table>`;
}

function CoreDump({ found }) {
  const files = list(found?.found);
  return html`<${Part} title="Core dump" found=${found}>
    ${files.length > 0 ? html`<ul>${files.map((one) => html`<li key=${one.path}><code>${plain(one.path)}
      </code> ${bytes(one.bytes)}, written <${When} at=${one.written_at} /></li>`)}</ul>`
      : html`<p class="quiet">${Array.isArray(found?.found) ? "None"
        : "Not known"}${found?.why ? `: ${plain(found.why)}` : ""}.</p>`}
  <//>`;
}

// --- as JSON ---------------------------------------------------------------------------------------------

function Raw({ data, file }) {
  const [open, setOpen] = useState(false);
  const box = useRef(null);
  const text = JSON.stringify(data, null, 1);
  const copy = async () => {
    try {
      // Only there on a page that came by TLS or from this machine.
      await navigator.clipboard.writeText(text);
      toast(`${file} is copied`);
    } catch {
      setOpen(true);
      requestAnimationFrame(() => {
        getSelection().selectAllChildren(box.current);
        toast("It is selected: copy it with the keyboard. The browser lets no button do that on a page without TLS.", { kind: "info" });
      });
    }
  };
  return html`<div class="raw">
    <div class="raw-buttons">
      <button type="button" class="button" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>
        ${open ? "Hide the JSON" : "Show as JSON"}</button>
      <button type="button" class="button" onClick=${copy} data-testid="copy-snapshot">Copy the JSON</button>
    </div>
    <pre ref=${box} class="printed" tabindex="0" hidden=${!open}>${open ? visible(text) : ""}</pre>
  </div>`;
}
