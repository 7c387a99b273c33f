// What the reader can do, and the start: read the address, wire the controls, show the page.

function setRatio(ratio) {
  if (!(ratio >= 0.01 && ratio <= 1)) return;
  state.ratio = ratio;
  update();
  countSoon();
}

/** Percent as a ratio: 57 must become 0.57, not 0.57 and a rounding error. */
function ratioOf(text) {
  return text === "" ? NaN : Number((Number(text) / 100).toFixed(8));
}

function neighbour(step) {
  const to = list.shown.indexOf(state.passage) + step;
  if (to >= 0 && to < list.shown.length) openPassage(list.shown[to], null);
}

function letGo() {
  if (state.token !== null && document.activeElement.closest(".text") !== null) document.activeElement.blur();
  state.token = null;
  seen.hover = null;
  update();
}

/** From anywhere on the page into its text: to the chosen token, else to the first in sight. */
function enterText() {
  const token = state.token ?? firstInSight(panes[0]);
  if (token !== null) handlers.choose(token, panes[0], true);
}

function openHelp() {
  at("help-thresholds").textContent = thresholdWords(seen.thresholds, pairOf(state));
  at("help").showModal();
}

function wire() {
  at("ratio").addEventListener("input", () => setRatio(ratioOf(at("ratio").value)));
  at("percent").addEventListener("input", () => setRatio(ratioOf(at("percent").value)));
  at("percent").addEventListener("change", () => { at("percent").value = ratioText(state.ratio); });
  for (const name of ["score", "scope", "student", "reference", "view", "a", "b", "colour", "source", "sort"]) {
    at(name).addEventListener("change", () => {
      state[name] = at(name).value;
      update();
    });
  }
  at("query").addEventListener("input", () => {
    state.find = at("query").value;
    searchSoon();
  });
  for (const id of ["list-toggle", "fields-toggle"]) {
    at(id).addEventListener("click", () => {
      const open = at(id).getAttribute("aria-expanded") !== "true";
      at(id).setAttribute("aria-expanded", String(open));
      at(id).textContent = at(id).textContent.replace(/^\w+/, open ? "Hide" : "Show");
      if (open) revealRow();
    });
  }
  for (const radio of document.querySelectorAll("input[name=drawn]")) radio.addEventListener("change", clearPoints);
  at("ranges").addEventListener("submit", (event) => {
    event.preventDefault();
    selectPoints(rectangleOf());
  });
  at("points-clear").addEventListener("click", clearPoints);
  makeNumbers(corpus, () => panes[0]);
  makeKeys(new Map([
    ["j", () => neighbour(1)],
    ["k", () => neighbour(-1)],
    ["[", () => setRatio(Math.max(0.01, ratioOf(100 * state.ratio - 1)))],
    ["]", () => setRatio(Math.min(1, ratioOf(100 * state.ratio + 1)))],
    ["/", () => at("query").focus()],
    ["?", openHelp],
    ["Escape", letGo],
    ...["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].map((key) => [key, enterText]),
  ]));
  window.addEventListener("hashchange", () => {
    // What an address leaves out is what the page opens with.
    Object.assign(state, firstState(corpus));
    readAddress(corpus, state, location.hash);
    finder.search();
    openPassage(state.passage, state.token);
  });
}

const asked = state.score;
readAddress(corpus, state, location.hash);
wire();
finder.search();
update();
if (!SCORES.some((score) => score.key === asked && scoreIsThere(corpus, score, pairOf(state)))) {
  at("notes").append(make("li", "", `The score ${oneLine(asked)} cannot be computed from what this page holds; it shows the choice by another one.`));
  at("notes").hidden = false;
}
if (state.passage !== 0) revealRow();
if (state.token !== null) revealToken(panes[0], state.token);
