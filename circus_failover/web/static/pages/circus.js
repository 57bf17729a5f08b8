// Circus: what circushttpd had, for every watcher of every host, the hosts side by side: status, processes, start,
// stop, restart, reload, more and fewer processes, sockets and the arbiter's own options. One watcher has a page of its
// own (watcher.js). For agents the same verbs mean what DESIGN says: some end the agent, the others let it live on.

import { html, memo, useState } from "../html.js";
import { useResource, under } from "../api.js";
import { useWatchers } from "../live.js";
import { VerbButton } from "../actions.js";
import { UsageLine } from "../sparkline.js";
import { Link, path, setQuery } from "../router.js";
import { Since, plain, span } from "../format.js";
import { Watcher } from "./watcher.js";
import { AgentsToo, Status, WatcherVerbs } from "./watcher_verbs.js";
import { Facts, HostPart, Loaded, counted, useShownHosts } from "./per_host.js";

const AT_FIRST = 100; // rows before more are asked for

export default function Circus({ host, name, query }) {
  return host && name ? html`<${Watcher} host=${host} name=${name} />` : html`<${Hosts} query=${query} />`;
}

function Hosts({ query }) {
  const { hosts, several, unknown } = useShownHosts(query);
  return html`<div class="page circus-page">
    <header class="page-head">
      <h1>Circus</h1>
      <p class="quiet">Every watcher of every circusd.</p>
    </header>
    <form class="filter" role="search" aria-label="Which watchers" onSubmit=${(event) => event.preventDefault()}>
      <label class="field">Watcher <input type="search" value=${query.get("q") ?? ""} placeholder="part of a name"
        autocomplete="off" data-testid="watcher-filter"
        onInput=${(event) => setQuery({ q: event.target.value.trim() || null })} /></label>
      <label class="field">Kind <select value=${query.get("kind") ?? ""}
        onChange=${(event) => setQuery({ kind: event.target.value || null })}>
        <option value="">all</option><option value="agents">agents</option><option value="others">not agents</option>
      </select></label>
    </form>
    <${AgentsToo} />
    ${unknown && html`<p class="trouble">No host ${plain(unknown)} is known here.</p>`}
    <div class=${hosts.length > 1 ? "side-by-side" : ""}>
      ${hosts.map((host) => html`<${HostCircus} key=${host.name} host=${host} several=${several}
        narrow=${hosts.length > 1} query=${query} />`)}
    </div>
  </div>`;
}

function HostCircus({ host, several, narrow, query }) {
  const watchers = useWatchers(host.name) ?? [];
  const [most, setMost] = useState(AT_FIRST);
  const wanted = (query.get("q") ?? "").toLowerCase();
  const kind = query.get("kind");
  const found = watchers.filter((one) => one.name.toLowerCase().includes(wanted) && (!kind || one.agent === (kind === "agents")));
  const active = watchers.filter((one) => one.status === "active").length;
  return html`<${HostPart} host=${host} several=${several} actions=${html`<${OfAll} host=${host} />`}>
    <p class="quiet">${host.reachable ? html`circusd${host.version ? ` ${plain(host.version)}`
      : ""}${host.pid ? `, pid ${host.pid}` : ""}, reachable for <${Since} at=${host.since} />; ` : ""}
      ${(host.reachable || watchers.length > 0) && `${counted(watchers.length, "watcher")}, ${active} active`}</p>
    ${found.length === 0 ? (host.reachable || watchers.length > 0) && html`<p class="nothing">
      ${watchers.length ? "No watcher is of that kind." : "It has no watcher."}</p>` : html`<div class="table-room"><table class="cards watchers">
      <caption class="sr-only">Watchers of ${plain(host.name)}</caption>
      <thead><tr><th>Watcher</th><th>Status</th><th>Processes</th><th>CPU</th><th>Memory</th><th><span
        class="sr-only">Actions</span></th></tr></thead>
      <tbody>${found.slice(0, most).map((one) => html`<${Row} key=${one.name} host=${host} one=${one}
        compact=${narrow} />`)}</tbody>
    </table></div>`}
    ${found.length > most && html`<button type="button" class="button"
      onClick=${() => setMost(most + AT_FIRST)}>Show ${Math.min(AT_FIRST, found.length - most)} more of ${found.length}
      </button>`}
    <${Sockets} host=${host} />
    <${ArbiterOptions} host=${host} />
  <//>`;
}

