// Numbers and names as people read them, and the few DOM shorthands. Text from the data reaches the page through
// textContent alone: nothing here or elsewhere parses it as markup.

const MISSING = "–";
const SEPARATED = new Intl.NumberFormat("en-US");
const CATEGORIES = ["learned", "known already", "never learned", "got worse"];
const CATEGORY_NAMES = ["high to low", "low to low", "high to high", "low to high"];

/** An element by its id. */
function at(id) {
  return document.getElementById(id);
}

/** A new element. */
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A loss or entropy. */
function nats(value, digits = 2) {
  return Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : MISSING;
}

/** A difference with its sign. */
function signed(value, digits = 2) {
  return Number.isFinite(value) ? (value > 0 ? "+" : "") + nats(value, digits) : MISSING;
}

/** A share as a percentage; a dash where there is nothing to share. */
function percent(group) {
  return group.candidates === 0 ? MISSING : `${(100 * group.kept / group.candidates).toFixed(0)}\u202f%`;
}

/** A whole number with separators. */
function whole(value) {
  return SEPARATED.format(value);
}

/** A ratio as the number that stands before the percent sign: 60, 67.5. */
function ratioText(ratio) {
  return String(Number((100 * ratio).toFixed(4)));
}

/** A number of things. */
function counted(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** A model's label. */
function labelOf(corpus, key) {
  return corpus.view.models.find((model) => model.key === key).label;
}

/** The end of a model's label that no other model shares: `slm` of `models/slm`. Folders in front say little, and take the room of what does. */
function shortName(corpus, key) {
  const label = labelOf(corpus, key);
  const others = corpus.view.models.filter((model) => model.key !== key).map((model) => `/${model.label}`);
  const parts = label.split("/");
  // A number alone, as of a checkpoint, says nothing.
  const tails = parts.map((_, i) => parts.slice(parts.length - 1 - i).join("/")).filter((tail) => /\p{L}/u.test(tail));
  return oneLine(tails.find((tail) => !others.some((other) => other.endsWith(`/${tail}`))) ?? label);
}

/** Fills a select with [{ key, label, title }] and chooses one; a title says the whole of a label that was shortened. */
function fill(select, options, chosen) {
  const known = Array.from(select.options, (option) => option.value + "\n" + option.textContent);
  const wanted = options.map((option) => option.key + "\n" + option.label);
  if (known.join("\0") !== wanted.join("\0")) {
    select.replaceChildren(...options.map(({ key, label, title = "" }) => {
      const option = make("option", "", label);
      option.value = key;
      option.title = title;
      return option;
    }));
  }
  select.value = chosen;
  select.title = options.find((option) => option.key === chosen)?.title ?? "";
}
