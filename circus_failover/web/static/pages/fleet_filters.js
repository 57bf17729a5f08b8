// The filter of the fleet: counts by phase and state that can be clicked, a text, and choices. All of it is in the
// address.

import { html, memo, useMemo } from "../html.js";
import { setQuery } from "../router.js";
import { plain } from "../format.js";
import { COLUMNS, NONE, PHASES, STATES } from "./fleet_order.js";
import { SYMBOLS } from "./agent_words.js";

function toggled(query, key, word) {
  const words = (query.get(key) ?? "").split(",").filter(Boolean);
  const next = words.includes(word) ? words.filter((each) => each !== word) : [...words, word];
  setQuery({ [key]: next.join(",") }, { replace: false });
}

function Chips({ counts, order, query, name, symbols }) {
  const chosen = (query.get(name) ?? "").split(",").filter(Boolean);
  const known = [...order, ...[...counts.keys()].filter((word) => !order.includes(word))];
  const words = known.filter((word) => counts.has(word) || chosen.includes(word));
  return words.map((word) => html`<button key=${`${name}-${word}`} type="button" class=${`chip ${name}-${word}`}
      aria-pressed=${chosen.includes(word)} data-testid=${`${name}-filter-${word}`}
      onClick=${() => toggled(query, name, word)}>
    ${symbols ? html`<span class="symbol" aria-hidden="true">${symbols[word] ?? "?"}</span>` : null}
    ${plain(word)} <b>${counts.get(word) ?? 0}</b></button>`);
}

export function PhaseChips({ phases, states, query }) {
  return html`<div class="chips" role="group" aria-label="Show only these phases">
      <${Chips} counts=${phases} order=${PHASES} query=${query} name="phase" symbols=${SYMBOLS} /></div>
    ${states.size > 0 ? html`<div class="chips" role="group" aria-label="Show only these states">
      <${Chips} counts=${states} order=${STATES} query=${query} name="state" /></div>` : null}`;
}

const Choice = memo(({ label, name, value, options, all }) => html`<label><span>${label}</span>
  <select value=${value} data-testid=${`filter-${name}`}
    onChange=${(event) => setQuery({ [name]: event.target.value }, { replace: false })}>
    <option value="" selected=${value === ""}>${all}</option>
    ${options.map(([option, shown]) => html`
      <option key=${option} value=${option} selected=${value === option}>${plain(shown)}</option>`)}
  </select></label>`);

function values(agents, key) {
  const found = new Set();
  for (const agent of agents) found.add(agent[key] ?? NONE);
  return [...found].sort().map((each) => [each, each]);
}

const SORTS = COLUMNS.flatMap(({ key, label }) => [[key, label], [`-${key}`, `${label}, reversed`]]).slice(1);

export function Filters({ agents, hosts, query, shown, clear }) {
  const accounts = useMemo(() => values(agents, "account"), [agents]);
  const pools = useMemo(() => values(agents, "pool"), [agents]);
  const several = hosts.length > 1;
  const names = useMemo(() => hosts.map(({ name }) => [name, name]), [hosts]);
  const groups = ["phase", "account", "pool", ...(several ? ["host"] : [])].map((each) => [each, each]);
  const of = (key) => query.get(key) ?? "";
  // Nothing to choose between is nothing to show.
  const choice = (label, name, options) => (options.length > 1 || of(name)
    ? html`<${Choice} label=${label} name=${name} value=${of(name)} options=${options} all="all" />` : null);
  const filtered = ["q", "phase", "state", "account", "pool", "host"].some((key) => of(key));
  return html`<search class="filters">
    <div class="text"><input id="filter" type="search" autocomplete="off" spellcheck=${false}
      placeholder="Filter agents" aria-label="Filter agents by any word"
      value=${of("q")} data-testid="filter-text" onInput=${(event) => setQuery({ q: event.target.value })} />
      <kbd aria-hidden="true">/</kbd></div>
    ${choice("Account", "account", accounts)}
    ${choice("Pool", "pool", pools)}
    ${choice("Host", "host", names)}
    <${Choice} label="Group by" name="group" value=${of("group")} options=${groups} all="nothing" />
    <span class="sort-by">
      <${Choice} label="Sort by" name="sort" value=${of("sort")} options=${SORTS} all="Agent" /></span>
    <span class="shown"><span role="status">${filtered ? `${shown} of ${agents.length} shown` : ""}</span>
      ${filtered ? html` <button type="button" class="button quiet small" onClick=${clear} data-testid="clear-filter">
        Clear</button>` : null}</span>
  </search>`;
}
