// Deaths: what ended without anybody asking, by incident, on a line of time and as a list. Each incident opens in
// place: how it is known, who died with it and what those are now, and the snapshot of the host at that moment.
//
// What is shown is in the address: ?since= &agent= &cause= &open=KEY (the name of a snapshot file, else a key made
// of time and agent), so that a link to one incident can be passed on.

import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { useResource, under } from "../api.js";
import { VerbButton } from "../actions.js";
import { Link, path, setQuery } from "../router.js";
import { Ago, When, now, plain, span, told, when } from "../format.js";
import { Phase } from "./agent_words.js";
import { Mark, markOf } from "./bars.js";
import { Snapshot } from "./snapshot.js";
import { Facts, HostPart, Loaded, counted, useAgentsOf, useFresh, useShownHosts } from "./per_host.js";

const SINCE = "24h";
const RANGES = [
  ["1h", "last hour"], ["24h", "last 24 hours"], ["7d", "last 7 days"], ["30d", "last 30 days"], ["365d", "last year"],
];
const AT_FIRST = 100; // incidents in the list before more are asked for
const TOGETHER = 10; // seconds: deaths that are no further apart than this are shown as one wave
const WAVE = 3; // so many make one
const WRITING = 20; // seconds: a snapshot is written within 10 s of its record, or not at all (docs/canary.md)
const WAKEABLE = ["down", "parked"];

export default function Deaths({ query }) {
  const { hosts, several, unknown } = useShownHosts(query);
  const since = query.get("since") || SINCE;
  return html`<div class="page deaths-page">
    <header class="page-head">
      <h1>Deaths</h1>
      <p class="quiet">Servers and agents that ended without anybody asking.</p>
    </header>
    <${Filter} query=${query} since=${since} />
    ${unknown && html`<p class="trouble">No host ${plain(unknown)} is known here.</p>`}
    ${hosts.map((host) => html`<${HostDeaths} key=${host.name} host=${host} several=${several} since=${since}
      query=${query} />`)}
  </div>`;
}

function Filter({ query, since }) {
  const known = RANGES.some(([value]) => value === since);
  const typed = (event) => setQuery({ since: event.target.value.trim() || null, open: null });
  return html`<form class="filter" role="search" aria-label="Which deaths"
    onSubmit=${(event) => event.preventDefault()}>
    <label class="field">Since
      <select value=${known ? since : "other"} onChange=${(event) => event.target.value !== "other" && typed(event)}
        data-testid="since">
        ${RANGES.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}
        <option value="other">${known ? "another time…" : plain(since)}</option>
      </select>
    </label>
    <label class="field">or since when
      <input type="text" value=${known ? "" : since} placeholder="2h, 2026-11-21, 14:30" autocomplete="off"
        onChange=${typed} />
    </label>
    <label class="field">Agent
      <input type="search" value=${query.get("agent") ?? ""} placeholder="part of a name" autocomplete="off"
        data-testid="agent-filter"
        onInput=${(event) => setQuery({ agent: event.target.value.trim() || null })} />
    </label>
    ${query.get("cause") && html`<button type="button" class="button" onClick=${() => setQuery({ cause: null })}>
      Only ${plain(query.get("cause"))} <span aria-hidden="true">✕</span><span
        class="sr-only">: show every cause</span>
    </button>`}
  </form>`;
}

const ENDED = ["down", "held", "refused"];

// Whether a live message may be of a death: an agent that is down now, or one whose next launch has begun already.
function tellsOfEnd(message) {
  if (message.type === "fleet") return true;
  return message.type === "event" && (ENDED.includes(message.message?.phase) || message.message?.phase === "starting");
}

function HostDeaths({ host, several, since, query }) {
  // Records and snapshots are files of the host itself: no circusd tells them over its endpoint.
  const address = host.local === false ? null : `${under("hosts", host.name, "deaths")}?since=${encodeURIComponent(since)}`;
  const resource = useResource(address, { every: 15 });
  // What an agent does matters to no list of deaths.
  useFresh(host.name, resource.reload, { pause: 1000, wants: (message) => message.type === "host" || tellsOfEnd(message) });
  const { data, reload } = resource;
  const writing = data?.deaths.some((death) => death.forensics && !death.forensics_there && now() - death.at < WRITING);
  useEffect(() => {
    const timer = writing ? setTimeout(reload, 1500) : null;
    return () => clearTimeout(timer);
  }, [writing, data, reload]);
  return html`<${HostPart} host=${host} several=${several}>
    ${address === null
      ? html`<p class="quiet">The records of deaths are files of ${plain(host.name)}: a console that runs there shows them.</p>`
      : html`<${Loaded} resource=${resource} what="deaths" host=${host}>
          ${(data) => html`<${Incidents} host=${host} data=${data} query=${query} />`}
        <//>`}
  <//>`;
}

