// One agent: what it is and why, its terminal, what it used, what happened to it, and what would happen next.
// What changes by the second comes from the web socket; the rest is read again when something of this agent changes.

import { html, stylesheet, useEffect, useMemo, useState } from "../html.js";
import { under, useResource } from "../api.js";
import { on, useAgent, useAgents, useConnection, useFleetRead, useHost } from "../live.js";
import { Link, path } from "../router.js";
import { plain } from "../format.js";
import { AgentActions, VerbButton } from "../actions.js";
import { Terminal } from "../terminal.js";
import { AgentHead } from "./agent_head.js";
import { AgentUsage } from "./agent_usage.js";
import { Decisions } from "./agent_log.js";
import { Outlook } from "./agent_outlook.js";
import { Timeline } from "./agent_timeline.js";
import { FailedLaunch, Settings, Waiting } from "./agent_rest.js";

const FIRST = 50; // decisions that are read at first
const MORE = 200;
const MOST = 5000;
const SETTLE_MS = 300; // a launch is several changes in a row

export default function AgentPage({ host, name }) {
  const view = useAgent(host, name);
  const found = useHost(host);
  const fleet = useFleetRead();
  const [limit, setLimit] = useState(FIRST);
  // Explaining asks tmux: not for a page that only waits for its circusd to come back.
  const explained = useResource(view ? under("hosts", host, "agents", name) : null, { every: 15 });
  const history = useResource(`${under("hosts", host, "agents", name, "history")}?limit=${limit}`, { every: 30 });
  useChanges(host, name, view, () => {
    explained.reload();
    history.reload();
  });
  useEffect(() => void stylesheet("agent.css"), []);
  useEffect(() => {
    document.title = `${plain(name)}${view ? `: ${view.phase}` : ""} · circus-failover`;
  }, [name, view?.phase]);

  if (!view) return html`<${NotThere} host=${host} name=${name} found=${found} fleet=${fleet} history=${history} />`;
  const more = (history.data?.history.length ?? 0) >= limit && limit < MOST ? () => setLimit(Math.min(MOST, limit + MORE)) : null;
  const gone = found !== null && !found.reachable;
  return html`<div class=${`agent-page${gone ? " unreachable" : ""}`} data-testid="agent-page">
    <${AgentHead} host=${host} agent=${view} explained=${explained.data}>
      <${AgentActions} host=${host} agent=${view} />
    <//>
    <${Terminal} key=${`${host}/${name}`} host=${host} agent=${view} />
    <div class="agent-columns">
      <${Waiting} host=${host} agent=${view} explained=${explained.data} />
      <${FailedLaunch} explained=${explained.data} />
      <${Timeline} launches=${history.data?.launches} agent=${view} />
      <${Outlook} resource=${explained} agent=${view} />
      <${AgentUsage} host=${host} name=${name} local=${found?.local !== false} />
    </div>
    <${Decisions} resource=${history} more=${more} />
    <${Settings} explained=${explained.data} name=${name} />
  </div>`;
}

// Call fn soon after something of this agent has changed: its view, or an event about it.
function useChanges(host, name, view, fn) {
  const latest = useMemo(() => ({ fn }), []);
  latest.fn = fn;
  const soon = useMemo(() => {
    let timer = null;
    const later = () => {
      timer ??= setTimeout(() => {
        timer = null;
        latest.fn();
      }, SETTLE_MS);
    };
    later.end = () => clearTimeout(timer);
    return later;
  }, [host, name]);
  useEffect(() => {
    const topic = `watcher.${name}.`;
    const off = on("event", (message) => message.host === host && message.topic.startsWith(topic) && soon());
    return () => {
      off();
      soon.end();
    };
  }, [host, name, soon]);
  // What is read at first is new enough.
  const [first] = useState(() => ({ view }));
  useEffect(() => {
    if (view !== null && first.view !== view) soon();
    first.view = view;
  }, [view]);
}

// There is no such agent, or not yet: what is left of one that was removed, or which one may have been meant.
function NotThere({ host, name, found, fleet, history }) {
  const agents = useAgents();
  const { console: there, first } = useConnection();
  const near = useMemo(() => nearest(host, name, agents), [host, name, agents]);
  if (!fleet && (there || first)) return html`<p role="status">Reading the agents …</p>`;
  if (found && !found.reachable) {
    return html`<h1>${plain(name)}</h1><p>circusd on ${plain(host)} does not answer: what it knows of ${plain(name)} is shown when it does.</p>`;
  }
  const known = history.data && (history.data.history.length > 0 || history.data.launches.length > 0);
  return html`<div class="agent-page" data-testid="no-agent">
    <h1>${found ? html`There is no agent <q>${plain(name)}</q> on ${plain(host)}` : html`There is no host <q>${plain(host)}</q>`}</h1>
    ${near ? html`<p>Did you mean <${Link} href=${path("agents", near.host, near.identity)}>${plain(near.identity)}${near.host === host ? "" : ` on ${plain(near.host)}`}<//>?</p>` : null}
    <p><${Link} href="/">All agents<//></p>
    ${known ? html`
      <p>There was one; what happened to it is remembered until it is purged.</p>
      <${VerbButton} host=${host} verb="purge" properties=${{ name }} label="Purge" what=${`purge ${plain(name)}`} danger
        confirm=${`All that is remembered of ${plain(name)} is deleted for good: its launches, history, intents, tasks and pane logs.`}
        done=${history.reload} />
      <${Timeline} launches=${history.data.launches} agent=${{ identity: name, phase: "stopped", reason: null }} />
      <${Decisions} resource=${history} more=${null} />` : null}
  </div>`;
}

// The agent whose name is the most like a name, if any is much like it.
function nearest(host, name, agents) {
  let best = null;
  let least = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const agent of agents) {
    const away = distance(name.toLowerCase(), agent.identity) + (agent.host === host ? 0 : 0.5);
    if (away < least) {
      least = away;
      best = agent;
    }
  }
  return best;
}

// How many characters have to be changed, added or left out (Levenshtein).
function distance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let at = 1; at <= one.length; at += 1) {
    const next = [at];
    for (let to = 1; to <= other.length; to += 1) {
      const same = one[at - 1] === other[to - 1] ? 0 : 1;
      next.push(Math.min(next[to - 1] + 1, row[to] + 1, row[to - 1] + same));
    }
    row = next;
  }
  return row[other.length];
}
