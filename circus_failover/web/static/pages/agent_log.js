// The decision log of an agent: each decision with its evidence, the newest first.

import { html, useMemo, useState } from "../html.js";
import { Ago, When, plain, told } from "../format.js";
import { Phase } from "./agent_words.js";

const SHOWN = ["at", "generation", "ev", "phase"]; // have columns of their own

/** The log.
 *
 * @param {object} props resource: of `history`; more: reads further back, or null when there is no more
 */
export function Decisions({ resource, more }) {
  const [filter, setFilter] = useState("");
  const entries = resource.data?.history ?? [];
  const prepared = useMemo(() => entries.map((entry, index) => ({ entry, key: `${entry.at}-${entry.ev}-${index}`, details: detailsOf(entry) })), [entries]);
  const wanted = filter.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const found = prepared.filter(({ entry, details }) => {
    const text = `${entry.ev} ${entry.phase ?? ""} ${entry.generation ?? ""} ${details.map(([name, value]) => `${name}=${value}`).join(" ")}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  return html`<section class="card decisions" aria-labelledby="decisions-title">
    <header class="card-head"><h2 id="decisions-title">Decisions</h2>
      <label class="filter"><span class="sr-only">Filter the decisions</span>
        <input type="search" placeholder="filter: switch, cause=parked …" value=${filter} data-testid="decision-filter" onInput=${(event) => setFilter(event.target.value)} /></label>
    </header>
    ${resource.error ? html`<p class="trouble">${resource.data ? "This is old: " : ""}${plain(resource.error.message)}</p>` : null}
    ${resource.loading ? html`<p class="quiet">Reading …</p>` : null}
    ${resource.data && entries.length === 0 ? html`<p class="quiet">Nothing happened yet.</p>` : null}
    ${found.length > 0 ? html`<div class="table-room"><table class="decisions-table">
      <caption class="sr-only">Decisions, the newest first</caption>
      <thead><tr><th scope="col">When</th><th scope="col">Launch</th><th scope="col">Event</th><th scope="col">Phase</th><th scope="col">By what</th></tr></thead>
      <tbody>${found.map(({ entry, key, details }) => html`<${Decision} key=${key} entry=${entry} details=${details} />`)}</tbody>
    </table></div>` : null}
    ${entries.length > 0 && found.length === 0 ? html`<p class="quiet">None of the ${entries.length} that were read has that.</p>` : null}
    <p class="decisions-end" role="status">${filter ? `${found.length} of ${entries.length} shown` : ""}
      ${more ? html`<button type="button" class="button quiet" data-testid="more-decisions" onClick=${more}>Earlier ones</button>` : null}</p>
  </section>`;
}

function Decision({ entry, details }) {
  return html`<tr data-testid="decision">
    <td data-label="When"><${When} at=${entry.at} /> <span class="quiet small"><${Ago} at=${entry.at} /></span></td>
    <td data-label="Launch" class="number">${entry.generation || "–"}</td>
    <td data-label="Event"><b>${plain(entry.ev)}</b></td>
    <td data-label="Phase">${entry.phase ? html`<${Phase} phase=${entry.phase} />` : "–"}</td>
    <td data-label="By what">${details.map(([name, value]) => html`<span key=${name} class="detail"><span class="detail-name">${name}</span> ${value}</span>`)}</td>
  </tr>`;
}

function detailsOf(entry) {
  return Object.entries(entry)
    .filter(([name, value]) => !SHOWN.includes(name) && value !== null && value !== "")
    .map(([name, value]) => [plain(name), told(typeof value === "object" ? JSON.stringify(value) : value)]);
}
