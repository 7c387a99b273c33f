// The list of passages: place, source, first words, share kept and how far the models disagree. Rows are made once; later
// only their numbers and their order change. One tab stop; arrows move through the list and open what they reach.

const SORTS = [
  { key: "corpus", label: "Corpus order" },
  { key: "disagreement", label: "Highest disagreement" },
  { key: "most", label: "Most kept" },
  { key: "least", label: "Least kept" },
];

/** The two models whose distance is the disagreement: student and reference, else the two that are compared; or null. */
function rivals(corpus, state) {
  if (state.student !== null && state.reference !== null) return { y: state.student, x: state.reference };
  return corpus.view.models.length > 1 && state.a !== state.b ? { y: state.a, x: state.b } : null;
}

/** Mean distance of two models' losses in each passage, nats; NaN where nothing is a candidate. */
function disagreements(corpus, { y, x }) {
  const [first, second] = [corpus.losses.get(y), corpus.losses.get(x)];
  const sums = new Float64Array(corpus.passages.length);
  const counts = new Uint32Array(corpus.passages.length);
  for (let i = 0; i < corpus.total; i += 1) {
    if (!corpus.candidates[i]) continue;
    sums[corpus.owner[i]] += Math.abs(first[i] - second[i]);
    counts[corpus.owner[i]] += 1;
  }
  return sums.map((sum, p) => sum / counts[p]);
}

/** Makes the rows; `open` is called with a passage's number. */
function makeList(corpus, open) {
  const rows = corpus.passages.map((passage, p) => {
    const item = make("li");
    const button = make("button", "passage");
    button.type = "button";
    button.tabIndex = -1;
    const head = make("span", "head");
    head.append(make("b", "", `${p + 1}`), make("bdi", "", oneLine(passage.place)));
    const words = make("bdi", "words", oneLine(shortened(passage.text, 220)) || "(nothing but white space)");
    words.dir = "auto";
    const facts = make("span", "facts");
    const share = make("span", "share");
    const rival = make("span", "rival");
    const hits = make("span", "hits");
    facts.append(share, rival, hits, make("bdi", "source", oneLine(corpus.view.sources[passage.source])));
    button.append(head, words, facts);
    button.addEventListener("click", () => open(p));
    item.append(button);
    return { item, button, share, rival, hits };
  });
  const list = { rows, shown: [] };
  at("passages").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = list.shown.findIndex((p) => rows[p].button === event.target);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: list.shown.length - 1 }[event.key];
    if (here < 0 || to === undefined) return;
    event.preventDefault();
    if (to < 0 || to >= list.shown.length) return;
    open(list.shown[to]);
    rows[list.shown[to]].button.focus();
  });
  return list;
}

/** Passages that the source and the search leave, in the chosen order. */
function arranged(corpus, state, counts, tallies, distances) {
  const shown = [];
  corpus.passages.forEach((passage, p) => {
    if (state.source !== "" && passage.source !== Number(state.source)) return;
    if (counts !== null && counts[p] === 0) return;
    shown.push(p);
  });
  const share = (p) => tallies.passages[p].kept / tallies.passages[p].candidates;
  const keys = { disagreement: (p) => -distances[p], most: (p) => -share(p), least: share };
  const key = state.sort === "corpus" || (state.sort === "disagreement" && distances === null) ? null : keys[state.sort];
  if (key === null) return shown;
  // Passages without a candidate have no share and come last.
  const value = (p) => (Number.isNaN(key(p)) ? Infinity : key(p));
  return shown.sort((a, b) => (value(a) === value(b) ? a - b : value(a) - value(b)));
}

/** Brings rows, numbers and order up to date. */
function showList(corpus, state, list, counts, tallies, distances) {
  const shown = arranged(corpus, state, counts, tallies, distances);
  if (shown.length !== list.shown.length || shown.some((p, i) => p !== list.shown[i])) {
    const focused = document.activeElement;
    at("passages").replaceChildren(...shown.map((p) => list.rows[p].item));
    if (at("passages").contains(focused)) focused.focus({ preventScroll: true });
    list.shown = shown;
  }
  const stop = shown.includes(state.passage) ? state.passage : shown[0];
  for (const p of shown) {
    const row = list.rows[p];
    row.share.textContent = `${percent(tallies.passages[p])} kept`;
    row.rival.textContent = distances === null || Number.isNaN(distances[p]) ? "" : `${nats(distances[p])} nats apart`;
    row.rival.title = "Disagreement: mean distance between the two models’ losses of a token";
    row.hits.textContent = counts === null ? "" : counted(counts[p], "match", "matches");
    row.button.tabIndex = p === stop ? 0 : -1;
    if (p === state.passage) row.button.setAttribute("aria-current", "true");
    else row.button.removeAttribute("aria-current");
  }
  const all = corpus.passages.length;
  at("list-count").textContent = shown.length === all ? whole(all) : `${whole(shown.length)} of ${whole(all)}`;
}
