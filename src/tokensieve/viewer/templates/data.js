// Decodes the page's data into flat columns, one entry a token of all passages in order: ranking, searching and drawing
// then run over typed arrays, and the open passage is a slice. viewer/encoding.py describes the format.

const UNKNOWN = 255;

/** Bytes of a base64 string. */
function bytesOf(text) {
  // The browser's own decoder, where there is one: a tenth of the time of the loop below.
  if (Uint8Array.fromBase64 !== undefined) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Unsigned LEB128 numbers, written into `target` from `at` on. */
function readWhole(text, target, at) {
  const bytes = bytesOf(text);
  let value = 0;
  let scale = 1;
  let next = at;
  for (const byte of bytes) {
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte < 128) {
      target[next] = value;
      next += 1;
      value = 0;
      scale = 1;
    }
  }
}

/** The value of each of the 65,536 float16 bit patterns. */
function halfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits += 1) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}

/** Losses or entropies of every model that has them in all passages: Map of key to Float32Array. */
function readHalves(view, starts, name, table) {
  const total = starts[view.passages.length];
  const columns = new Map();
  for (const { key } of view.models) {
    if (!view.passages.every((passage) => Object.hasOwn(passage[name], key))) continue;
    const column = new Float32Array(total);
    view.passages.forEach((passage, p) => {
      const bytes = bytesOf(passage[name][key]);
      for (let i = 0; 2 * i < bytes.length; i += 1) {
        column[starts[p] + i] = table[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
      }
    });
    columns.set(key, column);
  }
  return columns;
}

/** A column of bytes, or null where a passage lacks it. */
function readBytes(view, starts, name) {
  if (!view.passages.every((passage) => Object.hasOwn(passage, name))) return null;
  const column = new Uint8Array(starts[view.passages.length]);
  view.passages.forEach((passage, p) => column.set(bytesOf(passage[name]), starts[p]));
  return column;
}

/** Everything the page knows. Tokens are numbered through all passages; `ends` counts UTF-16 units in a passage. */
function readCorpus(view) {
  const { passages } = view;
  const starts = new Uint32Array(passages.length + 1);
  passages.forEach((passage, p) => { starts[p + 1] = starts[p] + passage.tokens; });
  const total = starts[passages.length];
  const ids = new Uint32Array(total);
  const ends = new Uint32Array(total);
  const documents = new Uint32Array(total);
  const owner = new Uint32Array(total);
  passages.forEach((passage, p) => {
    readWhole(passage.ids, ids, starts[p]);
    readWhole(passage.lengths, ends, starts[p]);
    if (Object.hasOwn(passage, "documents")) readWhole(passage.documents, documents, starts[p]);
    owner.fill(p, starts[p], starts[p + 1]);
    for (let i = starts[p] + 1; i < starts[p + 1]; i += 1) ends[i] += ends[i - 1];
  });
  const table = halfTable();
  const losses = readHalves(view, starts, "losses", table);
  const entropies = readHalves(view, starts, "entropies", table);
  const candidates = new Uint8Array(total).fill(1);
  for (const column of losses.values()) column.forEach((loss, i) => { if (Number.isNaN(loss)) candidates[i] = 0; });
  // Entropies that a score can use: those without a gap.
  const scorable = new Set();
  for (const [key, column] of entropies) if (column.every((value, i) => !candidates[i] || !Number.isNaN(value))) scorable.add(key);
  const regions = view.regions === null ? null : readBytes(view, starts, "regions");
  const categories = readBytes(view, starts, "categories");
  return { view, passages, starts, total, ids, ends, documents, owner, losses, entropies, scorable, candidates, regions, categories };
}

/** The text of one token. */
function tokenText(corpus, token) {
  const p = corpus.owner[token];
  const from = token === corpus.starts[p] ? 0 : corpus.ends[token - 1];
  return corpus.passages[p].text.slice(from, corpus.ends[token]);
}

/** The token of a passage that holds the character at `offset`. */
function tokenAt(corpus, p, offset) {
  let low = corpus.starts[p];
  let high = corpus.starts[p + 1] - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (corpus.ends[middle] > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The middle value of columns at the candidates; NaN if there is none. */
function medianOf(corpus, columns) {
  const found = new Float32Array(columns.length * corpus.total);
  let count = 0;
  for (const column of columns) {
    for (let i = 0; i < corpus.total; i += 1) {
      if (!corpus.candidates[i]) continue;
      found[count] = column[i];
      count += 1;
    }
  }
  if (count === 0) return NaN;
  const sorted = found.subarray(0, count).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
