// The form that moves agents to another account: whom and where to, a dry run that says of each what would come of it
// and what is in the way, then the move itself with its progress. It decides nothing: circusd's dry run does.

import { html, useState } from "../html.js";
import { post, under } from "../api.js";
import { confirmed, useCanAct } from "../actions.js";
import { Link, path } from "../router.js";
import { plain, told } from "../format.js";
import { PACE_SECS, forgetMoving, move, stopMoving, useMoving } from "./moving.js";
import { counted, useAgentsOf } from "./per_host.js";

const RUNS = ["up", "starting"];

// host: a name; accounts: as circusd tells them; from: the account whose agents are meant at first; onClose.
export function SwitchForm({ host, accounts, from, onClose }) {
  const agents = useAgentsOf(host).filter((view) => view.mode !== "observe");
  const can = useCanAct(host);
  const [who, setWho] = useState(from ? `account:${from}` : "chosen");
  const [names, setNames] = useState(() => new Set());
  const [to, setTo] = useState("");
  const [force, setForce] = useState(false);
  const [pace, setPace] = useState(PACE_SECS);
  const [preview, setPreview] = useState(null);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");
  const moving = useMoving();

  const pools = [...new Set(agents.map((one) => one.pool).filter(Boolean))].sort();
  const from_ = [...new Set(agents.map((one) => one.account).filter(Boolean))].sort();
  const meant = agents.filter((one) => who === "chosen" ? names.has(one.identity)
    : who.startsWith("pool:") ? one.pool === who.slice(5) : one.account === who.slice(8));
  const changed = (set) => (value) => {
    setPreview(null);
    setTrouble("");
    set(value);
  };

  const look = async (event) => {
    event.preventDefault();
    setBusy(true);
    setTrouble("");
    const asked = { names: meant.map((one) => one.identity), force, dry_run: true, ...(to ? { to } : {}) };
    try {
      setPreview(rows(await post(under("hosts", host, "verbs", "switch"), asked), agents));
    } catch (error) {
      // A dry run in which one would be refused is an error to a client; it has all verdicts all the same.
      if (error.answer?.agents) setPreview(rows(error.answer, agents));
      else setTrouble(plain(error.message));
    }
    setBusy(false);
  };

  const going = (preview ?? []).filter((one) => one.ok && !one.already);
  const begin = async () => {
    const running = going.filter((one) => RUNS.includes(one.phase)).length;
    const sure = await confirmed({
      title: `Switch ${counted(going.length, "agent")}?`,
      label: "Switch",
      danger: true,
      sentence: warning(running, going.length - running),
    });
    if (!sure) return;
    setPreview(null);
    const whom = going.map(({ identity, from: old, to: other, phase }) => ({ identity, from: old, to: other, phase }));
    move(host, whom, { force, pace });
  };

  if (can.hidden) return null;
  return html`<section class="switch-form card" aria-labelledby="switch-title" data-testid="switch-form">
    <header class="card-head"><h3 id="switch-title">Switch agents to another account</h3>
      <button type="button" class="button quiet" onClick=${onClose}>Close</button></header>
    ${moving && html`<${Progress} moving=${moving} />`}
    ${!moving?.running && html`<form onSubmit=${look}>
      <div class="form-row">
        <label class="field">Whom
          <select value=${who} data-testid="switch-who" onChange=${(event) => changed(setWho)(event.target.value)}>
            ${from_.map((name) => html`<option key=${name} value=${`account:${name}`}>all on account ${plain(name)}
              </option>`)}
            ${from && !from_.includes(from) && html`<option
              value=${`account:${from}`}>all on account ${plain(from)} (nobody)</option>`}
            ${pools.map((name) => html`<option key=${name} value=${`pool:${name}`}>all of pool ${plain(name)}
              </option>`)}
            <option value="chosen">chosen ones…</option>
          </select>
        </label>
        <label class="field">To
          <select value=${to} data-testid="switch-to" onChange=${(event) => changed(setTo)(event.target.value)}>
            <option value="">the best other account, for each</option>
            ${accounts.map((one) => html`<option key=${one.name} value=${one.name}>
              ${plain(one.name)} (${plain(one.runtime)}, ${plain(one.state)})</option>`)}
          </select>
        </label>
        <label class="field">Seconds between two
          <input type="number" min="0" max="86400" step="1" value=${pace}
            onInput=${(event) => setPace(Math.max(0, Number(event.target.value) || 0))} />
        </label>
        <label class="choice"><input type="checkbox" checked=${force}
          onChange=${(event) => changed(setForce)(event.target.checked)} />
          also where the account is limited, not logged in, or full</label>
      </div>
      ${who === "chosen" && html`<${Choose} agents=${agents} names=${names} onChange=${changed(setNames)} />`}
      <p class="form-end">
        <button type="submit" class="button primary" data-testid="switch-dry-run"
          disabled=${can.disabled || busy || meant.length === 0} title=${can.why || null}>
          ${busy ? "Looking…" : `See what would become of ${counted(meant.length, "agent")}`}</button>
        <span class="quiet"> Nothing is done yet.</span>
      </p>
    </form>`}
    ${trouble && html`<p class="trouble" role="alert">${trouble}</p>`}
    ${preview && html`<${Preview} host=${host} found=${preview} />
      <p class="form-end">
        <button type="button" class="button danger" data-testid="switch-begin"
          disabled=${can.disabled || going.length === 0} onClick=${begin}>
          Switch ${counted(going.length, "agent")}…</button>
        ${going.length < preview.length && html`<span
          class="quiet"> ${preview.length - going.length} of ${preview.length} would stay where they are.</span>`}
      </p>`}
  </section>`;
}