// What names an incident in the address of the page.
function keyOf(death) {
  if (death.forensics) return death.forensics.split("/").pop();
  const who = death.agents?.[0];
  return who ? `${who.identity}-${who.generation}` : `${death.what}-${death.server_pid}-${death.at}`;
}

function Incidents({ host, data, query }) {
  const [most, setMost] = useState(AT_FIRST);
  const open = query.get("open");
  const wanted = (query.get("agent") ?? "").toLowerCase();
  const cause = query.get("cause");
  const found = useMemo(() => {
    const all = data.deaths.map((death) => ({ ...death, key: keyOf(death) })).reverse();
    return wanted ? all.filter((death) => death.agents.some((one) => one.identity.includes(wanted))) : all;
  }, [data, wanted]);
  const shown = cause ? found.filter((death) => (death.cause ?? "unknown") === cause) : found;
  // The one that a link names is shown however far down it is.
  const count = Math.max(most, shown.findIndex((death) => death.key === open) + 1);
  const waves = useMemo(() => inWaves(shown.slice(0, count)), [shown, count]);
  return html`
    ${data.notes?.map((note) => html`<p key=${note} class="trouble">${plain(note)}</p>`)}
    <${Timeline} since=${data.since} deaths=${found} cause=${cause} />
    ${shown.length === 0 && html`<p class="nothing">No deaths ${found.length ? "of this cause " : ""}since <${When}
      at=${data.since} />.</p>`}
    <ol class="incidents" aria-label=${`Incidents on ${plain(host.name)}, the newest first`}>
      ${waves.map(({ wave, deaths }) => html`
        ${wave && html`<li key=${`wave-${deaths[0].key}`} class="wave">${wave}</li>`}
        ${deaths.map((death) => html`<${Incident} key=${death.key} host=${host} death=${death}
          open=${death.key === open} inWave=${wave !== null} />`)}`)}
    </ol>
    ${data.more > 0 && shown.length <= count && html`<p class="quiet">
      ${data.more} older ones are not shown: ask for a shorter time.</p>`}
    ${shown.length > count && html`<button type="button" class="button" onClick=${() => setMost(count + AT_FIRST)}>
      Show ${Math.min(AT_FIRST, shown.length - count)} more of ${shown.length}
    </button>`}`;
}

// Deaths (the newest first) by moment: many within seconds have most likely one reason.
function inWaves(deaths) {
  const waves = [];
  for (const death of deaths) {
    const last = waves[waves.length - 1];
    if (last && last[last.length - 1].at - death.at <= TOGETHER) last.push(death);
    else waves.push([death]);
  }
  return waves.map((wave) => {
    if (wave.length < WAVE) return { wave: null, deaths: wave };
    const agents = new Set(wave.flatMap((death) => death.agents.map((one) => one.identity))).size;
    const lasted = wave[0].at - wave[wave.length - 1].at;
    const time = lasted < 1 ? "a second" : span(lasted);
    return { wave: `${counted(wave.length, "death")} of ${counted(agents, "agent")} within ${time}`, deaths: wave };
  });
}

// --- the line of time ------------------------------------------------------------------------------------

const MARGIN = 40; // of the page, beside the line
const STEP = 15; // one mark, with its room
const HIGH = 6; // marks on top of one another before they are counted

