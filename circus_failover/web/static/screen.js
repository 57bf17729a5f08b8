// A terminal's screen: xterm.js that paints the frames of the console's web socket. It knows nothing of agents, and
// what is typed into it goes to one function, and only while that is there.
//
// A frame has every visible row and the rows that have scrolled away since the one before; only rows that changed
// are painted.

const HISTORY = 5000; // rows that can be scrolled back to
const LEAST_FONT = 5;
const MOST_FONT = 16;
const READABLE_FONT = 13;
const BAR = 14; // px of the scroll bar, which lies over the last columns otherwise (xterm.js 6.0.0)
const FONT = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace';

const DARK = {
  background: "#11151c", foreground: "#d7dce3", cursor: "#f2c14e", cursorAccent: "#11151c",
  selectionBackground: "#3c5a86",
  black: "#1d2229", red: "#e5646b", green: "#7fbf6a", yellow: "#dcae55", blue: "#6ca4f0", magenta: "#c785dd",
  cyan: "#5cbcc4", white: "#c9ced6", brightBlack: "#7a8493", brightRed: "#ff8a8f", brightGreen: "#a2dc8d",
  brightYellow: "#f4cf7d", brightBlue: "#97c1ff", brightMagenta: "#e2aaf3", brightCyan: "#8adde3",
  brightWhite: "#ffffff",
};
const LIGHT = {
  background: "#fbfbfc", foreground: "#23272e", cursor: "#a85b00", cursorAccent: "#fbfbfc",
  selectionBackground: "#b8d4fb",
  black: "#23272e", red: "#b3232b", green: "#2c6e1f", yellow: "#7d5a00", blue: "#1c55b3", magenta: "#8a2ea6",
  cyan: "#0d6a74", white: "#5a626e", brightBlack: "#4d5560", brightRed: "#c4282f", brightGreen: "#2f7a1f",
  brightYellow: "#8a6200", brightBlue: "#1f5fd0", brightMagenta: "#9c35bb", brightCyan: "#0f7480",
  brightWhite: "#3b424c",
};
const LIGHT_CONTRAST = 4.5; // programs in a terminal mostly take its background for dark

