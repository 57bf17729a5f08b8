// One agent as a row, or on a phone as a card. Rendered again only when one of its properties is another object.

import { html, memo, useLayoutEffect, useRef, useState } from "../html.js";
import { Link, path } from "../router.js";
import { Since, Until, full, plain, told } from "../format.js";
import { UsageLine } from "../sparkline.js";
import { onVisible } from "../visible.js";
import { runs } from "./fleet_order.js";
import { SYMBOLS } from "./agent_words.js";

export { SYMBOLS };

// What stands beside the phase: why it is not up, or what an agent that is up waits for.
function why(agent) {
  if (agent.reason) return told(agent.reason);
  if (runs(agent)) return told(agent.state_what ?? "");
  const cause = agent.cause ?? agent.last_cause ?? "";
  return cause === agent.phase ? "" : plain(cause);
}

// The buttons of a row are asked for when it is first seen: hundreds of them would hold up the first paint.
let actions = null;

function RowMenu({ agent }) {
  const cell = useRef(null);
  const [AgentActions, setActions] = useState(() => null);
  useLayoutEffect(() => {
    let here = true;
    const off = onVisible(cell.current, (visible) => {
      if (!visible) return;
      actions ??= import("../actions.js");
      actions.then((module) => here && setActions(() => module.AgentActions)).catch((error) => {
        actions = null;
        console.error(error);
      });
    });
    return () => {
      here = false;
      off();
    };
  }, []);
  return html`<span ref=${cell}>${AgentActions
    ? html`<${AgentActions} host=${agent.host} agent=${agent} compact />` : null}</span>`;
}

function text(value) {
  return value === null || value === undefined ? html`<span class="none">–</span>` : plain(value);
}

// A click anywhere on a row is one on its link. The link lies over the row, but not over what has a title to be
// shown to who points at it (console.css).
function follow(event) {
  if (event.target.closest("a, button, input, label") || !getSelection().isCollapsed) return;
  const { ctrlKey, metaKey, shiftKey } = event;
  const link = event.currentTarget.querySelector(".agent-link");
  link.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, ctrlKey, metaKey, shiftKey }));
}

// `place` is said by the first row of a part alone: what follows it counts on, and need not be rendered again.
export const Row = memo(({ agent, several, operator, selected, select, dimmed, place }) => {
  const { host, identity } = agent;
  const key = `${host}/${identity}`;
  const name = plain(identity);
  const live = runs(agent);
  const reason = why(agent);
  const fact = (value) => (value === null || value === undefined ? "fact nothing" : "fact");
  const state = live ? agent.state : null;
  const work = [
    agent.assignment ? `${plain(agent.assignment)}: ${plain(agent.assignment_state)}` : null,
    agent.tasks ? `${agent.tasks} ${agent.tasks === 1 ? "task waits" : "tasks wait"}` : null,
  ].filter(Boolean).join("; ") || null;
  const pool = agent.pool ? `, pool ${plain(agent.pool)}` : "";
  return html`<tr role="row" aria-rowindex=${place} data-row=${key} data-testid=${`agent-row-${identity}`} onClick=${follow}
      class=${`agent ${selected ? "selected" : ""} ${dimmed ? "unreachable" : ""}`}>
    <td role="cell" class="select">${operator ? html`<label>
      <input type="checkbox" checked=${selected} aria-label=${`Select ${name}`}
      onClick=${(event) => select(key, event.target.checked, event.shiftKey)} /></label>` : null}</td>
    <td role="rowheader" class="name" title=${`${name}${pool}`}>
      <${Link} class="agent-link" href=${path("agents", host, identity)}>${name}<//></td>
    <td role="cell" class="phase-cell" title=${reason || null}>
      <span class=${`phase phase-${agent.phase}`} data-testid=${`phase-${identity}`}>
        <span aria-hidden="true">${SYMBOLS[agent.phase] ?? "?"}</span>${" "}${plain(agent.phase)}</span>
      <span class="why">${reason}${agent.held_until ? html` · <${Until} at=${agent.held_until} />` : null}</span></td>
    <td role="cell" class=${`state-cell ${fact(state)}`} data-label="State"
      title=${live && agent.state_evidence ? told(agent.state_evidence) : null}>
      <span class=${`state state-${state ?? "none"}`}>${text(state)}</span></td>
    <td role="cell" class=${`assignment ${fact(agent.assignment ?? (agent.tasks || null))}`} data-label="Work" title=${work}>
      <span>${text(agent.assignment)}${agent.tasks ? html`<span class="tasks"> +${agent.tasks}</span>` : null}</span></td>
    <td role="cell" class=${`account ${fact(agent.account)}`} data-label="Account"
      title=${agent.limited_until ? `limited until ${full(agent.limited_until)}` : plain(agent.account)}>
      ${text(agent.account)}</td>
    <td role="cell" class="runtime fact" data-label="Runtime">${text(agent.runtime)}</td>
    ${several ? html`<td role="cell" class="host fact" data-label="Host">${plain(host)}</td>` : null}
    <td role="cell" class="generation fact right" data-label="Generation">${text(agent.generation)}</td>
    <td role="cell" class=${`up right ${live ? "" : "dim"} ${fact(agent.since)}`}
      data-label=${live ? "Up for" : `${plain(agent.phase)} for`}><${Since} at=${agent.since} /></td>
    <td role="cell" class=${`idle right ${fact(agent.last_activity)}`} data-label="Idle for">
      <${Since} at=${agent.last_activity} /></td>
    <td role="cell" class=${`cpu right ${live ? "fact" : "fact nothing"}`} data-label="CPU">
      ${live ? html`<${UsageLine} host=${host} name=${identity} kind="cpu" />` : text(null)}</td>
    <td role="cell" class=${`rss right ${live ? "fact" : "fact nothing"}`} data-label="Memory">
      ${live ? html`<${UsageLine} host=${host} name=${identity} kind="rss" />` : text(null)}</td>
    <td role="cell" class="menu">${operator ? html`<${RowMenu} agent=${agent} />` : null}</td>
  </tr>`;
});
