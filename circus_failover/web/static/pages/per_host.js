// What the pages about deaths, accounts, work and Circus have in common: one part for each host, dimmed while
// its circusd does not answer, and one way to say that something is being read, is old, or cannot be had.

import { html, useEffect, useMemo, useRef } from "../html.js";
import { on, useAgents, useHosts, useRole } from "../live.js";
import { plain, Since } from "../format.js";

// The hosts that a page shows: all of them, or the one that its address names (?host=NAME).
export function useShownHosts(query) {
  const hosts = useHosts();
  const wanted = query?.get("host");
  const found = wanted ? hosts.filter((host) => host.name === wanted) : hosts;
  const unknown = wanted && hosts.length > 0 && found.length === 0 ? wanted : null;
  return { hosts: found, several: hosts.length > 1, unknown };
}

const LIVE = ["agents", "fleet", "event", "host"];
const SOON_MS = 300;

// Read something of a host again after live messages about it, not more often than each `pause` ms: a busy fleet tells
// of something many times a second, and each reading costs its circusd. wants(message): which of them matter.
export function useFresh(host, reload, { pause = 2000, wants = () => true } = {}) {
  const latest = useRef(null);
  latest.current = { reload, wants };
  useEffect(() => {
    let timer = null;
    let last = 0;
    const heard = (message) => {
      if (timer !== null || (message.host?.name ?? message.host) !== host || !latest.current.wants(message)) return;
      timer = setTimeout(() => {
        timer = null;
        last = Date.now();
        if (!document.hidden) latest.current.reload();
      }, Math.max(SOON_MS, last + pause - Date.now()));
    };
    const stops = LIVE.map((type) => on(type, heard));
    return () => {
      clearTimeout(timer);
      for (const stop of stops) stop();
    };
  }, [host, pause]);
}

// The views of one host's agents: the same array until an agent changed.
export function useAgentsOf(host) {
  const views = useAgents();
  return useMemo(() => views.filter((view) => view.host === host), [views, host]);
}

// Whether this reader may do anything.
export function useOperator() {
  return useRole() === "operator";
}

// One host's part of a page. Its heading is there where there are several hosts, and to a screen reader always.
export function HostPart({ host, several, children, actions = null }) {
  const id = `host-${host.name}`;
  return html`<section class=${`host-part${host.reachable ? "" : " unreachable"}`} aria-labelledby=${id}>
    <header class=${`host-head${several ? "" : " only-host"}`}>
      <h2 id=${id} class=${several ? "" : "sr-only"}>${plain(host.name)}</h2>
      ${!host.reachable && html`<p class="host-gone">
        <span aria-hidden="true">○ </span>circusd has not answered for <${Since} at=${host.since} />
      </p>`}
      ${actions}
    </header>
    ${children}
  </section>`;
}

// How Circus 0.19 answers a verb that it does not have (circus/controller.py).
const UNKNOWN = "unknown command";

// What a resource of the API has come to: `children(data)` once there is something, with a line above it when that
// is old. An error without any data is said in its place, unless the host's heading has said it already.
export function Loaded({ resource, what, host = null, children }) {
  const { data, error, loading, stale } = resource;
  if (data === null && error?.answer?.reason?.startsWith(UNKNOWN)) {
    return html`<p class="quiet">This circusd runs without circus-failover: it has no ${what}.</p>`;
  }
  if (data === null && host && !host.reachable && error?.status === 503) return null;
  if (loading) return html`<p class="quiet" role="status">Reading ${what}…</p>`;
  if (data === null || data === undefined) {
    return error ? html`<p class="trouble" role="status">${plain(error.message)}</p>` : null;
  }
  return html`
    ${stale && html`<p class="trouble" role="status">These are old: ${plain(error.message)}</p>`}
    ${children(data)}`;
}

// A definition list of what is known; what is null, undefined or "" is left out.
export function Facts({ rows }) {
  const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  if (known.length === 0) return null;
  return html`<dl class="facts">
    ${known.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

// A number with its noun: counted(1, "agent") is "1 agent", counted(3, "agent") "3 agents".
export function counted(number, noun, plural = `${noun}s`) {
  return `${number} ${number === 1 ? noun : plural}`;
}