function Timeline({ since, deaths, cause }) {
  const until = now();
  // About as wide as it is shown, so that marks are as large everywhere.
  const width = Math.min(1600, Math.max(280, document.documentElement.clientWidth - MARGIN));
  const bins = Math.floor(width / STEP);
  const size = Math.max(1, until - since) / bins;
  const counts = {};
  const columns = new Map();
  for (const death of deaths) {
    const word = death.cause ?? "unknown";
    counts[word] = (counts[word] ?? 0) + 1;
    const bin = Math.min(bins - 1, Math.max(0, Math.floor((death.at - since) / size)));
    if (!columns.has(bin)) columns.set(bin, []);
    columns.get(bin).push(word);
  }
  const causes = Object.keys(counts).sort((one, other) => counts[other] - counts[one]);
  const said = causes.map((word) => `${counts[word]} ${word}`).join(", ") || "none";
  const high = Math.min(HIGH, Math.max(2, ...[...columns.values()].map((column) => column.length)));
  const floor = high * STEP + 12;
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return html`<figure class="timeline">
    <svg viewBox=${`0 0 ${width} ${floor + 4}`} role="img"
      aria-label=${`${counted(deaths.length, "death")} since ${when(since)}: ${said}`}>
      ${ticks.map((part) => html`<line key=${part}
        class="tick" x1=${part * width} y1="10" x2=${part * width} y2=${floor + 4} />`)}
      <line class="floor" x1="0" y1=${floor} x2=${width} y2=${floor} />
      ${[...columns].map(([bin, words]) => html`<${Column} key=${bin} x=${bin * STEP + 2} floor=${floor}
        words=${words} cause=${cause} />`)}
    </svg>
    <div class="times" aria-hidden="true">${ticks.map((part) => html`<span key=${part}>
      ${when(since + part * (until - since))}</span>`)}</div>
    <figcaption>
      <ul class="legend">
        ${causes.map((word) => html`<li key=${word}>
          <button type="button" class="legend-entry" aria-pressed=${cause === word ? "true" : "false"}
            data-testid=${`cause-${word}`}
            onClick=${() => setQuery({ cause: cause === word ? null : word })}>
            <${Mark} cause=${word} /> ${plain(word)} <b>${counts[word]}</b>
          </button>
        </li>`)}
      </ul>
    </figcaption>
  </figure>`;
}

function Column({ x, floor, words, cause }) {
  const over = words.length > HIGH;
  const drawn = over ? words.slice(0, HIGH - 1) : words;
  return html`<g>
    ${drawn.map((word, index) => {
      const [d, tone] = markOf(word);
      return html`<path key=${index} class=${`mark tone-${tone}${cause && cause !== word ? " dimmed" : ""}`} d=${d}
        fill-rule="evenodd"
        transform=${`translate(${x} ${floor - 12 - index * STEP}) scale(1.1)`} />`;
    })}
    ${over && html`<text class="more" x=${x + 5} y=${floor - (HIGH - 1) * STEP - 3}
      text-anchor="middle">+${words.length - drawn.length}</text>`}
  </g>`;
}

// --- one incident ----------------------------------------------------------------------------------------

const NAMES = 3;

function whose(death) {
  const names = death.agents.map((one) => plain(one.identity));
  if (names.length === 0) return "nobody known";
  return names.length > NAMES ? `${names.slice(0, NAMES).join(", ")} and ${names.length - NAMES} more` : names.join(", ");
}

function endedBy(death) {
  if (death.signal_name) return plain(death.signal_name);
  return death.status === null || death.status === undefined ? null : `exit status ${death.status}`;
}

function Incident({ host, death, open, inWave }) {
  const element = useRef(null);
  const id = `incident-${death.key.replace(/[^A-Za-z0-9-]/g, "-")}`;
  useEffect(() => {
    // A link to an incident far down leads there; one that was opened by hand is in view already.
    const box = open && element.current?.getBoundingClientRect();
    if (box && (box.top < 0 || box.top > innerHeight)) element.current.scrollIntoView({ block: "start" });
  }, []);
  const ended = endedBy(death);
  return html`<li ref=${element} class=${`incident${open ? " open" : ""}${inWave ? " in-wave" : ""}`}
    data-testid="death-row" data-key=${death.key} data-row>
    <button type="button" class="incident-line" aria-expanded=${open ? "true" : "false"} aria-controls=${id}
      onClick=${() => setQuery({ open: open ? null : death.key })}>
      <span class="fold" aria-hidden="true">${open ? "▾" : "▸"}</span>
      <span class="incident-when"><${When} at=${death.at} /> <small><${Ago} at=${death.at} /></small></span>
      <span class="incident-cause"><${Mark}
        cause=${death.cause ?? "unknown"} /> ${plain(death.cause ?? "unknown")}</span>
      <span class="incident-who"><small>${death.what === "server" ? "server of" : "agent"}
        </small> ${whose(death)}</span>
      <span class="incident-end">${ended ?? "end unknown"}${death.taken_in === false
        ? html` <em>not taken in yet</em>` : ""}</span>
    </button>
    <div id=${id} class="incident-more" hidden=${!open}>${open && html`<${Details} host=${host}
      death=${death} />`}</div>
  </li>`;
}

