// Pools: agents that stand in for one another, how many of each are up and how many of them are at work.

import { html, useMemo } from "../html.js";
import { Link, path } from "../router.js";
import { plain, told } from "../format.js";
import { Phase } from "./agent_words.js";
import { Parts } from "./bars.js";
import { counted } from "./per_host.js";

const OVER = ["done", "failed", "cancelled", "orphaned"];

// What a member is to its pool: at work, free, on its way up or down, resting (a wake away), or out of it.
function load(view) {
  if (view.phase === "up") {
    if (view.assignment || view.state === "working") return "at work";
    return ["limited", "stuck", "wedged", "waiting"].includes(view.state) ? "hindered" : "free";
  }
  if (["starting", "stopping"].includes(view.phase)) return "starting or stopping";
  return ["parked", "down"].includes(view.phase) ? "resting" : "out";
}

const LOADS = [["at work", "good"], ["free", "calm"], ["hindered", "bad"], ["starting or stopping", "warn"], ["resting", "plain"], ["out", "odd"]];

// host: a name; agents: the views of its agents; assignments: what circusd lists.
export function Pools({ host, agents, assignments }) {
  const pools = useMemo(() => {
    const found = new Map();
    for (const view of agents) if (view.pool) found.set(view.pool, [...(found.get(view.pool) ?? []), view]);
    return [...found].sort(([one], [other]) => one.localeCompare(other));
  }, [agents]);
  if (pools.length === 0) return null;
  return html`<section aria-labelledby=${`pools-${host}`}>
    <h3 id=${`pools-${host}`}>Pools</h3>
    <ul class="pools">${pools.map(([name, members]) => html`<${Pool} key=${name} host=${host} name=${name}
      members=${members}
      waiting=${assignments.filter((one) => one.pool === name && !one.owner && !OVER.includes(one.state)).length} />`)}</ul>
  </section>`;
}

function Pool({ host, name, members, waiting }) {
  const counts = {};
  for (const view of members) counts[load(view)] = (counts[load(view)] ?? 0) + 1;
  const up = members.filter((view) => view.phase === "up").length;
  return html`<li class="card pool" data-testid=${`pool-${name}`}>
    <header class="card-head"><h4>${plain(name)}</h4>
      <span>${up} of ${counted(members.length, "agent")} up${waiting ? html`, <b>${waiting} waiting</b>` : ""}
        </span></header>
    <${Parts} label=${`Load of pool ${plain(name)}`}
      parts=${LOADS.map(([key, tone]) => ({ key, tone, count: counts[key] ?? 0 })).filter((part) => part.count)} />
    <details><summary>Members</summary><ul class="members">${members.map((view) => html`<li key=${view.identity}>
      <${Link} href=${path("agents", host, view.identity)}>${plain(view.identity)}<//>
      <${Phase} agent=${view} />
      <small>${view.phase === "up" ? plain(view.state) : told(view.reason)}${view.assignment ? `, ${plain(view.assignment)}`
        : ""}${view.tasks ? `, ${counted(view.tasks, "task")} waiting` : ""}</small></li>`)}</ul></details>
  </li>`;
}