const Row = memo(function Row({ host: { name: host, local }, one, compact }) {
  const name = plain(one.name);
  return html`<tr data-testid=${`watcher-${one.name}`} data-row>
    <td data-label="Watcher"><${Link} href=${path("circus", host, one.name)}>${name}<//>${one.agent ? html` <span
      class="badge tone-calm">agent</span>` : ""}</td>
    <td data-label="Status"><${Status} status=${one.status} /></td>
    <td data-label="Processes" class="number"><span title=${one.pids?.length ? `pid ${one.pids.join(", ")}` : null}>
      ${one.pids?.length ?? "–"}</span></td>
    <td data-label="CPU">${local === false ? "–" : html`<${UsageLine} host=${host} name=${one.name}
      kind="cpu" />`}</td>
    <td data-label="Memory">${local === false ? "–" : html`<${UsageLine} host=${host} name=${one.name}
      kind="rss" />`}</td>
    <td class="actions"><${WatcherVerbs} host=${host} one=${one} compact=${compact} /></td>
  </tr>`;
});

// --- of the whole circusd --------------------------------------------------------------------------------

const RELOADCONFIG = "circus.ini is read again: new watchers are added, those whose section changed are started anew, "
  + "those without one are removed. Agents are detached and adopted again where need be: none is ended, and one whose "
  + "section is gone lives on unsupervised.";

function OfAll({ host }) {
  return html`<${VerbButton} host=${host.name} verb="reloadconfig" properties=${{}} label="Reload circus.ini"
    what=${`reloadconfig on ${plain(host.name)}`}
    confirm=${RELOADCONFIG} />`;
}

// What is only read when somebody folds it out.
function Folded({ summary, children }) {
  const [open, setOpen] = useState(false);
  return html`<details class="folded" onToggle=${(event) => setOpen(event.currentTarget.open)}><summary>${summary}
    </summary>${open && children()}</details>`;
}

function Sockets({ host }) {
  return html`<${Folded} summary="Sockets">${() => html`<${SocketTable} host=${host.name} />`}<//>`;
}

function SocketTable({ host }) {
  const resource = useResource(under("hosts", host, "sockets"));
  return html`<${Loaded} resource=${resource} what="sockets">${({ sockets }) => sockets.length === 0 ? html`<p
    class="quiet">circus.ini has no [socket:…] section.</p>`
    : html`<div class="table-room"><table class="small">
      <thead><tr><th>Name</th><th>Where</th><th>Fd</th><th>Backlog</th></tr></thead>
      <tbody>${sockets.map((one) => html`<tr key=${one.fd}><td>${plain(one.name)}</td><td><code>
        ${one.path ? plain(one.path) : `${plain(one.host)}:${one.port}`}</code></td><td class="number">${one.fd}</td>
        <td class="number">${one.backlog}</td></tr>`)}</tbody>
    </table></div>`}<//>`;
}

function ArbiterOptions({ host }) {
  return html`<${Folded} summary="circusd itself">${() => html`<${OptionList} host=${host.name}
    endpoint=${host.endpoint} />`}<//>`;
}

function OptionList({ host, endpoint }) {
  const resource = useResource(under("hosts", host, "options"));
  const own = useResource(under("hosts", host, "circusd"), { every: 10 });
  return html`
    <${Loaded} resource=${own} what="what circusd uses">${({ info }) => html`<${Facts}
      rows=${[["its CPU", `${info.cpu} %`],
      ["its memory", plain(info.mem_info1)], ["its CPU time", plain(info.ctime)],
      ["runs for", typeof info.age === "number" && span(info.age)], ["user", plain(info.username)]]} />`}<//>
    <${Loaded} resource=${resource} what="options">${({ options }) => html`<${Facts} rows=${[["asked at", html`<code>
      ${plain(endpoint)}</code>`],
      ...Object.entries(options).map(([name, value]) => [plain(name), html`<code>${plain(value)}
        </code>`])]} />`}<//>`;
}
