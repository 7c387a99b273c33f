// Puts the page together. Everything shown follows from `state`; `update` brings all parts up to date, and every part
// touches only what changed, so that the slider can call it at each step.

const corpus = readCorpus(JSON.parse(at("data").textContent));
const state = firstState(corpus);
const rankings = makeRankings(corpus);
const panes = [];
const shares = makeAllShares(corpus);
const scatter = makeScatter((rectangle) => selectPoints(rectangle));
const seen = { main: { ranking: null }, hover: null, match: null, rectangle: null, listed: null, thresholds: null, pair: "", distances: null, rivals: "", view: "" };

const handlers = {
  hover: (token, pane) => {
    seen.hover = token === null ? null : { token, pane };
    showToken();
  },
  // Both panes lay out the same text at the same width, so equal positions show equal lines.
  scroll: (pane) => {
    for (const other of panes) if (other.text.scrollTop !== pane.text.scrollTop) other.text.scrollTop = pane.text.scrollTop;
  },
  choose: (token, pane, focus) => {
    if (token !== state.token) {
      state.token = token;
      for (const other of panes) markToken(other, token);
      saveSoon();
      speakSoon();
    }
    seen.hover = { token, pane };
    showToken();
    if (focus) pane.spans[token - pane.first].focus({ preventScroll: true });
    if (focus) revealToken(pane, token);
  },
};

const list = makeList(corpus, (p) => openPassage(p, null));
const finder = makeFinder(corpus, state, (match) => {
  seen.match = match;
  const token = tokenAt(corpus, match.passage, match.from);
  openPassage(match.passage, token);
  revealToken(panes[0], token);
});

const saveSoon = settled(250, () => writeAddress(addressOf(corpus, state)));
const searchSoon = settled(120, () => {
  seen.match = null;
  finder.search();
  update();
});
const speakSoon = settled(150, () => {
  at("spoken").textContent = state.token === null ? "" : spokenDetail(corpus, state, state.token, panes[0], seen.thresholds);
});
const countSoon = settled(500, () => { at("spoken").textContent = `${ratioText(state.ratio)} percent: ${at("kept-count").textContent}`; });

/** Opens a passage, with a token chosen or none. */
function openPassage(p, token) {
  state.passage = p;
  state.token = token;
  seen.hover = null;
  update();
  revealRow();
}

/** Brings the open passage's row of the list into sight, where the list is. */
function revealRow() {
  const row = list.rows[state.passage].button;
  if (row.isConnected && row.checkVisibility()) row.scrollIntoView({ block: "nearest" });
}

/** Opens a token's passage and puts the focus on the token. */
function goToToken(token) {
  openPassage(corpus.owner[token], token);
  handlers.choose(token, panes[0], true);
}

/** Offers what there is, and leaves a choice that is not offered. */
function settle() {
  const pair = pairOf(state);
  const scores = SCORES.filter((score) => scoreIsThere(corpus, score, pair));
  if (!scores.some((score) => score.key === state.score)) state.score = scores[0].key;
  const quantities = QUANTITIES.filter((quantity) => quantityIsThere(corpus, quantity, pair));
  if (!quantities.some((quantity) => quantity.key === state.colour)) state.colour = quantities[0].key;
  const many = corpus.view.models.length > 1;
  const models = corpus.view.models.map(({ key, kind, label }) => ({ key, label: `${shortName(corpus, key)} (${kind})`, title: oneLine(label) }));
  fill(at("score"), scores, state.score);
  fill(at("scope"), SCOPES, state.scope);
  fill(at("colour"), quantities, state.colour);
  fill(at("view"), VIEWS, state.view);
  fill(at("a"), models, state.a);
  fill(at("b"), models, state.b);
  for (const kind of ["student", "reference"]) {
    const options = corpus.view.models.filter((model) => model.kind === kind).map(({ key, label }) => ({ key, label: shortName(corpus, key), title: oneLine(label) }));
    fill(at(kind), options, state[kind]);
    at(`${kind}-field`).hidden = options.length < 2;
  }
  at("view-field").hidden = !many;
  for (const id of ["a-field", "b-field"]) at(id).hidden = state.view === "one";
  at("colour-field").hidden = state.view === "difference";
  const sorts = rivals(corpus, state) === null ? SORTS.filter((sort) => sort.key !== "disagreement") : SORTS;
  if (!sorts.some((sort) => sort.key === state.sort)) state.sort = "corpus";
  fill(at("sort"), sorts, state.sort);
  const sources = corpus.view.sources.map((name, number) => ({ key: String(number), label: oneLine(name) }));
  fill(at("source"), [{ key: "", label: "All sources" }, ...sources], state.source);
  at("source-field").hidden = sources.length < 2;
  if (at("query").value !== state.find) at("query").value = state.find;
}

