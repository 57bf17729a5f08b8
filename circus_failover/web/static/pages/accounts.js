// Accounts: what is known of each, how much of its windows is left, when a limit resets, who runs on it, and who saw
// that; check, forget, and the move of agents to another account. Which form is open is in the address
// (?switch=HOST&from=ACCOUNT), as is the account that a link leads to (?account=).

import { html, useEffect, useRef } from "../html.js";
import { useResource, under } from "../api.js";
import { VerbButton, useCanAct, useVerb } from "../actions.js";
import { Link, path, setQuery } from "../router.js";
import { toast } from "../toast.js";
import { Ago, Until, When, full, now, plain } from "../format.js";
import { Bar } from "./bars.js";
import { SwitchForm } from "./switch.js";
import { forgetMoving, useMoving } from "./moving.js";
import { Facts, HostPart, Loaded, counted, useFresh, useShownHosts } from "./per_host.js";

const TIGHT = 0.1;
const LOW = 0.3; // from here on down what is left is shown as little, or as very little (as `failoverctl accounts`)
const STATES = {
  available: ["●", "good", "can be used"],
  limited: ["■", "bad", "at a limit"],
  credentials: ["✕", "bad", "not logged in"],
  overloaded: ["▲", "warn", "the service is busy"],
  unknown: ["?", "plain", "nothing is known of it"],
};

export default function Accounts({ query }) {
  const { hosts, several, unknown } = useShownHosts(query);
  return html`<div class="page accounts-page">
    <header class="page-head">
      <h1>Accounts</h1>
      <p class="quiet">What agents have learned of each, shared by all that use it.</p>
    </header>
    ${unknown && html`<p class="trouble">No host ${plain(unknown)} is known here.</p>`}
    ${hosts.map((host) => html`<${HostAccounts} key=${host.name} host=${host} several=${several} query=${query} />`)}
  </div>`;
}

function HostAccounts({ host, several, query }) {
  const resource = useResource(under("hosts", host.name, "accounts"), { every: 15 });
  useFresh(host.name, resource.reload);
  const can = useCanAct(host.name);
  const moving = useMoving();
  const open = query.get("switch") === host.name || moving?.host === host.name;
  const close = () => {
    forgetMoving();
    setQuery({ switch: null, from: null });
  };
  const openSwitch = (from) => setQuery({ switch: host.name, from });
  return html`<${HostPart} host=${host} several=${several}>
    <${Loaded} resource=${resource} what="accounts" host=${host}>${({ accounts }) => html`
      ${accounts.length === 0 && html`<p
        class="nothing">No account is configured: <code>accounts:</code> in failover.yaml names them.</p>`}
      ${open && html`<${SwitchForm} key=${query.get("from") ?? ""} host=${host.name} accounts=${accounts}
        from=${query.get("from")}
        onClose=${close} />`}
      ${!can.hidden && accounts.length > 0 && !open && html`<p><button type="button" class="button"
        data-testid="open-switch" disabled=${can.disabled} title=${can.why || null}
        onClick=${() => openSwitch(null)}>Switch agents…</button></p>`}
      <ul class="account-cards">
        ${accounts.map((one) => html`<${Account} key=${one.name} host=${host} one=${one} done=${resource.reload}
          onSwitch=${openSwitch} meant=${one.name === query.get("account")} />`)}
      </ul>`}
    <//>
  <//>`;
}

function Account({ host, one, done, onSwitch, meant }) {
  const element = useRef(null);
  useEffect(() => void (meant && element.current.scrollIntoView({ block: "center" })), [meant]);
  const [symbol, tone, says] = STATES[one.state] ?? STATES.unknown;
  const name = plain(one.name);
  return html`<li ref=${element} class=${`card account account-${one.state}${meant ? " meant" : ""}`} data-testid=${`account-${one.name}`}>
    <header class="card-head">
      <h3>${name} <small>${plain(one.runtime)}</small></h3>
      <span class=${`badge tone-${tone}`} title=${says}><span aria-hidden="true">${symbol} </span>
        ${plain(one.state)}${one.limit ? `: ${plain(one.limit)}` : ""}</span>
    </header>
    ${(one.state === "limited" || one.until) && html`<p class="countdown">${one.until
      ? html`resets <strong><${Until} at=${one.until} /></strong> <small title=${full(one.until)}>(<${When}
        at=${one.until} />)</small>`
      : html`resets at a time that is not known`}</p>`}
    ${one.state === "credentials" && html`<p class="trouble">A person has to log it in; then check it.</p>`}
    ${one.text && html`<p class="said">“${plain(one.text)}”</p>`}
    <${Windows} one=${one} />
    ${one.models.map((limit) => html`<p key=${limit.name}
      class="trouble">Model ${plain(limit.name)} is limited${limit.until ? html`, resets <${Until}
      at=${limit.until} />` : ""}.</p>`)}
    <${OnIt} host=${host.name} one=${one} />
    <${Facts} rows=${[
      ["state since", one.since && html`<${Ago} at=${one.since} />`],
      ["seen", one.seen_at && html`<${Ago} at=${one.seen_at} /> ${one.seen_by ? html`at <${Seen} host=${host.name}
        by=${one.seen_by} all=${[...one.running, ...one.agents]} />`
        : ""}${one.source ? ` (${plain(one.source)})` : ""}`],
      ["model answered", one.answered_at && html`<${Ago} at=${one.answered_at} />`],
      ["last launch on it", one.used_at && html`<${Ago} at=${one.used_at} />`],
    ]} />
    <${Buttons} host=${host.name} one=${one} done=${done} onSwitch=${onSwitch} />
  </li>`;
}

