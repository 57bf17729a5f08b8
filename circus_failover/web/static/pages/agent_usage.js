// What an agent's process tree used in the last hour: cpu and memory, growing while it is looked at.

import { html, useEffect, useState } from "../html.js";
import { get, under } from "../api.js";
import { on } from "../live.js";
import { plain } from "../format.js";
import { Chart } from "../charts.js";

const MOST = 720; // samples: an hour of one each 5 s

export function AgentUsage({ host, name, local }) {
  const [data, setData] = useState(null);
  const [trouble, setTrouble] = useState("");

  useEffect(() => {
    if (!local) return undefined;
    let there = true;
    const read = async () => {
      try {
        const { at, cpu, rss } = await get(under("hosts", host, "agents", name, "usage"));
        if (there) setData({ at, cpu, rss });
      } catch (error) {
        if (there) setTrouble(plain(error.message));
      }
    };
    read();
    const stops = [
      on("usage", (message) => message.host === host && !document.hidden && setData((before) => grown(before, message, name))),
      on("hello", read),
    ];
    // No samples come to a hidden page.
    const visible = () => document.hidden || read();
    document.addEventListener("visibilitychange", visible);
    return () => {
      there = false;
      for (const stop of stops) stop();
      document.removeEventListener("visibilitychange", visible);
    };
  }, [host, name, local]);

  return html`<section class="card agent-usage" aria-labelledby="usage-title">
    <h2 id="usage-title">CPU and memory</h2>
    ${local ? null : html`<p class="quiet">Processes of another host are measured there only: its own console shows them.</p>`}
    ${trouble && data === null ? html`<p class="trouble">${trouble}</p>` : null}
    ${local && data !== null && data.at.length === 0 ? html`<p class="quiet">Nothing has been measured yet: a first figure comes within some seconds.</p>` : null}
    ${data !== null && data.at.length > 0 ? html`
      <${Chart} at=${data.at} series=${[{ label: "CPU", values: data.cpu, unit: "%" }]} height=${150} label="CPU of its processes, of one core" />
      <${Chart} at=${data.at} series=${[{ label: "Memory", values: data.rss, unit: "bytes" }]} height=${150} label="Memory of its processes" />` : null}
  </section>`;
}

// A message names only what changed: what it does not name is as it was.
function grown(before, { at, trees }, name) {
  if (before === null || (before.at.length > 0 && at <= before.at.at(-1))) return before;
  const now = name in trees ? trees[name] ?? [null, null] : [before.cpu.at(-1) ?? null, before.rss.at(-1) ?? null];
  if (before.at.length === 0 && now[0] === null) return before;
  const add = (values, value) => [...values.slice(1 - MOST), value];
  return { at: add(before.at, at), cpu: add(before.cpu, now[0]), rss: add(before.rss, now[1]) };
}
