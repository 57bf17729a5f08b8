// The fleet: every agent of every host in one table, filtered, sorted and grouped by what the address says.
// What changes often is kept cheap: a row is rendered again only when its agent's object is another one
// (fleet_row.js), figures and ages are written past preact, and the order is made once a frame at most.
// All rows are in the document (to find in the page, to tab to, to read aloud), in parts that the browser lays out
// and paints only near the view (console.css).

import { html, memo, useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../html.js";
import { setQuery } from "../router.js";
import { useAgents, useConnection, useFleetRead, useHosts, useRole, watchAllUsage } from "../live.js";
import { plain } from "../format.js";
import { writing } from "../keys.js";
import { COLUMNS, agentKey, choose } from "./fleet_order.js";
import { Row, SYMBOLS } from "./fleet_row.js";
import { BulkBar } from "./fleet_bulk.js";
import { Filters, PhaseChips } from "./fleet_filters.js";

const FIRST_ROWS = 40; // rendered before the first paint: more than any screen shows
const MORE_ROWS = 80; // and then in pieces, so that no piece holds up a key or a click
// Each part that is out of view costs a little in every frame, and each that comes into view is laid out in one.
const PART_ROWS = 16;

// How many rows are rendered: a screenful at first, then all of them.
function useRoom(count) {
  const [room, setRoom] = useState(FIRST_ROWS);
  useEffect(() => {
    if (room >= count) return undefined;
    const timer = setTimeout(() => setRoom((before) => before + MORE_ROWS), 30);
    return () => clearTimeout(timer);
  }, [room, count]);
  return room;
}

// A number that changes when samples came, and only while the order depends on them.
function useSamples(wanted) {
  const [turn, again] = useReducer((count) => count + 1, 0);
  useEffect(() => (wanted ? watchAllUsage(again) : undefined), [wanted]);
  return turn;
}

function Head({ columns, sort, several, operator, all, some, selectAll }) {
  const descending = sort.startsWith("-");
  const by = sort.replace(/^-/, "");
  const box = useCallback((node) => {
    if (node) node.indeterminate = some && !all;
  }, [some, all]);
  return html`<thead role="rowgroup"><tr role="row">
    <th role="columnheader" class="select">${operator
      ? html`<label><input type="checkbox" ref=${box} checked=${all} onChange=${selectAll}
        aria-label="Select all agents shown" /></label>`
      : html`<span class="sr-only">Selection</span>`}</th>
    ${columns.map(({ key, label, title, right }) => {
      if (key === "host" && !several) return null;
      const ours = by === key;
      const order = ours ? (descending ? "descending" : "ascending") : "none";
      const next = ours ? (descending ? "" : `-${key}`) : key;
      // A cell that holds a phase or a state must not look like one.
      const name = key === "phase" || key === "state" ? `${key}-cell` : key;
      return html`<th key=${key} role="columnheader" aria-sort=${order} class=${right ? `${name} right` : name}
        title=${title}>
        <button type="button" onClick=${() => setQuery({ sort: next === "name" ? "" : next })}>${label}${" "}
          ${ours ? html`<span class="arrow" aria-hidden="true">${descending ? "▼" : "▲"}</span>` : null}</button></th>`;
    })}
    <th role="columnheader" class="menu"><span class="sr-only">Actions</span></th>
  </tr></thead>`;
}

const Group = memo(({ title, count, phases }) => html`
  <tr class="group-row" role="row"><th role="rowheader" scope="rowgroup">
    <b>${title}</b> <span class="dim">${count} ${count === 1 ? "agent" : "agents"}</span>
    <span class="dim">${phases}</span>
  </th></tr>`);

function phasesOf(agents) {
  const counts = new Map();
  for (const { phase } of agents) counts.set(phase, (counts.get(phase) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1])
    .map(([phase, count]) => `${SYMBOLS[phase] ?? ""} ${phase} ${count}`).join("   ");
}

function Nothing({ total, hosts, clear }) {
  if (total > 0) {
    return html`<div class="empty" data-testid="no-match"><h2>No agent matches</h2>
      <p class="dim">${total} agents are hidden by the filter.</p>
      <button type="button" onClick=${clear}>Show all agents</button></div>`;
  }
  if (hosts.length > 0 && hosts.every(({ reachable }) => !reachable)) {
    return html`<div class="empty"><h2>circusd does not answer</h2>
      <p>Nothing is known of the agents until it does. They go on running without it. On its host,
      <code>failoverctl doctor</code> says what is wrong, and <code>circusd --daemon circus.ini</code> starts it.</p></div>`;
  }
  return html`<div class="empty" data-testid="no-agents"><h2>No agents yet</h2>
    <p>An agent is a section of <code>circus.ini</code>:</p>
    <pre tabindex="0">[watcher:alpha]
cmd = failover-session
hooks.before_start = circus_failover.hooks.enrol
failover.runtime = claude
working_dir = /srv/alpha</pre>
    <p>Then <code>failoverctl reloadconfig</code> takes it in, and it appears here. <code>failoverctl init</code> writes
    a whole fleet for the accounts on a machine; <code>failoverctl adopt</code> takes in tmux sessions that run already.</p>
  </div>`;
}

// j, k, x, m, / and Escape. Focus is the browser's own, on the link of a row: there is no second cursor.
function useRowKeys(table, clearSelection) {
  // With the rows themselves: after the paint a key would come too early for what is seen already.
  useLayoutEffect(() => {
    const press = (event) => {
      const field = document.getElementById("filter");
      if (event.key === "Escape" && event.target === field) {
        field.blur();
        return;
      }
      if (writing(event)) return;
      const row = document.activeElement?.closest?.("[data-row]") ?? null;
      if (event.key === "/") field?.focus();
      else if (event.key === "j" || event.key === "k") step(table.current, row, event.key === "j" ? 1 : -1);
      else if (event.key === "x" && row) row.querySelector("input[type=checkbox]")?.click();
      else if (event.key === "m" && row) row.querySelector(".menu button")?.click();
      else if (event.key === "Escape") clearSelection();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [clearSelection]);
}

function step(table, row, by) {
  const rows = [...(table?.querySelectorAll("[data-row]") ?? [])];
  const inView = (each) => each.getBoundingClientRect().bottom > 100;
  const next = row === null ? rows.find(inView) : rows[rows.indexOf(row) + by];
  const link = next?.querySelector(".agent-link");
  link?.focus({ preventScroll: true });
  next?.scrollIntoView({ block: "nearest" });
}

// A row that comes into another part is made anew: who was on it by keyboard is there again.
function useFocusKept(table) {
  const row = table.current?.contains(document.activeElement) ? document.activeElement.closest("[data-row]") : null;
  const place = row === null ? -1 : controls(row).indexOf(document.activeElement);
  useLayoutEffect(() => {
    if (place < 0 || row.contains(document.activeElement)) return;
    const now = controls(table.current?.querySelector(`[data-row="${CSS.escape(row.dataset.row)}"]`));
    (now[place] ?? now[0])?.focus({ preventScroll: true });
  });
}

function controls(row) {
  return [...(row?.querySelectorAll("input, a, button") ?? [])];
}

function parts(agents) {
  const found = [];
  for (let at = 0; at < agents.length; at += PART_ROWS) found.push(agents.slice(at, at + PART_ROWS));
  return found;
}

export default function Fleet({ query }) {
  const agents = useAgents();
  const read = useFleetRead();
  const hosts = useHosts();
  const connected = useConnection().console;
  const operator = useRole() === "operator";
  const several = hosts.length > 1;
  const sort = query.get("sort") ?? "name";
  const text = query.toString();
  const samples = useSamples(/^-?(cpu|rss)$/.test(sort));
  const chosen = useMemo(() => choose(agents, new URLSearchParams(text)), [agents, text, samples]);
  const { groups, shown, phases, states } = chosen;

  const [selected, setSelected] = useState(() => new Set());
  const order = useRef([]); // the keys of the rows as they are shown, for a range
  const last = useRef(null); // the row that was clicked last
  order.current = shown.map(agentKey);
  const select = useCallback((key, on, range) => {
    const keys = order.current;
    const [from, to] = [keys.indexOf(last.current), keys.indexOf(key)].sort((one, other) => one - other);
    const meant = range && from >= 0 ? keys.slice(from, to + 1) : [key];
    last.current = key;
    setSelected((before) => {
      const next = new Set(before);
      for (const each of meant) next[on ? "add" : "delete"](each);
      return next;
    });
  }, []);
  const clearSelection = useCallback(() => setSelected((before) => (before.size === 0 ? before : new Set())), []);
  // What is hidden by a filter or gone is not acted on: only what can be seen is selected.
  const picked = useMemo(() => shown.filter((agent) => selected.has(agentKey(agent))), [shown, selected]);
  const all = shown.length > 0 && picked.length === shown.length;
  const selectAll = () => setSelected(all ? new Set() : new Set(order.current));

  const table = useRef(null);
  useRowKeys(table, clearSelection);
  useFocusKept(table);
  const room = useRoom(shown.length);
  const dimmed = useMemo(() => new Set(hosts.filter(({ reachable }) => !reachable).map(({ name }) => name)), [hosts]);
  const clear = () => setQuery({ q: "", phase: "", state: "", account: "", pool: "", host: "" }, { replace: false });

  if (!read && agents.length === 0) return html`<h1>Fleet</h1><p class="waiting" role="status">Reading the fleet…</p>`;
  let left = room;
  let place = 2; // among the rows of the table, of which the heading is the first
  return html`
    <div class="fleet-head">
      <h1>Fleet <span class="total">${agents.length}</span></h1>
      <${PhaseChips} phases=${phases} states=${states} query=${query} />
    </div>
    <${Filters} agents=${agents} hosts=${hosts} query=${query} shown=${shown.length} clear=${clear} />
    ${shown.length === 0 ? html`<${Nothing} total=${agents.length} hosts=${hosts} clear=${clear} />` : html`
    <table class=${`fleet ${several ? "several" : ""}`} role="table" ref=${table} aria-rowcount=${shown.length + 1} data-testid="fleet">
      <caption class="sr-only">Agents, with phase, state, usage and work. Each name leads to the agent.</caption>
      <${Head} columns=${COLUMNS} sort=${sort} several=${several} operator=${operator} all=${all}
        some=${picked.length > 0} selectAll=${selectAll} />
      ${groups.map(({ title, agents: members }) => {
        const fit = members.slice(0, Math.max(0, left));
        left -= fit.length;
        return parts(fit).map((part, number) => {
          const first = place;
          place += part.length;
          return html`<tbody key=${`${title ?? ""}/${number}`} role="rowgroup" data-part style=${{ "--rows": part.length }}>
          ${title === null || number > 0 ? null
            : html`<${Group} title=${plain(title)} count=${members.length} phases=${phasesOf(members)} />`}
          ${part.map((agent, index) => {
            const key = agentKey(agent);
            return html`<${Row} key=${key} agent=${agent} several=${several} operator=${operator}
              selected=${selected.has(key)} select=${select} dimmed=${!connected || dimmed.has(agent.host)}
              place=${index === 0 ? first : null} />`;
          })}
          </tbody>`;
        });
      })}
    </table>
    ${operator && picked.length > 0 ? html`<${BulkBar} agents=${picked} several=${several} clear=${clearSelection} />` : null}`}`;
}