// What a row may have beside characters: colours and attributes. The server lets nothing else through; a row is
// printed by any program, so it is looked at here too.
// eslint-disable-next-line no-control-regex
const CONTROLS = /\u001b\[[0-9;:]*m|[\u0000-\u001f\u007f-\u009f]/g;

function harmless(row) {
  return row.replace(CONTROLS, (found) => (found.length > 2 ? found : ""));
}

// --- how many columns a character takes --------------------------------------------------------------------
// xterm.js counts as Unicode 6 did, where an emoji is one column wide; tmux, whose columns these are, counts two.

const WIDE = [
  [0x1100, 0x115f], [0x2329, 0x232a], [0x2e80, 0x303e], [0x3041, 0xa4cf], [0xa960, 0xa97c], [0xac00, 0xd7a3],
  [0xf900, 0xfaff], [0xfe10, 0xfe19], [0xfe30, 0xfe6f], [0xff01, 0xff60], [0xffe0, 0xffe6], [0x20000, 0x3fffd],
];
const widths = new Map();

function width(codepoint) {
  if (codepoint < 0x300) return codepoint < 32 || (codepoint >= 0x7f && codepoint < 0xa0) ? 0 : 1;
  let known = widths.get(codepoint);
  if (known === undefined) {
    const text = String.fromCodePoint(codepoint);
    if (/^[\p{Mn}\p{Me}\p{Cf}]$/u.test(text)) known = 0;
    else if (/^\p{Emoji_Presentation}$/u.test(text)) known = 2;
    else known = WIDE.some(([first, last]) => codepoint >= first && codepoint <= last) ? 2 : 1;
    widths.set(codepoint, known);
  }
  return known;
}

const COLUMNS = {
  version: "tmux",
  wcwidth: width,
  // As xterm.js packs it: what joins the character before takes that one's width.
  charProperties(codepoint, before) {
    const widthBefore = (before >> 1) & 3;
    const own = width(codepoint);
    const joins = own === 0 && before !== 0 && widthBefore !== 0;
    return (Math.max(own, joins ? widthBefore : 0) << 1) | (joins ? 1 : 0);
  },
};

// --- the screen ---------------------------------------------------------------------------------------------

let loaded = null;

function load() {
  loaded ??= import("./vendor/xterm.mjs");
  return loaded;
}

/** Open a screen in an element.
 *
 * @param {HTMLElement} element where; its width is what the screen has to fit into
 * @param {{dark: boolean, label: string}} options the theme; what a screen reader calls it
 */
export async function openScreen(element, options) {
  const { Terminal } = await load();
  return new Screen(Terminal, element, options);
}

class Screen {
  constructor(Terminal, element, { dark, label }) {
    this.element = element;
    this.frame = null;
    this.readable = false; // text of a size to be read, which may be wider than the box
    this.typed = null;
    this.next = null; // the frame that comes after the one that is being painted
    this.painting = false;
    this.closed = false;
    this.painted = []; // the rows as they are on the screen; null: unknown
    this.heard = () => {};
    this.term = new Terminal({
      allowProposedApi: true, disableStdin: true, scrollback: HISTORY,
      fontFamily: FONT, fontSize: READABLE_FONT, cursorBlink: false, cursorInactiveStyle: "outline",
      scrollOnUserInput: true, macOptionIsMeta: true, logLevel: "off", ...looks(dark),
    });
    this.term.unicode.register(COLUMNS);
    this.term.unicode.activeVersion = COLUMNS.version;
    this.term.open(element);
    this.term.textarea.setAttribute("aria-label", label);
    this.term.attachCustomKeyEventHandler((event) => this.key(event));
    this.term.onData((text) => this.typed?.(text));
    this.term.onBinary((text) => this.typed?.(text));
  }

  // While nobody types, keys are the page's: Tab goes on, and the screen only scrolls.
  key(event) {
    if (this.typed !== null) {
      // The way out for a keyboard, of which everything else goes to the agent.
      if (event.type === "keydown" && event.ctrlKey && event.key === "]") {
        event.preventDefault();
        this.heard("hand-back");
        return false;
      }
      // Else the browser would lose what is selected to copy.
      if (event.ctrlKey && event.key.toLowerCase() === "c" && this.term.hasSelection()) return false;
      return true;
    }
    const by = { PageUp: -1, PageDown: 1 }[event.key];
    if (event.type === "keydown" && by !== undefined && !event.ctrlKey && !event.altKey && !event.metaKey) {
      this.term.scrollPages(by);
      event.preventDefault();
    }
    return false;
  }

  /** Send what is typed to a function, or nowhere (null); `out` is called when Ctrl+] asks for the end of it. */
  typeInto(typed, out = () => {}) {
    this.typed = typed;
    this.heard = out;
    this.term.options.disableStdin = typed === null;
    if (typed === null) this.term.blur();
    else this.term.focus();
  }

  /** Paint a frame; frames that come faster than they are painted are painted together. */
  paint(frame) {
    this.next = this.next === null ? frame : together(this.next, frame);
    if (!this.painting) this.paintNext();
  }

  async paintNext() {
    this.painting = true;
    // What is written is taken in later: nothing else may happen to the terminal until it is.
    while (this.next !== null && !this.closed) {
      const frame = this.next;
      this.next = null;
      const other = this.frame === null || this.frame.cols !== frame.cols || this.frame.rows !== frame.rows;
      if (frame.reset || other) {
        this.term.reset();
        this.painted = [];
      }
      if (other) this.term.resize(frame.cols, frame.rows);
      this.frame = frame;
      if (other) this.fit();
      await new Promise((done) => this.term.write(this.strokes(frame), done));
    }
    this.painting = false;
  }

  // The text that makes the screen what the frame says. Rows do not wrap: a row is a row, however wide.
  strokes(frame) {
    const parts = ["\u001b[?25l\u001b[?7l\u001b[0m"];
    for (const row of frame.scrolled) {
      // What leaves the screen at its top goes into what can be scrolled back to.
      if (this.painted[0] !== row) parts.push(`\u001b[1;1H\u001b[2K${harmless(row)}\u001b[0m`);
      parts.push(`\u001b[${frame.rows};1H\n`);
      this.painted.shift();
      if (this.painted.length > 0) this.painted[frame.rows - 1] = "";
    }
    for (let at = 0; at < frame.rows; at += 1) {
      const row = frame.screen[at] ?? "";
      if (this.painted[at] === row) continue;
      parts.push(`\u001b[${at + 1};1H\u001b[2K${harmless(row)}\u001b[0m`);
      this.painted[at] = row;
    }
    const { x, y, visible } = frame.cursor;
    parts.push(`\u001b[${y + 1};${x + 1}H${visible && !frame.dead ? "\u001b[?25h" : ""}`);
    return parts.join("");
  }

  /** Choose the size of the text, so that all columns fit the element's width and all rows most of the window. */
  fit() {
    const { term, element, frame } = this;
    if (this.closed || element.clientWidth === 0) return;
    const cols = frame?.cols ?? term.cols;
    const rows = frame?.rows ?? term.rows;
    const room = element.clientWidth - BAR;
    const height = Math.max(240, window.innerHeight * 0.72);
    const cell = measured();
    let size = Math.min(room / (cols * cell.width), height / (rows * cell.height), MOST_FONT);
    size = this.readable ? Math.max(size, READABLE_FONT) : Math.max(size, LEAST_FONT);
    size = Math.floor(size * 4) / 4;
    term.options.fontSize = size;
    if (this.readable) return;
    // The renderer rounds to pixels of the device.
    while (size > LEAST_FONT && this.paintedWidth() > room + 1) {
      size -= 0.25;
      term.options.fontSize = size;
    }
  }

  paintedWidth() {
    return this.element.querySelector(".xterm-screen")?.getBoundingClientRect().width ?? 0;
  }

  /** Light or dark. */
  look(dark) {
    Object.assign(this.term.options, looks(dark));
  }

  /** The last rows as plain text, without the empty ones at the end. */
  text(rows = 200) {
    const buffer = this.term.buffer.active;
    const lines = [];
    for (let at = Math.max(0, buffer.length - rows); at < buffer.length; at += 1) {
      lines.push(buffer.getLine(at)?.translateToString(true) ?? "");
    }
    while (lines.length > 0 && lines[lines.length - 1] === "") lines.pop();
    return lines.join("\n");
  }

  /** There is nothing to see any more: the last picture stays, and what comes next is a frame that begins anew. */
  lost() {
    this.next = null;
    this.frame = null;
  }

  focus() {
    this.term.focus();
  }

  close() {
    this.closed = true;
    this.typed = null;
    this.term.dispose();
  }
}

function looks(dark) {
  return { theme: dark ? DARK : LIGHT, minimumContrastRatio: dark ? 1 : LIGHT_CONTRAST };
}

// Two frames as one: the screen of the later, and what scrolled away before either.
function together(first, second) {
  if (second.reset) return second;
  const scrolled = [...first.scrolled, ...second.scrolled].slice(-HISTORY);
  return { ...second, reset: first.reset, scrolled };
}

let cell = null;

// How wide and high a character is, in parts of the font's size.
function measured() {
  if (cell !== null) return cell;
  const context = document.createElement("canvas").getContext("2d");
  context.font = `100px ${FONT}`;
  const found = context.measureText("W");
  const height = found.fontBoundingBoxAscent + found.fontBoundingBoxDescent;
  cell = { width: found.width / 100 || 0.6, height: height / 100 || 1.2 };
  return cell;
}
