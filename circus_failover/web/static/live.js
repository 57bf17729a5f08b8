// The one web socket of a page, and what it has told: hosts, agents, watchers, usage. Components read from here
// by hooks; an object that did not change stays the same object, so what shows it need not be rendered again.
// Changes are handed on at most once a frame, however many messages come.
// It decides nothing and asks nothing of circusd: verbs go by api.js.

import { useLayoutEffect, useReducer } from "./html.js";
import { csrf, keepCsrf } from "./csrf.js";
import { setClock } from "./format.js";

export const SAMPLES = 60; // of usage kept for each tree, as many as the server is asked for
const FIRST_PAUSE = 500; // ms between attempts to connect, doubled up to the longest
const LONGEST_PAUSE = 10_000;
const SILENCE = 20_000; // ms after which an answer to a ping must have come

// --- who listens -----------------------------------------------------------------------------------------

const handlers = new Map(); // type of message -> Set of functions
const watching = new Map(); // key of what changed -> Set of functions
let changed = new Set();
let planned = false;

// Have fn(message) called for each message of a type, as it comes; "open" and "closed" tell of the connection
// ({opened}: whether it had been one). Returns what ends that.
export function on(type, fn) {
  if (!handlers.has(type)) handlers.set(type, new Set());
  handlers.get(type).add(fn);
  return () => handlers.get(type).delete(fn);
}

function tell(type, message) {
  for (const fn of [...(handlers.get(type) ?? [])]) fn(message);
}

function flush() {
  planned = false;
  const keys = changed;
  changed = new Set();
  for (const key of keys) for (const fn of [...(watching.get(key) ?? [])]) fn();
}

function mark(key) {
  changed.add(key);
  if (planned) return;
  planned = true;
  // A hidden page gets no frames, and nobody looks at it: it need not hurry.
  if (document.hidden) setTimeout(flush, 500);
  else requestAnimationFrame(flush);
}

// Have fn() called, once a frame at most, when what is known by the key changed. Returns what ends that.
function watch(key, fn) {
  if (!watching.has(key)) watching.set(key, new Set());
  const all = watching.get(key);
  all.add(fn);
  return () => {
    all.delete(fn);
    if (all.size === 0 && watching.get(key) === all) watching.delete(key);
  };
}

function useKnown(key, read) {
  const [, again] = useReducer((count) => count + 1, 0);
  const known = read();
  useLayoutEffect(() => {
    const off = watch(key, again);
    if (!Object.is(read(), known)) again(); // it changed between the render and this
    return off;
  }, [key]);
  return known;
}

// --- what is known ---------------------------------------------------------------------------------------

let hosts = []; // summaries, in the server's order
const agents = new Map(); // host -> Map of identity -> view
const watchersOf = new Map(); // host -> [watcher]
const usage = new Map(); // "host/name" -> {cpu, rss}
let everyone = []; // all agents of all hosts, made anew when one changed
let read = false; // whether the fleet of every reachable host has come
let connection = { console: false, why: "", since: Date.now() / 1000, first: true };
let about = { role: null, who: "", version: "" };

const NOTHING = Object.freeze({ cpu: Object.freeze([]), rss: Object.freeze([]) });

function same(one, other) {
  return one !== undefined && JSON.stringify(one) === JSON.stringify(other);
}

function takeAgents(host, views, removed, all) {
  const before = agents.get(host) ?? new Map();
  const after = all ? new Map() : before;
  let any = false;
  for (const view of views) {
    const next = { host, ...view };
    const known = before.get(view.identity);
    if (same(known, next)) {
      after.set(view.identity, known);
      continue;
    }
    after.set(view.identity, next);
    mark(`agent:${host}/${view.identity}`);
    any = true;
  }
  const gone = all ? [...before.keys()].filter((name) => !after.has(name)) : removed;
  for (const name of gone) {
    any = (all || after.delete(name)) || any;
    usage.delete(`${host}/${name}`);
    mark(`agent:${host}/${name}`);
  }
  agents.set(host, after);
  if (any || all) {
    everyone = hosts.flatMap(({ name }) => [...(agents.get(name)?.values() ?? [])]);
    mark("agents");
  }
}

