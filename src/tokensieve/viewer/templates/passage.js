// The open passage: one span a token, built when a passage is opened, then only re-classed. Spans carry no padding,
// margin or border, so that letters join and marks combine across them. One token at a time can have the focus (a single
// tab stop); the text around it stays plain text for a screen reader.

/** A pane shows one passage; `model` is null, or the model it stands for when two are compared. */
function makePane(corpus, handlers) {
  const root = make("section", "pane");
  const title = make("h3");
  const text = make("div", "text");
  text.dir = "auto";
  text.setAttribute("role", "group");
  root.append(title, text);
  const pane = { root, title, text, spans: [], classes: [], first: 0, passage: -1, here: null, model: null, pair: null, ranking: null, kept: null };
  const tokenOf = (event) => {
    const span = event.target.closest(".text > span");
    return span === null ? null : pane.first + Number(span.dataset.i);
  };
  text.addEventListener("pointerover", (event) => { if (event.pointerType !== "touch") handlers.hover(tokenOf(event), pane); });
  text.addEventListener("pointerleave", () => handlers.hover(null, pane));
  text.addEventListener("click", (event) => {
    const token = tokenOf(event);
    // A drag over text is a selection to copy, not a choice of a token.
    if (token !== null && getSelection().isCollapsed) handlers.choose(token, pane, true);
  });
  text.addEventListener("scroll", () => handlers.scroll(pane));
  text.addEventListener("focusin", (event) => handlers.choose(tokenOf(event), pane, false));
  text.addEventListener("keydown", (event) => {
    const from = tokenOf(event);
    const to = from === null ? null : targetOf(pane, event, from);
    if (to === null) return;
    event.preventDefault();
    handlers.choose(to, pane, true);
  });
  return pane;
}

/** Builds the spans of a passage. */
function openInPane(corpus, pane, p) {
  if (pane.passage === p) return;
  pane.passage = p;
  pane.first = corpus.starts[p];
  const count = corpus.passages[p].tokens;
  pane.spans = Array.from({ length: count }, (_, i) => {
    const span = make("span");
    span.dataset.i = i;
    appendText(span, tokenText(corpus, pane.first + i));
    return span;
  });
  pane.classes = new Array(count).fill("");
  pane.here = null;
  pane.text.replaceChildren(...pane.spans);
  pane.text.setAttribute("aria-label", `Text, ${counted(count, "token")}`);
  pane.text.scrollTop = 0;
  if (count > 0) pane.spans[0].tabIndex = 0;
}

/** Colours and underlines a pane; touches only what changed. */
function paintPane(corpus, pane, classOf) {
  pane.spans.forEach((span, i) => {
    const token = pane.first + i;
    let css = corpus.candidates[token] ? classOf(token) : "none";
    if (pane.kept[token]) css += " kept";
    if (pane.here === token) css += " here";
    if (css === pane.classes[i]) return;
    pane.classes[i] = css;
    span.className = css;
  });
}

/** Marks the chosen token (null: none), and makes it the pane's tab stop. */
function markToken(pane, token) {
  if (pane.spans.length === 0) return;
  const before = pane.spans[pane.here === null ? 0 : pane.here - pane.first];
  const stop = pane.spans[token === null ? 0 : token - pane.first];
  pane.here = token;
  stop.tabIndex = 0;
  // A token that has the focus would lose it with its tab stop.
  if (before !== stop) before.removeAttribute("tabindex");
  for (const [span, here] of [[before, false], [stop, token !== null]]) {
    span.classList.toggle("here", here);
    pane.classes[span.dataset.i] = span.className;
  }
}

/** Brings a token into sight, without moving anything if it is there already. */
function revealToken(pane, token) {
  pane.spans[token - pane.first].scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** The first token that begins in sight, else the first of all; null in an empty passage. */
function firstInSight(pane) {
  if (pane.spans.length === 0) return null;
  const top = Math.max(0, pane.text.getBoundingClientRect().top);
  const found = pane.spans.findIndex((span) => span.getClientRects()[0]?.top >= top - 1);
  return pane.first + Math.max(found, 0);
}

// Where a key leads from the focused token; null for keys that are not ours.
function targetOf(pane, event, from) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const last = pane.first + pane.spans.length - 1;
  const backwards = pane.text.matches(":dir(rtl)");
  const step = { ArrowRight: backwards ? -1 : 1, ArrowLeft: backwards ? 1 : -1 }[event.key];
  if (step !== undefined) return Math.min(last, Math.max(pane.first, from + step));
  if (event.key === "Home") return pane.first;
  if (event.key === "End") return last;
  if (event.key === "ArrowDown") return lineAway(pane, from, 1);
  if (event.key === "ArrowUp") return lineAway(pane, from, -1);
  return null;
}

// The token nearest in the line above or below.
function lineAway(pane, token, direction) {
  const from = token - pane.first;
  const boxOf = (i) => pane.spans[i].getClientRects()[0];
  const start = boxOf(from);
  const middle = (start.left + start.right) / 2;
  const distance = (box) => Math.max(box.left - middle, middle - box.right, 0);
  let best = null;
  let line = null;
  for (let i = from + direction; i >= 0 && i < pane.spans.length; i += direction) {
    const box = boxOf(i);
    if (box === undefined) continue;
    if (Math.abs(box.top - start.top) < start.height / 2) continue;
    if (line === null) line = box.top;
    if (Math.abs(box.top - line) >= start.height / 2) break;
    if (best === null || distance(box) < distance(boxOf(best))) best = i;
  }
  return best === null ? null : pane.first + best;
}
