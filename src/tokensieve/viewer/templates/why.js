// One sentence that says why a token is kept or dropped. "Hard" is a loss above the median of the two models' losses at
// all candidates of the page, "ahead" is a lead of more than a quarter of a nat; both are stated in the help.

const AHEAD = 0.25;

/** The numbers that the sentences rest on, for a pair of models: each computed when it is first asked for, because the first paint needs none. */
function thresholdsOf(corpus, pair) {
  const columns = [pair.student, pair.reference].filter((key) => key !== null).map((key) => corpus.losses.get(key));
  const entropy = (key) => (corpus.entropies.has(key) ? medianOf(corpus, [corpus.entropies.get(key)]) : NaN);
  const known = new Map();
  const once = (name, compute) => {
    if (!known.has(name)) known.set(name, compute());
    return known.get(name);
  };
  return {
    get hard() { return once("hard", () => medianOf(corpus, columns)); },
    get student() { return once("student", () => entropy(pair.student)); },
    get reference() { return once("reference", () => entropy(pair.reference)); },
  };
}

/** The sentence. `ranking` is the one the choice came from, `kept` whether the token is kept. */
function why(corpus, ranking, thresholds, token, kept, ratio) {
  if (!corpus.candidates[token]) return whyNoCandidate(corpus, token);
  if (ratio === 1) return "Kept: at 100\u202f% every candidate is.";
  if (ranking.scope === "document") return whyDocument(corpus, ranking, token, kept);
  const { student, reference } = ranking.pair;
  if (ranking.key === "excess_loss") {
    return whyExcess(corpus.losses.get(student)[token], corpus.losses.get(reference)[token], thresholds.hard, kept);
  }
  if (ranking.key === "reference_loss") return whyReference(corpus.losses.get(reference)[token] > thresholds.hard, kept);
  if (ranking.key === "current_loss") return whyStudent(corpus.losses.get(student)[token] > thresholds.hard, kept);
  if (ranking.key === "reference_entropy") {
    return whyReferenceEntropy(corpus.entropies.get(reference)[token] > thresholds.reference, kept);
  }
  return whyStudentEntropy(corpus.entropies.get(student)[token] > thresholds.student, kept);
}

function whyNoCandidate(corpus, token) {
  const columns = [...corpus.losses.values()];
  return columns.every((column) => Number.isNaN(column[token]))
    ? "No candidate: the first token of a window or document, predicted from nothing."
    : "No candidate: not every model here has a loss for it.";
}

function whyExcess(student, reference, hard, kept) {
  const excess = student - reference;
  const lead = `${nats(Math.abs(excess))} nats`;
  if (kept) {
    if (excess < AHEAD) return "Kept only because the ratio reaches down to it: the reference is not ahead of the student.";
    if (student > hard && reference <= hard) return "Kept: the student finds it hard and the reference does not: something to learn.";
    if (student > hard) return `Kept: hard for both models, but the reference is ${lead} ahead: something to learn.`;
    return `Kept: easy for both models, yet the reference is still ${lead} ahead.`;
  }
  if (excess >= AHEAD) return `Dropped: the reference is ${lead} ahead, but the ratio is used up by tokens with a larger lead.`;
  if (student > hard && reference > hard) {
    const more = excess <= -AHEAD ? ", the reference even more so" : "";
    return `Dropped: both models find it hard${more}: nothing to learn here.`;
  }
  if (excess <= -AHEAD) return `Dropped: the student is ahead of the reference, by ${lead}.`;
  if (student <= hard && reference <= hard) return "Dropped: both models find it easy: learned already.";
  return "Dropped: the two models find it equally hard: nothing to learn here.";
}

function whyReference(hard, kept) {
  if (kept) return hard ? "Kept only because the ratio reaches down to it: the reference finds it hard." : "Kept: the reference finds it easy: text of the kind that is wanted.";
  return hard ? "Dropped: the reference finds it hard: probably noise." : "Dropped: the reference finds it easy, but others easier still.";
}

function whyStudent(hard, kept) {
  if (kept) return hard ? "Kept: the student finds it hard; whether it can be learned, only a reference could tell." : "Kept only because the ratio reaches down to it: the student finds it easy.";
  return hard ? "Dropped: the student finds it hard, but others harder still." : "Dropped: the student finds it easy: learned already.";
}

function whyReferenceEntropy(unsure, kept) {
  if (kept) return unsure ? "Kept only because the ratio reaches down to it: the reference is unsure what comes here." : "Kept: the reference is sure what comes here.";
  return unsure ? "Dropped: the reference is unsure what comes here." : "Dropped: the reference is sure what comes here, but surer elsewhere.";
}

function whyStudentEntropy(unsure, kept) {
  if (kept) return unsure ? "Kept: the student is unsure what comes here." : "Kept only because the ratio reaches down to it: the student is sure what comes here.";
  return unsure ? "Dropped: the student is unsure what comes here, but more so elsewhere." : "Dropped: the student is sure what comes here.";
}

function whyDocument(corpus, ranking, token, kept) {
  const place = `its mean score ranks ${whole(ranking.places[token])} of ${counted(ranking.among[corpus.owner[token]], "document")}`;
  return kept ? `Kept with its whole document: ${place}.` : `Dropped with its whole document: ${place}, and the share kept ends before it.`;
}

/** What the sentences call hard, for the help. */
function thresholdWords(thresholds, pair) {
  const both = pair.student !== null && pair.reference !== null;
  const found = Number.isFinite(thresholds.hard)
    ? `“Hard” means a loss above ${nats(thresholds.hard)} nats, the median of ${both ? "both models’" : "the model’s"} losses on this page; “easy” is the rest.`
    : "No token of this page is a candidate.";
  const unsure = [["student", thresholds.student], ["reference", thresholds.reference]]
    .filter(([, value]) => Number.isFinite(value))
    .map(([kind, value]) => ` The ${kind} is “unsure” where its entropy is above its median here, ${nats(value)} nats.`);
  return found + (both ? ` “Ahead” means by ${AHEAD} nats or more.` : "") + unsure.join("");
}
