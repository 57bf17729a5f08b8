// How times, sizes and texts are written. Times are in the reader's zone and language; ages count by the
// server's clock, so that a reader whose clock is wrong still reads right ages.

import { html, useLayoutEffect, useRef } from "./html.js";
import { onVisible } from "./visible.js";

let ahead = 0; // seconds that the server's clock is ahead of the reader's

// The server's clock, as a message that has just come tells it.
export function setClock(serverNow) {
  ahead = serverNow - Date.now() / 1000;
}

// Epoch seconds by the server's clock.
export function now() {
  return Date.now() / 1000 + ahead;
}

// A length of time in seconds, in at most two units: "4 s", "3 min", "2 h 05", "6 d 4 h". Unknown is "–".
export function span(secs) {
  if (secs === null || secs === undefined || Number.isNaN(secs)) return "–";
  const whole = Math.max(0, Math.floor(secs));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")}`;
  const days = Math.floor(hours / 24);
  return days < 100 ? `${days} d ${hours % 24} h` : `${days} d`;
}

// How long ago a time is ("3 min ago"), "just now" within five seconds.
export function ago(epoch) {
  if (epoch === null || epoch === undefined) return "–";
  const secs = now() - epoch;
  return secs < 5 ? "just now" : `${span(secs)} ago`;
}

const clockOnly = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
});
const everything = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

// A time in full, with day and zone; "" when there is none.
export function full(epoch) {
  return epoch === null || epoch === undefined ? "" : everything.format(epoch * 1000);
}

// A time as short as it can be understood today: the clock, with the day when it is another one.
export function when(epoch) {
  if (epoch === null || epoch === undefined) return "–";
  const at = new Date(epoch * 1000);
  const same = at.toDateString() === new Date(now() * 1000).toDateString();
  return (same ? clockOnly : dayAndClock).format(at);
}

// Bytes as "312 MB"; unknown is "–".
export function bytes(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = n;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toPrecision(2)} ${units[unit]}`;
}

// Per cent of one core: "3 %", one digit behind the point below 10.
export function percent(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  return `${n >= 9.95 || n === 0 ? Math.round(n) : n.toFixed(1)} %`;
}

// A text from outside as one line for a person: control characters, and those that turn the direction of what
// follows, become visible or go.
export function plain(text) {
  if (text === null || text === undefined) return "";
  return String(text)
    // eslint-disable-next-line no-control-regex
    .replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ")
    .replace(/[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "\ufffd")
    .trim();
}

// Times as circusd and its plugins write them into their sentences: ISO, always in UTC.
const STAMP = /(?<![\w/-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z(?!\w)/g;

// A sentence from outside (a reason, evidence, a note) as plain() makes it, with the times in it in the reader's zone.
export function told(text) {
  return plain(text).replace(STAMP, (stamp) => {
    const at = Date.parse(stamp);
    return Number.isNaN(at) ? stamp : when(at / 1000);
  });
}

// --- ages that count -------------------------------------------------------------------------------------
// One timer for all of them, and only those in view are touched: their text node, without a render.

const ticking = new Set();
let timer = null;

function tick() {
  for (const each of ticking) each();
}

function wind() {
  const wanted = ticking.size > 0 && !document.hidden;
  if (wanted && timer === null) timer = setInterval(tick, 1000);
  if (!wanted && timer !== null) {
    clearInterval(timer);
    timer = null;
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tick();
  wind();
});

function Counting({ at, say, ...rest }) {
  const element = useRef(null);
  // Kept in a ref, so that a new time needs no new registration with the observer.
  const write = useRef(null);
  write.current = () => {
    const text = say(at);
    const node = element.current;
    if (node !== null && node.textContent !== text) node.textContent = text;
  };
  useLayoutEffect(() => {
    write.current();
  });
  useLayoutEffect(() => {
    const each = () => write.current();
    const off = onVisible(element.current, (visible) => {
      if (visible) {
        each();
        ticking.add(each);
      } else ticking.delete(each);
      wind();
    });
    return () => {
      off();
      ticking.delete(each);
      wind();
    };
  }, []);
  if (at === null || at === undefined) return html`<span class="none" ref=${element} ...${rest}></span>`;
  const title = full(at);
  return html`<time ref=${element} datetime=${new Date(at * 1000).toISOString()} title=${title} ...${rest}></time>`;
}

const sayAgo = (at) => ago(at);
const saySpan = (at) => (at === null || at === undefined ? "–" : span(now() - at));
const sayUntil = (at) => {
  if (at === null || at === undefined) return "–";
  const left = at - now();
  return left <= 0 ? "now" : `in ${span(left)}`;
};

// "3 min ago", counting on.
export function Ago({ at, ...rest }) {
  return html`<${Counting} key=${at == null} at=${at} say=${sayAgo} ...${rest} />`;
}

// How long something has lasted since `at`: "3 min", counting on.
export function Since({ at, ...rest }) {
  return html`<${Counting} key=${at == null} at=${at} say=${saySpan} ...${rest} />`;
}

// "in 2 h 05", counting down to "now".
export function Until({ at, ...rest }) {
  return html`<${Counting} key=${at == null} at=${at} say=${sayUntil} ...${rest} />`;
}

// A time in the reader's zone; in full when pointed at.
export function When({ at, ...rest }) {
  if (at === null || at === undefined) return html`<span class="none" ...${rest}>–</span>`;
  const iso = new Date(at * 1000).toISOString();
  return html`<time datetime=${iso} title=${full(at)} ...${rest}>${when(at)}</time>`;
}