/** Says which pair is shown, by whole labels, whether there is a choice or not. */
function showPair() {
  const known = ["student", "reference"].filter((kind) => state[kind] !== null);
  at("pair").replaceChildren(...known.map((kind) => {
    const item = make("span", "", `${kind[0].toUpperCase()}${kind.slice(1)}`);
    const label = make("span", "tail");
    label.append(make("bdi", "", oneLine(labelOf(corpus, state[kind]))));
    label.title = label.textContent;
    item.append(" ", label);
    return item;
  }));
}

/** Numbers that depend on the models alone. */
function measure() {
  const pair = JSON.stringify(pairOf(state));
  if (pair !== seen.pair) {
    seen.thresholds = thresholdsOf(corpus, pairOf(state));
    showPair();
    seen.pair = pair;
  }
  const axes = rivals(corpus, state);
  const names = JSON.stringify(axes);
  if (names === seen.rivals) return;
  seen.rivals = names;
  seen.distances = axes === null ? null : disagreements(corpus, axes);
  scatter.axes = axes;
  at("scatter").hidden = axes === null;
  if (axes === null) return;
  scatter.most = mostOf(corpus, axes);
  seen.rectangle = null;
}

/** Brings the whole page up to date. */
function update() {
  settle();
  measure();
  const plan = panePlan(corpus, state);
  while (panes.length < plan.length) panes.push(makePane(corpus, handlers));
  panes.length = plan.length;
  if (at("panes").children.length !== panes.length) {
    at("panes").replaceChildren(...panes.map((pane) => pane.root));
    at("panes").className = panes.length > 1 ? "panes two" : "panes";
  }
  for (const pane of panes) openInPane(corpus, pane, state.passage);
  const { main } = seen;
  const ranking = rankings(state.score, state.scope, pairOf(state));
  if (main.ranking !== ranking || main.ratio !== state.ratio) {
    const kept = keep(corpus, ranking, state.ratio);
    Object.assign(main, { ranking, ratio: state.ratio, kept, tallies: tally(corpus, kept) });
  }
  choosePanes(corpus, state, panes, plan, rankings, main);
  const { tallies } = main;
  for (const pane of panes) {
    if (pane.here !== state.token) markToken(pane, state.token);
    const found = colouring(corpus, state, pane);
    paintPane(corpus, pane, found.classOf);
    if (pane === panes[0]) showLegend(corpus, found);
  }
  showHead(tallies);
  showShares(state, shares, tallies);
  showList(corpus, state, list, finder.counts, tallies, seen.distances);
  highlight(panes, finder.matches, seen.match);
  showScatter(main.kept);
  showToken();
  saveSoon();
}

function showHead(tallies) {
  const passage = corpus.passages[state.passage];
  at("place").textContent = `${state.passage + 1} · ${oneLine(passage.place)}`;
  const facts = [oneLine(corpus.view.sources[passage.source]), counted(passage.tokens, "token")];
  at("passage-facts").textContent = facts.join(" · ");
  at("kept-count").textContent = `${whole(tallies.all.kept)} of ${counted(tallies.all.candidates, "token")} kept`;
  const shown = ratioText(state.ratio);
  at("ratio").value = Math.max(1, Math.round(100 * state.ratio));
  at("ratio").setAttribute("aria-valuetext", `${shown} percent`);
  if (document.activeElement !== at("percent")) at("percent").value = shown;
}

function showToken() {
  const { hover } = seen;
  const inside = hover !== null && hover.token !== null && panes.includes(hover.pane) && corpus.owner[hover.token] === state.passage;
  showDetail(corpus, state, inside ? hover.token : state.token, inside ? hover.pane : panes[0], seen.thresholds, letGo);
}
