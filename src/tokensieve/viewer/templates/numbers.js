// Every number of the open passage as a table to copy, at full precision: what a reader takes elsewhere, and how it is
// checked that the page shows what the stores hold. An empty field is a token without that number.

/** Tab-separated rows: position from 1, id, token as JSON, losses, entropies, excess, score, rank and kept. */
function tableOf(corpus, pane) {
  const { student, reference } = pane.pair;
  const both = student !== null && reference !== null;
  // A label may hold a tab or a line end.
  const heads = (name, columns) => [...columns.keys()].map((key) => oneLine(`${name} ${labelOf(corpus, key)}`));
  const names = ["position", "id", "token", ...heads("loss", corpus.losses), ...heads("entropy", corpus.entropies)];
  if (both) names.push("excess");
  names.push("score", "rank", "kept");
  const lines = [names.join("\t")];
  const number = (value) => (Number.isNaN(value) ? "" : String(value));
  for (let i = 0; i < pane.spans.length; i += 1) {
    const token = pane.first + i;
    const row = [i + 1, corpus.ids[token], JSON.stringify(tokenText(corpus, token))];
    for (const column of corpus.losses.values()) row.push(number(column[token]));
    for (const column of corpus.entropies.values()) row.push(number(column[token]));
    if (both) row.push(number(Math.fround(corpus.losses.get(student)[token] - corpus.losses.get(reference)[token])));
    const candidate = corpus.candidates[token] === 1;
    row.push(candidate ? number(pane.ranking.column[token]) : "", candidate ? pane.ranking.places[token] : "", pane.kept[token]);
    lines.push(row.join("\t"));
  }
  return lines.join("\n");
}

/** Wires the button. */
function makeNumbers(corpus, paneNow) {
  at("numbers-open").addEventListener("click", () => {
    at("numbers-table").value = tableOf(corpus, paneNow());
    at("numbers").showModal();
    at("numbers-table").select();
    at("numbers-table").scrollTo(0, 0);
  });
}