// What a switch does to those that run, and to those that do not.
function warning(running, resting) {
  const ended = running === 1 ? "1 agent that runs is ended, and resumes its conversation"
    : `${running} agents that run are ended one after another, and resume their conversations`;
  return `${running ? `${ended} on the other account; a turn that is cut off goes on there. ` : ""}`
    + `${resting ? `${counted(resting, "agent")} that ${resting === 1 ? "does" : "do"} not run: only the next launch is there.` : ""}`;
}

// The verdicts of a dry run, each with where the agent comes from.
function rows(answer, agents) {
  const known = new Map(agents.map((one) => [one.identity, one]));
  return answer.agents.map((verdict) => {
    const view = known.get(verdict.identity);
    return { ...verdict, from: view?.account ?? null, state: view?.state };
  });
}

function Choose({ agents, names, onChange }) {
  const [part, setPart] = useState("");
  const shown = agents.filter((one) => one.identity.includes(part.trim().toLowerCase()));
  const flip = (name) => {
    const next = new Set(names);
    if (!next.delete(name)) next.add(name);
    onChange(next);
  };
  return html`<fieldset class="choose">
    <legend>Agents <small>(${names.size} chosen)</small></legend>
    <label class="field"><span class="sr-only">Part of a name</span>
      <input type="search" placeholder="part of a name" autocomplete="off" value=${part}
        onInput=${(event) => setPart(event.target.value)} /></label>
    <div class="choose-list">
      ${shown.slice(0, 200).map((one) => html`<label key=${one.identity} class="choice">
        <input type="checkbox" checked=${names.has(one.identity)} onChange=${() => flip(one.identity)} />
        ${plain(one.identity)} <small>${plain(one.phase)}${one.account ? `, on ${plain(one.account)}`
          : ", no account"}</small></label>`)}
      ${shown.length > 200 && html`<p class="quiet">${shown.length - 200} more: type a part of the name.</p>`}
    </div>
  </fieldset>`;
}

