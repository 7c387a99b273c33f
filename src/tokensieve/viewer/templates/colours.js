// Which tint a token gets. Losses and entropies have six steps, differences nine around zero; the steps stand in the
// legend. The tints themselves are in viewer.css, where every one leaves its text legible in light and dark.

const STEPS = [0.5, 1, 2, 4, 6];
const DIFFERENCES = [0.25, 0.75, 1.5, 3];

const QUANTITIES = [
  { key: "excess_loss", label: "Excess loss", needs: ["student", "reference"] },
  { key: "student_loss", label: "Student loss", needs: ["student"] },
  { key: "reference_loss", label: "Reference loss", needs: ["reference"] },
  { key: "student_entropy", label: "Student entropy", needs: ["student"], entropy: "student" },
  { key: "reference_entropy", label: "Reference entropy", needs: ["reference"], entropy: "reference" },
  { key: "category", label: "Training dynamics", needs: [] },
  { key: "kept", label: "Kept or dropped", needs: [] },
];

/** Whether a quantity can be shown for a pair of models. */
function quantityIsThere(corpus, quantity, pair) {
  if (quantity.key === "category") return corpus.categories !== null;
  if (!quantity.needs.every((kind) => pair[kind] !== null)) return false;
  return !quantity.entropy || corpus.entropies.has(pair[quantity.entropy]);
}

/** The class of a loss or entropy. */
function stepClass(value) {
  return `s${STEPS.filter((step) => value >= step).length}`;
}

/** The class of a difference. */
function differenceClass(value) {
  const depth = DIFFERENCES.filter((step) => Math.abs(value) >= step).length;
  return depth === 0 ? "z" : `${value > 0 ? "p" : "n"}${depth}`;
}

/**
 * What colours a pane: a function from token to class, and the legend [{ css, label }] with a sentence.
 * `pane` has the pair of models it stands for, its own model when two are compared, and what it keeps.
 */
function colouring(corpus, state, pane) {
  if (state.view === "difference") {
    const classOf = differenceClasses(corpus, state.a, state.b);
    return { classOf, ...differenceLegend("Loss of A − loss of B", "A finds it easier", "A finds it harder") };
  }
  if (state.colour === "excess_loss") {
    const classOf = differenceClasses(corpus, pane.pair.student, pane.pair.reference);
    return { classOf, ...differenceLegend("Excess loss", "student ahead", "reference ahead") };
  }
  if (state.colour === "category") return categoryColouring(corpus);
  if (state.colour === "kept") return keptColouring(pane);
  return columnColouring(corpus, state, pane);
}

function differenceClasses(corpus, first, second) {
  const [one, other] = [corpus.losses.get(first), corpus.losses.get(second)];
  return (i) => differenceClass(Math.fround(one[i] - other[i]));
}

function columnColouring(corpus, state, pane) {
  const [kind, what] = state.colour.split("_");
  const columns = what === "entropy" ? corpus.entropies : corpus.losses;
  // Of two models that are compared, one may have no entropies: its pane stays uncoloured.
  const column = columns.get(pane.model ?? pane.pair[kind]);
  const name = QUANTITIES.find((quantity) => quantity.key === state.colour).label;
  const title = pane.model === null ? name : what === "entropy" ? "Entropy" : "Loss";
  return { classOf: (i) => (column === undefined || Number.isNaN(column[i]) ? "" : stepClass(column[i])), title, items: stepItems(), low: "easy", high: "hard" };
}

function stepItems() {
  return [0, ...STEPS].map((from, step) => ({ css: `s${step}`, label: step === STEPS.length ? `≥ ${from}` : `${from}–${STEPS[step]}` }));
}

function differenceLegend(title, low, high) {
  const deepest = DIFFERENCES.length;
  const below = DIFFERENCES.map((step, i) => ({ css: `n${i + 1}`, label: i + 1 === deepest ? `≤ −${step}` : `−${step}` })).reverse();
  const above = DIFFERENCES.map((step, i) => ({ css: `p${i + 1}`, label: i + 1 === deepest ? `≥ ${step}` : `+${step}` }));
  return { title, items: [...below, { css: "z", label: "0" }, ...above], low, high };
}

function categoryColouring(corpus) {
  const items = CATEGORIES.map((label, number) => ({ css: `c${number}`, label: `${label} (${CATEGORY_NAMES[number]})` }));
  const classOf = (i) => (corpus.categories[i] === UNKNOWN ? "" : `c${corpus.categories[i]}`);
  return { classOf, title: "Training dynamics", items, low: "", high: "" };
}

function keptColouring(pane) {
  const items = [{ css: "yes", label: "kept" }, { css: "no", label: "dropped" }];
  return { classOf: (i) => (pane.kept[i] ? "yes" : "no"), title: "The choice", items, low: "", high: "" };
}

/** Draws the legend of what is shown. */
function showLegend(corpus, found) {
  const items = [[make("b", "", found.title + (found.low ? ", nats" : ""))], [make("span", "kept", "underlined"), " kept"]];
  if (corpus.candidates.some((yes) => !yes)) items.push([make("span", "none", "grey"), " no candidate"]);
  const steps = make("span", found.low ? "steps" : "names");
  for (const item of found.items) steps.append(make("span", item.css, item.label));
  items.push(found.low ? [make("span", "", found.low), steps, make("span", "", found.high)] : [steps]);
  at("legend").replaceChildren(...items.map((content) => {
    const item = make("li");
    item.append(...content);
    return item;
  }));
}
