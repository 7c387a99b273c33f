// Which tokens a ratio keeps: the rule of tokensieve's selection/topk.py, number for number. Scores are float32, higher
// is kept, ties go to the earlier token, and k = floor(ratio * candidates + 0.5) in every unit. Tokens are ranked once
// for a score, a scope and a pair of models; moving the slider only compares ranks with k.

const NOT_RANKED = 0xffffffff;

const SCORES = [
  { key: "excess_loss", label: "Excess loss", needs: ["student", "reference"] },
  { key: "reference_loss", label: "Low reference loss", needs: ["reference"] },
  { key: "current_loss", label: "High student loss", needs: ["student"] },
  { key: "reference_entropy", label: "Low reference entropy", needs: ["reference"], entropy: "reference" },
  { key: "current_entropy", label: "High student entropy", needs: ["student"], entropy: "student" },
];

const SCOPES = [
  { key: "global", label: "All passages" },
  { key: "sequence", label: "Each passage" },
  { key: "document", label: "Whole documents" },
];

/** Whether a score can be computed for a pair { student, reference } of model keys (null: there is none). */
function scoreIsThere(corpus, score, pair) {
  if (!score.needs.every((kind) => pair[kind] !== null)) return false;
  return !score.entropy || corpus.scorable.has(pair[score.entropy]);
}

/** A score of every token, Float32Array; meaningless where there is no candidate. */
function scoreColumn(corpus, key, pair) {
  const student = corpus.losses.get(pair.student);
  const reference = corpus.losses.get(pair.reference);
  if (key === "excess_loss") return difference(student, reference);
  if (key === "reference_loss") return reference.map((loss) => -loss);
  if (key === "current_loss") return student;
  if (key === "reference_entropy") return corpus.entropies.get(pair.reference).map((entropy) => -entropy);
  return corpus.entropies.get(pair.student);
}

/** first - second, rounded to float32 as Python rounds it (a Float32Array stores what Math.fround gives). */
function difference(first, second) {
  return first.map((loss, i) => loss - second[i]);
}

/** Candidates from `first` to before `last`, best first; equal scores keep their order. */
function bestFirst(corpus, column, first, last) {
  const members = [];
  for (let i = first; i < last; i += 1) if (corpus.candidates[i]) members.push(i);
  return Uint32Array.from(members).sort((a, b) => column[b] - column[a] || a - b);
}

/**
 * Ranks all tokens. A token is kept if rank[token] < floor(ratio * members[passage] + 0.5). `places` counts from 1 among
 * the tokens (or documents) it is ranked with, `among` says how many those are, `order` lists tokens best first.
 */
function rankTokens(corpus, key, scope, pair) {
  const column = scoreColumn(corpus, key, pair);
  const count = corpus.passages.length;
  const found = {
    key, scope, pair, column,
    rank: new Uint32Array(corpus.total).fill(NOT_RANKED),
    places: new Uint32Array(corpus.total),
    members: new Uint32Array(count),
    among: new Uint32Array(count),
    orders: [],
    means: null,
  };
  if (scope === "document") return rankDocuments(corpus, found);
  const units = scope === "global" ? [[0, count]] : corpus.passages.map((_, p) => [p, p + 1]);
  for (const [from, to] of units) {
    const order = bestFirst(corpus, column, corpus.starts[from], corpus.starts[to]);
    order.forEach((token, at) => {
      found.rank[token] = at;
      found.places[token] = at + 1;
    });
    found.members.fill(order.length, from, to);
    found.among.fill(order.length, from, to);
    for (let p = from; p < to; p += 1) found.orders[p] = order;
  }
  return found;
}

// Runs of one document inside one passage, by mean score; kept until the next one would exceed the share. A whole run
// has the rank at which its last token fits, so that the slider's comparison is the same as for single tokens.
function rankDocuments(corpus, found) {
  const runs = [];
  const runOf = new Array(corpus.total);
  for (let p = 0; p < corpus.passages.length; p += 1) {
    let run = null;
    for (let i = corpus.starts[p]; i < corpus.starts[p + 1]; i += 1) {
      if (i === corpus.starts[p] || corpus.documents[i] !== corpus.documents[i - 1]) run = { sum: 0, count: 0, at: 0 };
      if (!corpus.candidates[i]) continue;
      if (run.count === 0) {
        run.at = runs.length;
        runs.push(run);
      }
      run.sum += found.column[i];
      run.count += 1;
      runOf[i] = run;
    }
  }
  for (const run of runs) run.mean = run.sum / run.count;
  const sorted = [...runs].sort((a, b) => b.mean - a.mean || a.at - b.at);
  let total = 0;
  sorted.forEach((run, position) => {
    total += run.count;
    run.rank = total - 1;
    run.place = position + 1;
  });
  found.means = new Float64Array(corpus.total).fill(NaN);
  runOf.forEach((run, i) => {
    found.rank[i] = run.rank;
    found.places[i] = run.place;
    found.means[i] = run.mean;
  });
  found.members.fill(total);
  found.among.fill(runs.length);
  return found;
}

/** How many of `members` a ratio keeps. */
function shareOf(members, ratio) {
  return Math.floor(members * ratio + 0.5);
}

/** Kept tokens as 1 in a Uint8Array. */
function keep(corpus, ranking, ratio) {
  const kept = new Uint8Array(corpus.total);
  for (let p = 0; p < corpus.passages.length; p += 1) {
    const k = shareOf(ranking.members[p], ratio);
    for (let i = corpus.starts[p]; i < corpus.starts[p + 1]; i += 1) kept[i] = ranking.rank[i] < k ? 1 : 0;
  }
  return kept;
}

/** The lowest score that is kept in a passage's unit; null if the unit is not ranked token by token, or keeps none. */
function cutOff(ranking, p, ratio) {
  const order = ranking.orders[p];
  const k = shareOf(ranking.members[p], ratio);
  return order === undefined || k === 0 ? null : ranking.column[order[k - 1]];
}

/** { kept, candidates } of everything, of each passage, source and region. */
function tally(corpus, kept) {
  const blank = (count) => Array.from({ length: count }, () => ({ kept: 0, candidates: 0 }));
  const all = { kept: 0, candidates: 0 };
  const passages = blank(corpus.passages.length);
  const sources = blank(corpus.view.sources.length);
  const regions = corpus.regions === null ? null : blank(corpus.view.regions.length);
  for (let i = 0; i < corpus.total; i += 1) {
    if (!corpus.candidates[i]) continue;
    const p = corpus.owner[i];
    passages[p].candidates += 1;
    passages[p].kept += kept[i];
    // A region's number may have no name: 255 stands for none.
    const region = regions === null ? undefined : regions[corpus.regions[i]];
    if (region === undefined) continue;
    region.candidates += 1;
    region.kept += kept[i];
  }
  passages.forEach((group, p) => {
    for (const larger of [all, sources[corpus.passages[p].source]]) {
      larger.candidates += group.candidates;
      larger.kept += group.kept;
    }
  });
  return { all, passages, sources, regions };
}
