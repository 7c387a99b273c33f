// Text as it stands, with what cannot be seen made visible by the style sheet. Spaces, tabs and line ends get quiet marks.
// Control characters get a label and lie in an isolate, so that a bidirectional override cannot turn its neighbours
// around. Marks are generated content: the textContent of a token stays exactly its text, and can be copied.

// Soft hyphen, joiner and non-joiner shape words and emoji; the others left alone are visible signs of their scripts.
const UNSEEN = /( +)|(\t)|(\n)|((?![\u00ad\u200c\u200d\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}])/gu;

const CONTROLS = "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split(" ");

const NAMES = new Map([
 
  [0x61c, "ALM"], [0x200b, "ZWSP"], [0x200e, "LRM"], [0x200f, "RLM"], [0x2028, "LS"], [0x2029, "PS"], [0x202a, "LRE"],
  [0x202b, "RLE"], [0x202c, "PDF"], [0x202d, "LRO"], [0x202e, "RLO"], [0x2060, "WJ"], [0x2066, "LRI"], [0x2067, "RLI"],
  [0x2068, "FSI"], [0x2069, "PDI"], [0xfeff, "BOM"], [0x7f, "DEL"], [0x85, "NEL"],
]);

/** A short name of a character that cannot be seen. */
function nameOf(character) {
  const code = character.codePointAt(0);
  if (code < CONTROLS.length) return CONTROLS[code];
  return NAMES.get(code) ?? codePoint(code);
}

/** U+0041 */
function codePoint(code) {
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Appends text to an element, unseen characters wrapped in `i`. */
function appendText(element, text) {
  let done = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > done) element.append(text.slice(done, found.index));
    const mark = make("i", found[1] ? "s" : found[2] ? "tab" : found[3] ? "end" : "c", found[0]);
    if (found[4]) mark.dataset.c = nameOf(found[0]);
    element.append(mark);
    done = found.index + found[0].length;
  }
  if (done < text.length) element.append(text.slice(done));
}

/** One line of text for lists and labels: white space folded, unseen characters named. */
function oneLine(text) {
  return text.replace(UNSEEN, (found, spaces, tab, end) => (spaces || tab || end ? " " : `⟨${nameOf(found)}⟩`)).replace(/\s+/g, " ").trim();
}

/** A token in words: what a screen reader says and what stands in tables. */
function spoken(text) {
  if (text === "") return "part of a character";
  return text.replace(UNSEEN, (found, spaces, tab, end) => {
    if (spaces) return found.length === 1 ? "␠" : `␠×${found.length} `;
    return tab ? "⇥" : end ? "↵" : `⟨${nameOf(found)}⟩`;
  });
}

/** Up to `most` characters, never half of one. */
function shortened(text, most) {
  if (text.length <= most) return text;
  const cut = text.slice(0, most);
  return `${/[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut}…`;
}

/** The code points of a short token whose letters alone do not say what it is; "" for plain ones. */
function codePoints(text) {
  const codes = Array.from(text, (character) => character.codePointAt(0));
  if (codes.length === 0 || codes.length > 6 || codes.every((code) => code > 0x20 && code < 0x7f)) return "";
  return /^[\p{L}\p{N}\p{P}\p{S} ]+$/u.test(text) && codes.length > 1 ? "" : codes.map(codePoint).join(" ");
}
