// An agent's phase and state as they are shown: always a word, with a symbol and a colour beside it.

import { html } from "../html.js";
import { plain } from "../format.js";

export const SYMBOLS = {
  up: "●", starting: "◔", stopping: "◑", parked: "◫", down: "○", held: "▲", refused: "⊘", stopped: "■", observed: "◉",
};

// The phase of an agent, which a test can find; or one that a record names.
export function Phase({ agent = null, phase = agent.phase }) {
  return html`<span class=${`phase phase-${phase}`} data-testid=${agent ? `phase-${agent.identity}` : null}>
    <span aria-hidden="true">${SYMBOLS[phase] ?? "?"}</span> ${plain(phase)}</span>`;
}

export function State({ agent }) {
  if (!agent.state) return "–";
  return html`<span class=${`state state-${agent.state}`}>${plain(agent.state)}${agent.state_what ? `: ${plain(agent.state_what)}` : ""}</span>`;
}
