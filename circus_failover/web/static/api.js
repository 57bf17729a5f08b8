// The JSON API and who is signed in. Every request goes through here (but for what live.js reads for itself): one
// place for the CSRF header, for the shape of errors, and for noticing that the session has ended.

import { useCallback, useEffect, useLayoutEffect, useReducer, useRef, useState } from "./html.js";
import { csrf, keepCsrf, onOtherTab } from "./csrf.js";
import { on, reconnect } from "./live.js";

const BASE = "/api/v1";

// What the server said no to. `message` is a sentence for a person; `answer` is circusd's own answer when it
// refused a verb; `status` is 0 when the console itself could not be reached.
export class ApiError extends Error {
  constructor(status, message, { answer = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.answer = answer;
    this.retryAfter = retryAfter;
  }
}

// undefined: not known yet; null: nobody is signed in; else {role, who, expires_at, version, hosts}
let session;
const watchers = new Set();

function setSession(next) {
  if (session === next) return;
  session = next;
  for (const each of [...watchers]) each();
}

// The session: undefined while it is not known, null when nobody is signed in.
export function useSession() {
  const [, again] = useReducer((count) => count + 1, 0);
  useLayoutEffect(() => {
    watchers.add(again);
    return () => watchers.delete(again);
  }, []);
  return session;
}

// The address of something below /api/v1, its parts escaped: under("hosts", host, "agents", name).
export function under(...parts) {
  return "/" + parts.map(encodeURIComponent).join("/");
}

async function request(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = csrf();
  if (sent !== null) headers["X-CSRF-Token"] = sent;
  const address = path.startsWith(BASE) ? path : BASE + path;
  let response;
  try {
    response = await fetch(address, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin", cache: "no-store",
    });
  } catch {
    throw new ApiError(0, "The console does not answer.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  // The answer to a wrong token is no ended session, and one to a token that was replaced meanwhile neither.
  if (response.status === 401 && !address.startsWith(BASE + "/session") && sent === csrf()) setSession(null);
  const message = answer?.error ?? `The console answered ${response.status} ${response.statusText}`.trim() + ".";
  const after = Number(response.headers.get("Retry-After"));
  throw new ApiError(response.status, message, { answer: answer?.answer ?? null, retryAfter: after || null });
}

// Paths are below /api/v1 ("/hosts/local/accounts"). Each answers the JSON, or throws an ApiError.
export function get(path) {
  return request("GET", path);
}

export function post(path, body = {}) {
  return request("POST", path, body);
}

export function del(path) {
  return request("DELETE", path);
}

// Ask who is signed in. The console not answering leaves what was known.
export async function readSession() {
  const sent = csrf();
  if (sent === null) {
    setSession(null);
    return;
  }
  try {
    setSession(await get("/session"));
  } catch (error) {
    if (error.status !== 401) throw error;
    if (sent === csrf()) setSession(null);
  }
}

// Sign in with {token} or {code}; throws an ApiError.
export async function signIn(credentials) {
  const { csrf: token, ...who } = await post("/session", credentials);
  keepCsrf(token);
  reconnect();
  setSession(who);
}

export async function signOut() {
  try {
    await del("/session");
  } finally {
    keepCsrf(null);
    setSession(null);
  }
}

// Look again who is signed in; the console not answering is said by others.
function lookAgain() {
  readSession().catch(() => {});
}

// The server has told a page by the web socket that its session has ended (live.js has forgotten its token).
on("signed-out", lookAgain);

// A web socket that is refused looks to a page like a console that is gone.
on("closed", ({ opened }) => opened || lookAgain());

onOtherTab(() => {
  if (csrf() !== null) reconnect();
  lookAgain();
});

// What is at a path of the API, kept up to date: read at once, each `every` seconds (not while the page is
// hidden), and soon after live messages of the types in `on` (debounced by 300 ms). A path of null reads nothing.
// Answers {data, error, loading, stale, reload}: the last data stay while newer ones cannot be had (`stale`).
export function useResource(path, { every = 0, on: types = [] } = {}) {
  const [found, setFound] = useState({ path: null, data: null, error: null });
  const reading = useRef({ path: null, count: 0, timer: null });
  const wanted = types.join(" ");

  const reload = useCallback(async () => {
    if (path === null) return;
    const turn = ++reading.current.count;
    try {
      const data = await get(path);
      if (turn === reading.current.count) setFound({ path, data, error: null });
    } catch (error) {
      if (turn !== reading.current.count) return;
      setFound((before) => ({ path, data: before.path === path ? before.data : null, error }));
    }
  }, [path]);

  useEffect(() => {
    reload();
    const stops = [];
    if (path !== null) {
      if (every > 0) {
        const timer = setInterval(() => document.hidden || reload(), every * 1000);
        stops.push(() => clearInterval(timer));
        // A page that comes back shows nothing old for up to `every` seconds.
        const shown = () => document.hidden || reload();
        document.addEventListener("visibilitychange", shown);
        stops.push(() => document.removeEventListener("visibilitychange", shown));
      }
      let soon = null;
      const later = () => {
        soon ??= setTimeout(() => {
          soon = null;
          reload();
        }, 300);
      };
      for (const type of wanted ? wanted.split(" ") : []) stops.push(on(type, later));
      stops.push(() => clearTimeout(soon));
    }
    return () => {
      reading.current.count += 1;
      for (const stop of stops) stop();
    };
  }, [path, every, wanted, reload]);

  const ours = found.path === path;
  const data = ours ? found.data : null;
  const error = ours ? found.error : null;
  const loading = path !== null && data === null && error === null;
  return { data, error, loading, stale: data !== null && error !== null, reload };
}