// What a dry run says of each agent.
function Preview({ host, found }) {
  return html`<div class="table-room" aria-live="polite" data-testid="switch-preview"><table class="cards">
    <caption class="sr-only">What would become of each agent</caption>
    <thead><tr><th>Agent</th><th>From</th><th>To</th><th>Now</th><th>What would come of it</th></tr></thead>
    <tbody>${found.map((one) => html`<tr key=${one.identity} class=${one.ok ? "" : "refused-row"}
      data-testid=${`preview-${one.identity}`}>
      <td data-label="Agent"><${Link} href=${path("agents", host, one.identity)}>${plain(one.identity)}<//></td>
      <td data-label="From">${plain(one.from) || "–"}</td>
      <td data-label="To">${plain(one.to) || "–"}</td>
      <td data-label="Now">${plain(one.phase)}${one.state && one.phase === "up" ? `, ${plain(one.state)}` : ""}</td>
      <td data-label="What would come of it"><${Would} one=${one} /></td>
    </tr>`)}</tbody>
  </table></div>`;
}

function Would({ one }) {
  const why = one.hindrances?.length ? one.hindrances : one.ok ? [] : [one.reason];
  return html`
    ${one.already ? html`<span aria-hidden="true">= </span>nothing: it is there`
      : one.ok ? html`<span class="good"><span aria-hidden="true">✓ </span>
        ${RUNS.includes(one.phase) ? "ended, and resumed there" : "its next launch is there"}</span>`
      : html`<span class="bad"><span aria-hidden="true">✕ </span>stays: ${why.map(told).join("; ")}</span>`}
    ${one.considered?.some((each) => each.account) && html`<details><summary>why there</summary>
      <ul class="considered">${one.considered.filter((each) => each.account).map((each) => html`<li
        key=${each.account}>
        <b>${plain(each.account)}</b> ${each.account === one.to ? "(chosen) "
          : ""}${each.place === "free" ? "can be used" : plain(each.place)}: ${told(each.why)}</li>`)}</ul>
    </details>`}`;
}

const SYMBOL = { switched: "✓", "next-launch": "✓", already: "=", failed: "✕", refused: "✕", "not-begun": "–" };

const HOW = { "next-launch": "from the next launch on", already: "there already", "not-begun": "not begun" };

// How far a move is, agent by agent.
function Progress({ moving }) {
  const total = moving.rows.length;
  const done = moving.rows.filter((one) => one.how !== null).length;
  const counts = {};
  for (const { how } of moving.rows) if (how !== null) counts[how] = (counts[how] ?? 0) + 1;
  const said = Object.entries(counts).map(([how, number]) => `${number} ${HOW[how] ?? how}`).join(", ");
  return html`<div class="progress" data-testid="switch-progress">
    <p role="status">${moving.running ? `Switching: ${done} of ${total} done` : "Over"}${said
      && `: ${said}`}. ${moving.running && html`<small>It goes on while you look at other pages; keep this tab open.
      </small>`}</p>
    <progress max=${total} value=${done} aria-label="Agents done"></progress>
    <ul class="moves">${moving.rows.map((one) => html`<li key=${one.identity} class=${one.how ?? "waits"}>
      <span aria-hidden="true">${one.how === null ? (one.doing ? "…" : "·") : SYMBOL[one.how] ?? "?"}</span>
      <${Link} href=${path("agents", moving.host, one.identity)}>${plain(one.identity)}<//>
      <small>${plain(one.from) || "–"} → ${plain(one.to)}</small> <span>
        ${["failed", "refused"].includes(one.how) ? `${one.how}: ` : ""}${told(one.doing) || "waits for its turn"}</span>
    </li>`)}</ul>
    <p class="form-end">${moving.running
      ? html`<button type="button" class="button" disabled=${moving.stopping} onClick=${stopMoving}>
        ${moving.stopping ? "Stops after this one" : "Stop after this one"}</button>`
      : html`<button type="button" class="button" onClick=${forgetMoving}>Done</button>`}</p>
  </div>`;
}
