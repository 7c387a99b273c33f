// The scatter of the open view: which tokens and models it draws, where the choice ends, and the tokens that a rectangle
// holds.

function showScatter(kept) {
  const { axes } = scatter;
  if (axes === null) return;
  const one = document.querySelector("input[name=drawn]:checked").value === "one";
  const [from, to] = one ? [corpus.starts[state.passage], corpus.starts[state.passage + 1]] : [0, corpus.total];
  const both = state.student !== null && state.reference !== null;
  const names = both ? { y: "student", x: "reference" } : { y: "A", x: "B" };
  const ranking = rankings(state.score, state.scope, pairOf(state));
  // Units that are ranked by themselves have a line each: it is drawn for the passage that is shown alone.
  const cut = both && (state.scope === "global" || one) ? cutOff(ranking, state.passage, state.ratio) : null;
  const before = scatter.shown;
  scatter.shown = { corpus, axes, names, kept, from, to, chosen: seen.rectangle, line: lineOf(state.score, cut, scatter.most) };
  at("scatter-title").textContent = both ? "Student against reference" : "A against B";
  at("range-y").textContent = `${both ? "Student" : "Model A"} loss from`;
  at("range-x").textContent = `${both ? "Reference" : "Model B"} loss from`;
  for (const [id, name] of [["y", "range-y"], ["x", "range-x"]]) {
    for (const end of ["from", "to"]) at(`${id}-${end}`).setAttribute("aria-label", at(name).textContent.replace(/from$/, end));
  }
  const line = scatter.shown.line === null ? "" : " The line is where the choice ends.";
  at("scatter-key").textContent = `One point a token: blue is kept, grey dropped.${line}`;
  at("plot").setAttribute("aria-label", `Scatter of ${counted(to - from, "token")}: ${names.y} loss upwards, ${names.x} loss to the right. The ranges below select tokens.`);
  const same = before !== null && ["axes", "kept", "from", "to", "chosen"].every((name) => before[name] === scatter.shown[name]);
  if (!same) {
    scatter.draw();
    if (seen.listed !== null) relist();
  }
}

/** Lists what the chosen ranges hold now. */
function relist() {
  const { from, to, kept } = scatter.shown;
  listPoints(corpus, scatter.axes, tokensInside(corpus, scatter.axes, seen.listed, from, to), kept, goToToken);
}

function selectPoints(rectangle) {
  seen.listed = rectangle;
  writeRectangle(rectangle);
  relist();
  at("points-clear").hidden = false;
  const end = (value) => Math.min(value, scatter.most);
  scatter.shown.chosen = { x: rectangle.x.map(end), y: rectangle.y.map(end) };
  seen.rectangle = scatter.shown.chosen;
  scatter.draw();
  revealPoints();
}

/** Brings the count and the first rows of the list into sight: it may lie below what is seen of the page. */
function revealPoints() {
  const rows = at("points").children;
  const last = rows.length === 0 ? at("points-count") : rows[Math.min(2, rows.length - 1)];
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  last.scrollIntoView({ block: "nearest", behavior: calm ? "instant" : "smooth" });
}

function clearPoints() {
  seen.listed = null;
  seen.rectangle = null;
  at("points").replaceChildren();
  at("points-count").textContent = "";
  at("points-clear").hidden = true;
  for (const id of ["x-from", "x-to", "y-from", "y-to"]) at(id).value = "";
  update();
}
