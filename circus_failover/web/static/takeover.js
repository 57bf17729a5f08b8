// Typing into an agent: only after somebody has taken over, and only for as long as they are there.
//
// Keys go to circusd in the order in which they were pressed, one request at a time; a text that is to arrive as a
// whole goes by `tell`, which sees that it does. Whatever makes it doubtful whom the keys would reach hands back.

import { useCallback, useEffect, useRef, useState } from "./html.js";
import { post, under } from "./api.js";
import { plain } from "./format.js";

export const GATHER_MS = 30; // keys that come together are sent together
const MOST = 1000; // characters of one request
export const LONELY_SECS = 300; // without a key for so long: handed back

// Keys on their way to one launch of an agent.
export class Keys {
  // send(text): a promise; refused(error): called when it rejects, after which what was not sent is forgotten.
  constructor(send, refused) {
    this.send = send;
    this.refused = refused;
    this.waiting = [];
    this.timer = null;
    this.sending = false;
    this.over = false;
  }

  press(text) {
    if (this.over || text === "") return;
    // A key's sequence is never cut in two; a long paste is, between two characters.
    for (const part of text.length > MOST ? pieces(text) : [text]) this.waiting.push(part);
    this.timer ??= setTimeout(() => this.flush(), GATHER_MS);
  }

  async flush() {
    this.timer = null;
    if (this.sending || this.over) return;
    this.sending = true;
    try {
      while (this.waiting.length > 0 && !this.over) {
        let text = this.waiting.shift();
        while (this.waiting.length > 0 && text.length + this.waiting[0].length <= MOST) text += this.waiting.shift();
        await this.send(text);
      }
    } catch (error) {
      // What comes after keys that did not arrive would mean something else.
      const lost = this.waiting.length;
      this.waiting = [];
      if (!this.over) this.refused(error, lost > 0);
    } finally {
      this.sending = false;
    }
  }

  // Nothing more is sent.
  end() {
    this.over = true;
    this.waiting = [];
    clearTimeout(this.timer);
  }
}

function pieces(text) {
  const found = [];
  let piece = "";
  for (const character of text) {
    if (piece.length + character.length > MOST) {
      found.push(piece);
      piece = "";
    }
    piece += character;
  }
  return [...found, piece];
}

/** Whether this reader types into an agent, and what ends it.
 *
 * @param {object} of host, name, generation (of the launch that runs), possible (whether keys could reach it), screen
 * @returns {{typing, why, trouble, take, back, press, stay}} `why`: what ended it the last time, in words, where it
 *   was not the reader; `trouble`: why the last keys did not arrive; take(); back(why); press(keys); stay(): somebody
 *   is there
 */
export function useTakeOver({ host, name, generation, possible, screen }) {
  const [typing, setTyping] = useState(null); // the generation that is typed into
  const [why, setWhy] = useState("");
  const [trouble, setTrouble] = useState("");
  const keys = useRef(null);
  const timer = useRef(null);

  const back = useCallback((reason = "") => {
    if (keys.current === null) return;
    keys.current.end();
    keys.current = null;
    clearTimeout(timer.current);
    screen?.typeInto(null);
    setTyping(null);
    setTrouble("");
    setWhy(reason);
  }, [screen]);

  const stay = useCallback(() => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => back(`handed back: no key for ${LONELY_SECS / 60} minutes`), LONELY_SECS * 1000);
  }, [back]);

  const press = useCallback((text) => {
    if (keys.current === null) return;
    setTrouble("");
    stay();
    keys.current.press(text);
  }, [stay]);

  const take = useCallback(() => {
    if (keys.current !== null || !possible) return;
    const send = (text) => post(under("hosts", host, "verbs", "keys"), { name, keys: text, generation });
    keys.current = new Keys(send, (error, more) => {
      const reason = plain(error.answer?.reason ?? error.message);
      setTrouble(`not typed: ${reason}${more ? "; what was pressed after it is forgotten" : ""}`);
    });
    setWhy("");
    setTyping(generation);
    stay();
    screen?.typeInto(press, () => back());
  }, [host, name, generation, possible, screen, press, stay, back]);

  // Another launch may be anything by now: what was meant for the last one is not for it.
  useEffect(() => {
    if (typing !== null && typing !== generation) back("handed back: another launch runs now");
    else if (typing !== null && !possible) back("handed back: nothing can be typed into it now");
  }, [typing, generation, possible, back]);

  useEffect(() => {
    const hidden = () => document.hidden && back("handed back: this page was out of sight");
    document.addEventListener("visibilitychange", hidden);
    addEventListener("pagehide", hidden);
    return () => {
      document.removeEventListener("visibilitychange", hidden);
      removeEventListener("pagehide", hidden);
    };
  }, [back]);

  // Another agent, or the page is left.
  useEffect(() => () => back(), [host, name, back]);

  return { typing: typing !== null, why, trouble, take, back, press, stay };
}
