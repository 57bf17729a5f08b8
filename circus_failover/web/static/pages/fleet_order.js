// Which agents are shown and in what order, as the address says. Pure but for the samples that "cpu" and "rss" sort by.

import { usageOf } from "../live.js";

// The order in which phases are counted and sorted: what a person has to see to comes first.
export const PHASES = ["held", "refused", "down", "starting", "stopping", "up", "observed", "parked", "stopped"];
export const STATES = ["wedged", "stuck", "waiting", "limited", "working", "idle", "unknown"];

const place = (list) => (word) => {
  const index = list.indexOf(word);
  return index < 0 ? list.length : index;
};
const phasePlace = place(PHASES);
const statePlace = place(STATES);
const age = (at) => (at === null || at === undefined ? null : -at); // the shortest first
const newest = (kind) => (agent) => usageOf(agent.host, agent.identity)[kind].at(-1) ?? null;

// key: as in `sort=`; value: what is compared, null goes last either way.
export const COLUMNS = [
  { key: "name", label: "Agent", value: () => 0 },
  { key: "phase", label: "Phase and reason", value: ({ phase }) => phasePlace(phase) },
  { key: "state", label: "State", value: (agent) => (runs(agent) ? statePlace(agent.state) : null) },
  { key: "assignment", label: "Work", title: "The assignment it has", value: ({ assignment }) => assignment },
  { key: "account", label: "Account", value: ({ account }) => account },
  { key: "runtime", label: "Runtime", value: ({ runtime }) => runtime },
  { key: "host", label: "Host", value: ({ host }) => host },
  {
    key: "generation", label: "Gen.", title: "Generation: the number of its launch", right: true,
    value: ({ generation }) => generation,
  },
  {
    key: "up", label: "Up for", title: "How long it is up; dimmed: how long it is in its phase", right: true,
    value: ({ since }) => age(since),
  },
  {
    key: "idle", label: "Idle for", title: "Since its last activity", right: true,
    value: (agent) => age(agent.last_activity),
  },
  {
    key: "cpu", label: "CPU", title: "Of its whole process tree, per cent of one core", right: true,
    value: newest("cpu"),
  },
  {
    key: "rss", label: "Memory", title: "Resident memory of its whole process tree", right: true,
    value: newest("rss"),
  },
];

// Whether an agent has a process, so that what it does can be known.
export function runs({ phase }) {
  return phase === "up" || phase === "observed" || phase === "starting" || phase === "stopping";
}

export const NONE = "(none)"; // in the address: agents that have no account, pool, ...

export function agentKey({ host, identity }) {
  return `${host}/${identity}`;
}

// "agent-2" before "agent-10". Comparing so is slow, so the names are ranked once, until there is a new one.
const collator = new Intl.Collator(undefined, { numeric: true });
let ranks = new Map();

function ranked(agents) {
  if (!agents.every(({ identity }) => ranks.has(identity))) {
    const names = [...new Set(agents.map(({ identity }) => identity))].sort(collator.compare);
    ranks = new Map(names.map((name, index) => [name, index]));
  }
  return ranks;
}

function compare(one, other) {
  if (one === other) return 0;
  if (one === null || one === undefined) return 2; // stays last in a descending order, too
  if (other === null || other === undefined) return -2;
  return one < other ? -1 : 1;
}

export function sorted(agents, sort) {
  const rank = ranked(agents);
  const by = sort.replace(/^-/, "");
  const turn = sort.startsWith("-") ? -1 : 1;
  const column = COLUMNS.find(({ key }) => key === by) ?? COLUMNS[0];
  const named = column.key === "name";
  return agents
    .map((agent) => ({ agent, value: column.value(agent), rank: rank.get(agent.identity) }))
    .sort((one, other) => {
      const found = compare(one.value, other.value);
      if (found !== 0) return Math.abs(found) === 2 ? found : found * turn;
      return (one.rank - other.rank) * (named ? turn : 1) || compare(one.agent.host, other.agent.host);
    })
    .map(({ agent }) => agent);
}

function words(query, key) {
  return (query.get(key) ?? "").split(",").filter(Boolean);
}

function searched(agent) {
  const { identity, phase, state, reason, account, pool, runtime, assignment, host, cause } = agent;
  return [identity, phase, state, reason, account, pool, runtime, assignment, host, cause].join(" ").toLowerCase();
}

function fits(agent, terms, one) {
  for (const key of ["account", "pool", "host"]) {
    if (one[key] && (agent[key] ?? NONE) !== one[key]) return false;
  }
  if (terms.length === 0) return true;
  const text = searched(agent);
  return terms.every((term) => text.includes(term));
}

function counted(agents, read) {
  const counts = new Map();
  for (const agent of agents) {
    const word = read(agent);
    if (word !== null) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

const stateOf = (agent) => (runs(agent) ? agent.state : null);

// {shown: agents in order, groups: [{title, agents}], phases and states: counts that the choice of a phase or state
// itself does not change}
export function choose(agents, query) {
  const terms = (query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const one = Object.fromEntries(["account", "pool", "host"].map((key) => [key, query.get(key)]));
  const phaseWords = words(query, "phase");
  const stateWords = words(query, "state");
  const inPhase = (agent) => phaseWords.length === 0 || phaseWords.includes(agent.phase);
  const inState = (agent) => stateWords.length === 0 || stateWords.includes(stateOf(agent));
  const fitting = agents.filter((agent) => fits(agent, terms, one));
  const shown = sorted(fitting.filter((agent) => inPhase(agent) && inState(agent)), query.get("sort") ?? "name");
  const phases = counted(fitting.filter(inState), ({ phase }) => phase);
  const states = counted(fitting.filter(inPhase), stateOf);
  const group = query.get("group");
  return group && ["pool", "account", "phase", "host"].includes(group)
    ? { ...grouped(shown, group), phases, states }
    : { shown, groups: [{ title: null, agents: shown }], phases, states };
}

function grouped(agents, group) {
  const found = new Map();
  for (const agent of agents) {
    const title = agent[group] ?? `no ${group}`;
    if (!found.has(title)) found.set(title, []);
    found.get(title).push(agent);
  }
  const titles = [...found.keys()];
  if (group === "phase") titles.sort((one, other) => phasePlace(one) - phasePlace(other));
  else titles.sort((one, other) => (one === `no ${group}`) - (other === `no ${group}`) || collator.compare(one, other));
  const groups = titles.map((title) => ({ title, agents: found.get(title) }));
  return { groups, shown: groups.flatMap(({ agents: members }) => members) };
}