const HOW = {
  "pidfd-info": "from the kernel, by a pidfd, once it was reaped",
  "proc-stat": "from /proc, while it was a zombie",
  none: "nobody told",
};

function Details({ host, death }) {
  const server = death.what === "server";
  const file = death.forensics?.split("/").pop();
  return html`
    <${Facts} rows=${[
      ["evidence", server && told(death.evidence)],
      ["ended by", endedBy(death)],
      ["known by", server && (HOW[death.how] ?? plain(death.how))],
      ["noticed", server && (death.detected === "live" ? "live: it was watched as it ended"
        : html`found gone later (post-factum)${death.last_seen ? html`; last seen alive <${When}
          at=${death.last_seen} />` : ""}`)],
      ["had been up", death.up !== null && span(death.up)],
      ["tmux server", server && html`pid ${death.server_pid} on <code>${plain(death.socket)}</code>`],
      ["in the store", death.taken_in === false && "not yet: circusd has still to take it in"],
    ]} />
    <h3>${death.agents.length > 1 ? `${death.agents.length} agents died with it` : death.agents.length ? "Who died"
      : "No agent is known to have died with it"}</h3>
    ${death.agents.length > 0 && html`<${Victims} host=${host} agents=${death.agents} />`}
    ${file && death.forensics_there && html`<${Snapshot} host=${host.name} file=${file} />`}
    ${file && !death.forensics_there && html`<p class="quiet">
      ${now() - death.at < WRITING ? "Its snapshot is being written." : html`Its snapshot <code>${plain(file)}
        </code> is not there (any more).`}
    </p>`}
    ${server && !file && html`<p class="quiet">No snapshot was taken: no canary watched it.</p>`}`;
}

function Victims({ host, agents }) {
  const views = useAgentsOf(host.name);
  const here = useMemo(() => new Map(views.map((view) => [view.identity, view])), [views]);
  return html`<div class="table-room"><table class="cards victims">
    <thead><tr><th>Agent</th><th>Launch</th><th>How it ended</th><th>Had been up</th><th>Its last output</th>
      <th>Now</th><th><span class="sr-only">Actions</span></th></tr></thead>
    <tbody>${agents.map((one) => html`<${Victim} key=${`${one.identity}-${one.generation}`} host=${host.name}
      one=${one} view=${here.get(one.identity)} />`)}</tbody>
  </table></div>`;
}

// How a launch ended, as the store has it.
function ended(launch) {
  const status = launch.exit_status === null ? null : `status ${launch.exit_status}`;
  const signal = launch.exit_signal === null ? null : `signal ${launch.exit_signal}`;
  return [launch.end_cause, status, signal].filter(Boolean).join(", ");
}

function Victim({ host, one, view }) {
  const launch = one.death;
  const known = launch && launch.ended_at !== null && launch.started_at !== null;
  const lasted = known ? span(launch.ended_at - (launch.up_at ?? launch.started_at)) : "–";
  const how = launch ? ended(launch) : "not recorded, or it had ended before";
  return html`<tr>
    <td data-label="Agent"><${Link} href=${path("agents", host, one.identity)}>${plain(one.identity)}<//></td>
    <td data-label="Launch">${one.generation}</td>
    <td data-label="How it ended">${plain(how)}${launch?.assignment
      ? html` <small>with assignment ${plain(launch.assignment)}</small>` : ""}</td>
    <td data-label="Had been up">${lasted}</td>
    <td data-label="Its last output">${launch?.last_output ? html`<code class="output">${plain(launch.last_output)}
      </code>` : "–"}</td>
    <td data-label="Now">${view ? html`<${Now} view=${view} than=${one.generation} />`
      : "not a supervised agent now"}</td>
    <td class="actions">${view && WAKEABLE.includes(view.phase) && html`<${VerbButton} host=${host} verb="wake"
      properties=${{ names: [one.identity] }}
      label="Wake" what=${`wake ${plain(one.identity)}`} />`}</td>
  </tr>`;
}

function Now({ view, than }) {
  const later = view.generation !== null && view.generation > than;
  const why = view.reason ? `: ${told(view.reason)}` : "";
  return html`<${Phase} agent=${view} />${later
    ? html` <small>launch ${view.generation}</small>` : ""}<small>${why}</small>`;
}
