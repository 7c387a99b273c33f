// The tokens inside a rectangle of the scatter, each in its context, with a button that goes there.

const LISTED = 100;
const CONTEXT = 28;

/** Tokens from `from` to before `to` whose two losses lie in the rectangle, edges included. */
function tokensInside(corpus, axes, rectangle, from, to) {
  const [across, up] = [corpus.losses.get(axes.x), corpus.losses.get(axes.y)];
  const inside = (value, [low, high]) => value >= low && value <= high;
  const found = [];
  for (let i = from; i < to; i += 1) {
    if (corpus.candidates[i] && inside(across[i], rectangle.x) && inside(up[i], rectangle.y)) found.push(i);
  }
  return found;
}

/** The rectangle of the four number fields; an empty one is no bound. */
function rectangleOf() {
  const value = (id, otherwise) => (at(id).value === "" || !Number.isFinite(at(id).valueAsNumber) ? otherwise : at(id).valueAsNumber);
  return { x: [value("x-from", 0), value("x-to", Infinity)], y: [value("y-from", 0), value("y-to", Infinity)] };
}

/** Writes a rectangle into the fields. */
function writeRectangle(rectangle) {
  const ends = [["x-from", rectangle.x[0]], ["x-to", rectangle.x[1]], ["y-from", rectangle.y[0]], ["y-to", rectangle.y[1]]];
  for (const [id, loss] of ends) at(id).value = Number.isFinite(loss) ? Number(loss.toFixed(2)) : "";
}

/** Lists tokens, an even sample if there are many; `go` is called with the one that is wanted. */
function listPoints(corpus, axes, tokens, kept, go) {
  const step = Math.max(1, tokens.length / LISTED);
  const listed = Array.from({ length: Math.min(LISTED, tokens.length) }, (_, i) => tokens[Math.floor(i * step)]);
  const some = listed.length < tokens.length ? `; ${listed.length} of them, evenly spread` : "";
  at("points-count").textContent = `${counted(tokens.length, "token")}, ${whole(tokens.filter((i) => kept[i]).length)} kept${some}`;
  at("points").replaceChildren(...listed.map((token) => pointRow(corpus, axes, token, kept[token] === 1, go)));
}

function pointRow(corpus, axes, token, kept, go) {
  const p = corpus.owner[token];
  const { text } = corpus.passages[p];
  const to = corpus.ends[token];
  const from = to - tokenText(corpus, token).length;
  const item = make("li");
  const button = make("button", "point");
  button.type = "button";
  const line = make("bdi", "context");
  line.dir = "auto";
  line.append(oneLine(` ${cutStart(text.slice(Math.max(0, from - CONTEXT), from))}`), " ");
  const mark = make("bdi", kept ? "glyph kept" : "glyph");
  appendText(mark, shortened(text.slice(from, to), 40));
  line.append(mark, " ", oneLine(shortened(text.slice(to, to + CONTEXT), CONTEXT - 1)));
  const numbers = `passage ${p + 1} · ${nats(corpus.losses.get(axes.y)[token])} / ${nats(corpus.losses.get(axes.x)[token])}`;
  button.append(line, make("small", "", numbers));
  button.addEventListener("click", () => go(token));
  item.append(button);
  return item;
}

// A slice may begin with the second half of a character.
function cutStart(text) {
  return /^[\udc00-\udfff]/.test(text) ? text.slice(1) : text;
}