function takeHosts(summaries) {
  hosts = summaries.map((summary) => {
    const known = hosts.find(({ name }) => name === summary.name);
    return same(known, summary) ? known : summary;
  });
  for (const name of [...agents.keys()]) {
    if (!hosts.some((host) => host.name === name)) {
      agents.delete(name);
      watchersOf.delete(name);
    }
  }
  mark("hosts");
}

function takeUsage(host, trees) {
  // What is not named stays as it was: its line goes on at the same height.
  const prefix = `${host}/`;
  for (const [key, kept] of usage) {
    if (!key.startsWith(prefix) || key.slice(prefix.length) in trees) continue;
    grow(kept.cpu, kept.cpu.at(-1) ?? null);
    grow(kept.rss, kept.rss.at(-1) ?? null);
    mark(`usage:${key}`);
  }
  for (const [name, now] of Object.entries(trees)) {
    const key = prefix + name;
    if (now === null) usage.delete(key);
    else {
      if (!usage.has(key)) usage.set(key, { cpu: [], rss: [] });
      grow(usage.get(key).cpu, now[0]);
      grow(usage.get(key).rss, now[1]);
    }
    mark(`usage:${key}`);
  }
  mark("usage");
}

function grow(values, value) {
  values.push(value);
  if (values.length > SAMPLES) values.shift();
}