// Who saw it: an agent, which has a page, or a person.
function Seen({ host, by, all }) {
  return all.includes(by) ? html`<${Link} href=${path("agents", host, by)}>${plain(by)}<//>` : plain(by);
}

function toneOf(left) {
  return left <= TIGHT ? "bad" : left <= LOW ? "warn" : "good";
}

// How much of each window is left, as a client told.
function Windows({ one }) {
  if (one.usage.length === 0) {
    return one.headroom === null || one.headroom === undefined ? html`<p
      class="quiet">How much is left is not told.</p>`
      : html`<${Left} name="tightest" left=${one.headroom} />`;
  }
  return html`<div class="windows">${one.usage.map((use) => {
    // What was used of a window that has reset since is used no more.
    const over = use.resets_at !== null && use.resets_at <= now();
    return html`<${Left} key=${use.window} name=${plain(use.window)} left=${over ? null : Math.max(0, 1 - use.used)}
      use=${use} over=${over} />`;
  })}</div>`;
}

function Left({ name, left, use = null, over = false }) {
  const text = left === null ? (over ? "has reset since it was told"
    : "not known") : `${Math.round(left * 100)} % left`;
  return html`<div class="window">
    <span class="window-name">${name}</span>
    <${Bar} share=${left} tone=${left === null ? "plain" : toneOf(left)} label=${`${name}: ${text}`} />
    <span class="window-left">${text}</span>
    ${use && html`<small class="window-note">${use.resets_at && !over ? html`resets <${Until}
      at=${use.resets_at} />, ` : ""}told <${Ago} at=${use.at} /></small>`}
  </div>`;
}

function Names({ host, names }) {
  return names.map((name, index) => html`${index > 0 && ", "}<${Link} key=${name} href=${path("agents", host, name)}>
    ${plain(name)}<//>`);
}

// Who is up on it, and who would be launched on it the next time.
function OnIt({ host, one }) {
  const coming = one.agents.filter((name) => !one.running.includes(name));
  const leaving = one.running.filter((name) => !one.agents.includes(name));
  const full_ = one.max_agents !== null && one.running.length >= one.max_agents;
  return html`<div class="on-it">
    <p><b>${counted(one.running.length, "agent")}
      </b> running${one.max_agents === null ? "" : ` of at most ${one.max_agents}`}${full_ ? html` <span
      class="badge tone-warn">full</span>` : ""}${one.running.length ? ": " : ""}<${Names} host=${host}
      names=${one.running} /></p>
    ${coming.length > 0 && html`<p><b>${coming.length} more</b> will be launched on it: <${Names} host=${host}
      names=${coming} /></p>`}
    ${leaving.length > 0 && html`<p class="quiet">Next time on another account: <${Names} host=${host}
      names=${leaving} /></p>`}
  </div>`;
}

// The answer to a check is its result, in a sentence.
function Check({ host, one, done }) {
  const can = useCanAct(host);
  const run = useVerb();
  const check = async () => {
    const asked = { action: "check", names: [one.name] };
    const answer = await run(host, "accounts", asked, { what: `check ${plain(one.name)}`, quiet: true });
    if (answer !== null) toast(`${plain(one.name)}: ${answer.checked?.[one.name]?.text ?? "checked"}`);
    done();
  };
  return html`<button type="button" class="button" data-testid="verb-accounts" disabled=${can.disabled}
    onClick=${check}
    title=${can.why || "look by its files whether it is logged in"}>Check</button>`;
}

function Buttons({ host, one, done, onSwitch }) {
  const can = useCanAct(host);
  const name = plain(one.name);
  if (can.hidden) return null;
  return html`<div class="card-buttons">
    <${Check} host=${host} one=${one} done=${done} />
    <${VerbButton} host=${host} verb="accounts" properties=${{ action: "check", names: [one.name], accept: true }}
      label="Accept" what=${`take ${name} for logged in`}
      confirm=${`${name} is taken for logged in because you say so, also where no file can tell (a keychain, a key in a `
        + "helper): agents are launched on it again."}
        done=${done} />
    <${VerbButton} host=${host} verb="accounts" properties=${{ action: "forget", names: [one.name] }} label="Forget"
      what=${`forget what is known of ${name}`} danger
      confirm=${`All that is known of ${name} is dropped: its state, its limit and how much is left. It counts as `
        + "usable until a client says otherwise; agents may be launched on it."}
        done=${done} />
    <button type="button" class="button" onClick=${() => onSwitch(one.name)}
      disabled=${can.disabled || one.running.length + one.agents.length === 0} title=${can.why || null}>Switch its agents…</button>
  </div>`;
}
