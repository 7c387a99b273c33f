// What stands in each pane. Alone, a pane shows the chosen pair. Side by side, the left pane takes model A in place of the
// student (or of the reference, whichever A is) and the right one B, each with its own colours and its own choice.

/** The pair of models of a pane that stands for `model`. */
function pairWith(corpus, state, model) {
  const { kind } = corpus.view.models.find((candidate) => candidate.key === model);
  return { ...pairOf(state), [kind]: model };
}

/** [{ model, pair, title }] of the panes to be shown. */
function panePlan(corpus, state) {
  if (state.view !== "side") {
    const title = state.view === "difference" ? `A: ${labelOf(corpus, state.a)} − B: ${labelOf(corpus, state.b)}` : "";
    return [{ model: null, pair: pairOf(state), title }];
  }
  return [["A", state.a], ["B", state.b]].map(([letter, model]) => {
    const { kind, label } = corpus.view.models.find((candidate) => candidate.key === model);
    return { model, pair: pairWith(corpus, state, model), title: `${letter}: ${label} (${kind})` };
  });
}

/** Keeps the rankings that were computed: one for each score, scope and pair of models. */
function makeRankings(corpus) {
  const known = new Map();
  return (key, scope, pair) => {
    const name = JSON.stringify([key, scope, pair.student, pair.reference]);
    if (!known.has(name)) known.set(name, rankTokens(corpus, key, scope, pair));
    return known.get(name);
  };
}

/** Ranking and choice of each pane; `main` is those of the chosen pair. A model without the entropies that the score reads keeps the choice of the pair. */
function choosePanes(corpus, state, panes, plan, rankings, main) {
  const score = SCORES.find((candidate) => candidate.key === state.score);
  panes.forEach((pane, i) => {
    const { model, pair, title } = plan[i];
    const own = scoreIsThere(corpus, score, pair) ? pair : pairOf(state);
    const ranking = rankings(state.score, state.scope, own);
    Object.assign(pane, { model, pair, ranking, kept: ranking === main.ranking ? main.kept : keep(corpus, ranking, state.ratio) });
    pane.title.textContent = oneLine(title);
    pane.title.hidden = title === "";
  });
}
