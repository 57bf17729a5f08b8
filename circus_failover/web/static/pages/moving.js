// Moving agents to another account one after another, as `failoverctl switch` does: one message `switch` for each,
// paced, and no other one after three that failed in a row. It asks circusd only, which moves an agent wholly or
// leaves it on its account. What runs is of the browser's tab and not of one page: it goes on while somebody looks
// elsewhere, and ends after the agent under way when the tab is closed. Done again, it passes those that are there.

import { useLayoutEffect, useReducer } from "../html.js";
import { get, post, under } from "../api.js";
import { on } from "../live.js";
import { plain } from "../format.js";

export const PACE_SECS = 5;
const JITTER = 0.2; // by which part of the pace it may be sooner or later
const FAILURES = 3;
const LOOK_MS = 10000; // events may be lost: so often the agent is looked at anyway
const RUNS = ["up", "starting"];

let moving = null; // {host, force, pace, rows, running, stopping, waits}
const listeners = new Set();

function changed(next) {
  moving = next;
  for (const each of [...listeners]) each();
}

function row(identity, changes) {
  changed({ ...moving, rows: moving.rows.map((one) => (one.identity === identity ? { ...one, ...changes } : one)) });
}

// What is being moved, or was at last: {host, rows: [{identity, from, to, how, doing}], running, stopping, waits}; or
// null. `how` is null until there is a verdict: switched, next-launch, already, failed, refused, not-begun.
export function useMoving() {
  const [, again] = useReducer((count) => count + 1, 0);
  useLayoutEffect(() => {
    listeners.add(again);
    return () => listeners.delete(again);
  }, []);
  return moving;
}

// Take away what is over.
export function forgetMoving() {
  if (moving && !moving.running) changed(null);
}

// No other agent is begun; the one under way is carried through.
export function stopMoving() {
  if (moving?.running) {
    changed({ ...moving, stopping: true });
    wake();
  }
}

let wake = () => {};

function pause(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

function leaving(event) {
  event.preventDefault();
}

// Move agents. agents: [{identity, from, to, phase}] as the preview has found them; pace: seconds from one relaunch to
// the next. Resolves when it is over.
export async function move(host, agents, { force = false, pace = PACE_SECS } = {}) {
  if (moving?.running) return;
  changed({ host, force, pace, running: true, stopping: false, waits: null,
    rows: agents.map((one) => ({ ...one, how: null, doing: "" })) });
  addEventListener("beforeunload", leaving);
  let begun = null;
  let failures = 0;
  try {
    for (const agent of agents) {
      if (moving.stopping || failures >= FAILURES) {
        const why = failures >= FAILURES ? `not begun, since ${failures} in a row failed`
          : "not begun: it was stopped before";
        row(agent.identity, { how: "not-begun", doing: why });
        continue;
      }
      if (begun !== null && RUNS.includes(agent.phase)) {
        const left = begun + pace * 1000 * (1 - JITTER + Math.random() * 2 * JITTER) - Date.now();
        if (left > 0) {
          row(agent.identity, { doing: `begins in ${Math.ceil(left / 1000)} s` });
          await pause(left);
          if (moving.stopping) {
            row(agent.identity, { how: "not-begun", doing: "not begun: it was stopped before" });
            continue;
          }
        }
      }
      const start = Date.now();
      const verdict = await one(host, agent, force);
      row(agent.identity, verdict);
      if (["switched", "failed"].includes(verdict.how)) begun = start;
      failures = verdict.how === "failed" ? failures + 1 : 0;
    }
  } finally {
    removeEventListener("beforeunload", leaving);
    changed({ ...moving, running: false, stopping: false });
  }
}

// Have one agent moved, and return what came of it.
async function one(host, agent, force) {
  const { identity, to } = agent;
  row(identity, { doing: "asked" });
  // Listened to before it is asked: what happens in between is not missed.
  const seen = watch(host, identity, (view) => row(identity, { doing: said(view) }));
  try {
    let verdict;
    try {
      const answer = await post(under("hosts", host, "verbs", "switch"), { names: [identity], to, force });
      verdict = answer.agents?.[0] ?? {};
    } catch (error) {
      const told = error.answer?.agents?.[0];
      if (told === undefined && error.status !== 504) return { how: "refused", doing: plain(error.message) };
      // No answer in time is no refusal: what becomes of it is seen at the agent.
      verdict = told ?? { under_way: true, ok: true };
      if (told && !told.under_way) return { how: "under_way" in told ? "failed"
        : "refused", doing: plain(told.reason) };
    }
    if (verdict.already) return { how: "already", doing: `it was on ${plain(to)} already` };
    const view = verdict.under_way ? await seen.settled(to) : { ...verdict };
    const there = view.account === to;
    if (!there) return { how: "failed", doing: plain(view.reason) || `it is ${plain(view.phase)} on ${plain(view.account)}` };
    return RUNS.includes(view.phase)
      ? { how: "switched", doing: `${plain(view.phase)} on ${plain(to)}${view.generation ? `, launch ${view.generation}` : ""}` }
      : { how: "next-launch", doing: `it is ${plain(view.phase)}: its next launch is on ${plain(to)}` };
  } finally {
    seen.stop();
  }
}

function said(view) {
  return `${plain(view.phase)} on ${plain(view.account ?? "no account")}`;
}

// Follow an agent's view: `settled` resolves to it when nothing of a switch is under way any more.
function watch(host, identity, tell) {
  let latest = null;
  let await_ = null;
  const over = (view) => !view.switching_from && !["stopping", "starting"].includes(view.phase);
  const take = (view) => {
    if (!view) return;
    latest = view;
    tell(view);
    if (await_ !== null && over(view)) await_(view);
  };
  const of = (message) => message.host === host && take(message.agents.find((each) => each.identity === identity));
  const stops = [on("agents", of), on("fleet", of)];
  return {
    async settled() {
      const look = async () => {
        try {
          take((await get(under("hosts", host, "agents", identity))).agent);
        } catch {
          // circusd may be starting anew: it goes on with the switch, and so do we.
        }
      };
      const timer = setInterval(look, LOOK_MS);
      stops.push(() => clearInterval(timer));
      return new Promise((resolve) => {
        await_ = resolve;
        look();
      });
    },
    stop() {
      for (const each of stops) each();
    },
  };
}