// What was before this page was opened; a host that is not local has none.
async function readUsage(host) {
  const path = `/api/v1/hosts/${encodeURIComponent(host)}/usage?samples=${SAMPLES}`;
  try {
    const headers = { "X-CSRF-Token": csrf() ?? "" };
    const answer = await fetch(path, { headers, credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) return;
    const { trees } = await answer.json();
    for (const [name, { cpu, rss }] of Object.entries(trees)) {
      usage.set(`${host}/${name}`, { cpu: cpu.slice(-SAMPLES), rss: rss.slice(-SAMPLES) });
      mark(`usage:${host}/${name}`);
    }
    mark("usage");
  } catch {
    // The lines begin with the next sample instead.
  }
}

function take(message) {
  const { type, host } = message;
  if (type === "hello") {
    setClock(message.now);
    about = { role: message.role, who: message.who, version: message.version };
    takeHosts(message.hosts);
    mark("role");
    for (const { name, local } of message.hosts) if (local) readUsage(name);
    read = message.hosts.every(({ reachable }) => !reachable);
    mark("agents");
  } else if (type === "host") {
    const found = hosts.some(({ name }) => name === message.host.name);
    const next = hosts.map((each) => (each.name === message.host.name ? message.host : each));
    takeHosts(found ? next : [...hosts, message.host]);
  } else if (type === "fleet") {
    read = true;
    mark("hosts");
    takeAgents(host, message.agents, [], true);
  } else if (type === "agents") {
    takeAgents(host, message.agents, message.removed ?? [], false);
  } else if (type === "watchers") {
    const before = new Map((watchersOf.get(host) ?? []).map((each) => [each.name, each]));
    const next = message.watchers.map((each) => {
      const known = before.get(each.name);
      return same(known, each) ? known : each;
    });
    watchersOf.set(host, next);
    mark(`watchers:${host}`);
  } else if (type === "usage") {
    takeUsage(host, message.trees);
  } else if (type === "pong") {
    setClock(message.now);
  }
  tell(type, message);
}

// --- the web socket --------------------------------------------------------------------------------------

let socket = null;
let wanted = false;
let pause = FIRST_PAUSE;
let again = null; // the timer of the next attempt
let beat = null; // the timer that looks whether the other side is still there
let heard = 0;
let opened = false;

function setConnection(next) {
  if (next.console === connection.console && next.why === connection.why) return;
  connection = { ...next, since: Date.now() / 1000, first: false };
  mark("connection");
}

// Open the web socket, and again whenever it closes, until disconnect().
export function connect() {
  wanted = true;
  if (socket === null && again === null) open();
}

// Close it for good (signed out), and forget what was shown.
export function disconnect() {
  wanted = false;
  clearTimeout(again);
  again = null;
  pause = FIRST_PAUSE;
  clearInterval(beat);
  const old = socket;
  socket = null;
  old?.close();
  read = false;
  for (const each of [agents, watchersOf, usage]) each.clear();
  everyone = [];
  hosts = [];
  connection = { console: false, why: "", since: Date.now() / 1000, first: true };
  for (const key of ["agents", "hosts", "connection"]) mark(key);
}

// Open it anew, if it is wanted: somebody else may be signed in now.
export function reconnect() {
  if (!wanted) return;
  disconnect();
  connect();
}

function open() {
  again = null;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const token = csrf();
  // Of a web socket a page can set no header: the token is offered as a subprotocol.
  const protocols = token === null ? ["failover"] : ["failover", `csrf.${token}`];
  const ours = new WebSocket(`${scheme}//${location.host}/api/v1/live`, protocols);
  socket = ours;
  opened = false;
  ours.onopen = () => {
    if (ours !== socket) return;
    opened = true;
    pause = FIRST_PAUSE;
    heard = Date.now();
    setConnection({ console: true, why: "" });
    if (document.hidden) send({ do: "usage", on: false });
    clearInterval(beat);
    beat = setInterval(look, SILENCE / 2);
    tell("open", {});
  };
  ours.onmessage = (event) => {
    if (ours !== socket) return;
    heard = Date.now();
    const message = JSON.parse(event.data);
    if (message.type === "signed-out" && token === csrf()) keepCsrf(null);
    take(message);
  };
  ours.onclose = () => {
    if (ours === socket) closed();
  };
}

function closed() {
  socket = null;
  clearInterval(beat);
  if (!wanted) return;
  setConnection({ console: false, why: "The console does not answer." });
  tell("closed", { opened });
  again = setTimeout(open, pause);
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

// A network that went away closes nothing: a console that does not answer a ping counts as gone.
function look() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  if (Date.now() - heard > SILENCE * 1.5) {
    const silent = socket;
    closed();
    silent.close();
  } else send({ do: "ping" });
}

// Send a message to the console; one that cannot be sent now is lost (watch "open" to send it again).
export function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

// Try at once instead of after the pause: the network is back, or somebody looks again.
function hurry() {
  if (again === null || !wanted) return;
  clearTimeout(again);
  pause = FIRST_PAUSE;
  open();
}

addEventListener("online", hurry);
document.addEventListener("visibilitychange", () => {
  send({ do: "usage", on: !document.hidden });
  if (document.hidden) return;
  heard = Math.max(heard, Date.now() - SILENCE); // timers of a hidden page are late: it is asked before it is judged
  look();
  hurry();
  // What went by while the page was hidden.
  for (const { name, local } of hosts) if (local) readUsage(name);
});

// --- hooks -----------------------------------------------------------------------------------------------

// [{name, endpoint, reachable, since, why, local, version, pid, trouble, agents}]
export function useHosts() {
  return useKnown("hosts", () => hosts);
}

export function useHost(name) {
  return useHosts().find((host) => host.name === name) ?? null;
}

// Every agent of every host, [{host, ...view}]: the same array until one changed.
export function useAgents() {
  return useKnown("agents", () => everyone);
}

// Whether the agents have been read: an empty fleet is told apart from one that has not come yet.
export function useFleetRead() {
  return useKnown("agents", () => read);
}

// One agent's view, or null when there is none of that name.
export function useAgent(host, name) {
  return useKnown(`agent:${host}/${name}`, () => agents.get(host)?.get(name) ?? null);
}

const NONE = Object.freeze([]);

export function useWatchers(host) {
  return useKnown(`watchers:${host}`, () => watchersOf.get(host) ?? NONE);
}

// "operator" or "viewer"; null before the console has said it.
export function useRole() {
  return useKnown("role", () => about.role);
}

// {role, who, version} as the console said.
export function useAbout() {
  return useKnown("role", () => about);
}

// {console: whether the web socket is up, why, since, first: whether it has never been up, hosts}
export function useConnection() {
  const all = useKnown("hosts", () => hosts);
  return { ...useKnown("connection", () => connection), hosts: all };
}

// The newest samples of a process tree, oldest first: {cpu: [per cent of a core], rss: [bytes]}. They are changed in place.
export function usageOf(host, name) {
  return usage.get(`${host}/${name}`) ?? NOTHING;
}

// Have fn() called when a sample of it has come (not more than once a frame). Returns what ends that.
export function watchUsage(host, name, fn) {
  return watch(`usage:${host}/${name}`, fn);
}

// Have fn() called when any sample has come.
export function watchAllUsage(fn) {
  return watch("usage", fn);
}
