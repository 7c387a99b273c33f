// What is shown, and its copy in the address, so that a link reproduces the view. Values from an address are taken only
// if this page offers them; in a sandboxed frame, where the address cannot be rewritten, the view works without one.

const VIEWS = [
  { key: "one", label: "Off" },
  { key: "side", label: "Side by side" },
  { key: "difference", label: "A − B" },
];

/** The pair of models whose losses are compared. */
function pairOf(state) {
  return { student: state.student, reference: state.reference };
}

/** Keys of the models of a kind. */
function modelsOf(corpus, kind) {
  return corpus.view.models.filter((model) => model.kind === kind).map((model) => model.key);
}

/** What the page opens with. */
function firstState(corpus) {
  const { view } = corpus;
  const students = modelsOf(corpus, "student");
  const references = modelsOf(corpus, "reference");
  const keys = view.models.map((model) => model.key);
  const [a, b = a] = students.length > 1 ? students : references.length > 1 ? references : keys;
  const state = {
    student: students[0] ?? null,
    reference: references[0] ?? null,
    a,
    b,
    view: firstView(view),
    ratio: view.ratio,
    score: view.score,
    scope: view.scope,
    colour: "",
    passage: 0,
    token: null,
    source: "",
    sort: "corpus",
    find: "",
  };
  const offered = QUANTITIES.filter((quantity) => quantityIsThere(corpus, quantity, pairOf(state)));
  state.colour = (offered.find((quantity) => quantity.key === view.colour) ?? offered[0]).key;
  return state;
}

/** One model or, where the page is made to compare and there are two, both. */
function firstView(view) {
  return view.compare === true && view.models.length > 1 ? "side" : "one";
}

/** Takes what an address says, as far as the page offers it. */
function readAddress(corpus, state, hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const take = (name, allowed) => { if (given.has(name) && allowed.includes(given.get(name))) state[name] = given.get(name); };
  const keys = corpus.view.models.map((model) => model.key);
  take("student", modelsOf(corpus, "student"));
  take("reference", modelsOf(corpus, "reference"));
  take("a", keys);
  take("b", keys);
  take("score", SCORES.map((score) => score.key));
  take("scope", SCOPES.map((scope) => scope.key));
  take("view", keys.length > 1 ? VIEWS.map((view) => view.key) : []);
  take("colour", QUANTITIES.map((quantity) => quantity.key));
  take("sort", SORTS.map((sort) => sort.key));
  take("source", ["", ...corpus.view.sources.map((_, number) => String(number))]);
  if (given.has("find")) state.find = given.get("find");
  const ratio = Number(given.get("ratio"));
  if (given.has("ratio") && ratio >= 0.01 && ratio <= 1) state.ratio = ratio;
  const passage = Number(given.get("passage"));
  if (given.has("passage") && Number.isInteger(passage) && passage >= 1 && passage <= corpus.passages.length) {
    state.passage = passage - 1;
    const token = Number(given.get("token"));
    const inside = Number.isInteger(token) && token >= 1 && token <= corpus.passages[state.passage].tokens;
    state.token = given.has("token") && inside ? corpus.starts[state.passage] + token - 1 : null;
  }
}

/** The address of what is shown; passages and tokens count from 1. */
function addressOf(corpus, state) {
  const given = new URLSearchParams({ passage: state.passage + 1 });
  if (state.token !== null) given.set("token", state.token - corpus.starts[state.passage] + 1);
  for (const name of ["ratio", "score", "scope", "colour"]) given.set(name, state[name]);
  for (const name of ["student", "reference"]) if (modelsOf(corpus, name).length > 1) given.set(name, state[name]);
  if (state.view !== firstView(corpus.view)) given.set("view", state.view);
  if (state.view !== "one") for (const name of ["a", "b"]) given.set(name, state[name]);
  if (state.source !== "") given.set("source", state.source);
  if (state.sort !== "corpus") given.set("sort", state.sort);
  if (state.find !== "") given.set("find", state.find);
  return `#${given}`;
}

/** Writes the address, without a step in the history. */
function writeAddress(hash) {
  const whole = location.href.replace(/#.*$/s, "") + hash;
  try {
    history.replaceState(null, "", whole);
  } catch (error) {
    // A frame without an origin of its own may not change its address; then there is no address to share either.
    if (!(error instanceof DOMException && error.name === "SecurityError")) throw error;
  }
}
