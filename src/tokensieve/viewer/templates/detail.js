// The panel of one token: its text, why it is kept or dropped, and every number the page has about it. It has a place of
// its own below the text (at the foot of the screen on a phone), so that it never covers what it speaks of.

/** A number with its exact value in the markup: <data value="0.12345886">0.12</data>. */
function exact(value, shown) {
  const element = make("data", "", shown);
  element.value = Number.isNaN(value) ? "" : String(value);
  return element;
}

/** Shows a token of a pane; null shows what to do. `close` lets go of it. */
function showDetail(corpus, state, token, pane, thresholds, close) {
  const panel = at("detail");
  if (token === null) {
    panel.replaceChildren(make("p", "hint", "Point at a token, tap it, or move to it with the arrow keys: here stands why it is kept or dropped."));
    panel.className = "";
    return;
  }
  const kept = pane.kept[token] === 1;
  const candidate = corpus.candidates[token] === 1;
  panel.className = !candidate ? "none" : kept ? "kept" : "dropped";
  const head = make("div", "token");
  const text = tokenText(corpus, token);
  const shown = make("bdi", "glyph");
  appendText(shown, shortened(text, 120));
  head.append(shown);
  const notes = [];
  if (text.length > 120) notes.push(counted(text.length, "character"));
  if (text === "") notes.push("part of a character");
  const codes = codePoints(text);
  if (codes) notes.push(codes);
  if (notes.length) head.append(make("small", "", notes.join(" · ")));
  const reason = make("p", "why", why(corpus, pane.ranking, thresholds, token, kept, state.ratio));
  const button = make("button", "close", "×");
  button.type = "button";
  button.setAttribute("aria-label", "Close");
  button.addEventListener("click", close);
  panel.replaceChildren(head, reason, cellsOf(corpus, token, pane), button);
}

// The numbers, in an order that reads: the models, the excess, the rank, then what the token is.
function cellsOf(corpus, token, pane) {
  const list = make("dl", "cells");
  const add = (css, name, ...content) => {
    const cell = make("div", css);
    const value = make("dd");
    value.append(...content);
    cell.append(make("dt", "", name), value);
    list.append(cell);
  };
  const { student, reference } = pane.pair;
  for (const [key, column] of corpus.losses) {
    const model = corpus.view.models.find((candidate) => candidate.key === key);
    const content = [make("small", "", "loss "), exact(column[token], nats(column[token], 3))];
    const entropy = corpus.entropies.get(key);
    if (entropy !== undefined) {
      const quiet = make("small", "", " entropy ");
      quiet.append(exact(entropy[token], nats(entropy[token], 3)));
      content.push(quiet);
    }
    add(key === student || key === reference ? "loss chosen" : "loss", modelName(corpus, model), ...content);
  }
  if (student !== null && reference !== null) {
    const excess = Math.fround(corpus.losses.get(student)[token] - corpus.losses.get(reference)[token]);
    add("excess chosen", "Excess loss", exact(excess, signed(excess, 3)));
  }
  if (corpus.candidates[token]) add("rank", rankName(pane.ranking), rankText(corpus, token, pane.ranking));
  add("id", "Token id", exact(corpus.ids[token], String(corpus.ids[token])));
  const region = corpus.regions === null ? undefined : corpus.view.regions[corpus.regions[token]];
  if (region !== undefined) add("region", "Region", oneLine(region));
  if (corpus.categories !== null && corpus.categories[token] !== UNKNOWN) {
    const number = corpus.categories[token];
    add("category", "Training dynamics", `${CATEGORIES[number]} (${CATEGORY_NAMES[number]})`);
  }
  return list;
}

// "Reference" alone, or with the model's name where that says more.
function modelName(corpus, { key, kind, label }) {
  const name = `${kind[0].toUpperCase()}${kind.slice(1)}`;
  return label.toLowerCase() === kind ? name : `${name} ${shortName(corpus, key)}`;
}

function rankName(ranking) {
  return { global: "Rank", sequence: "Rank in this passage", document: "Rank of its document" }[ranking.scope];
}

function rankText(corpus, token, ranking) {
  return `${whole(ranking.places[token])} of ${whole(ranking.among[corpus.owner[token]])}`;
}

/** What a screen reader says of a token that got the focus. */
function spokenDetail(corpus, state, token, pane, thresholds) {
  const text = spoken(shortened(tokenText(corpus, token), 60));
  const parts = [text, why(corpus, pane.ranking, thresholds, token, pane.kept[token] === 1, state.ratio)];
  if (corpus.candidates[token]) {
    for (const [name, key] of [["Student", pane.pair.student], ["Reference", pane.pair.reference]]) {
      if (key !== null) parts.push(`${name} loss ${nats(corpus.losses.get(key)[token])}.`);
    }
    parts.push(`${rankName(pane.ranking)} ${rankText(corpus, token, pane.ranking)}.`);
  }
  return parts.join(" ");
}
