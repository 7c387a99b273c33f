// Finds text in all passages, letter case aside. Matches are shown by the browser's highlights, which lie over the text
// without changing it: a match may begin in the middle of one token and end in another.

/** All matches as { passage, from, to }, in the order of the corpus. */
function findText(corpus, query) {
  if (query === "") return [];
  const wanted = new RegExp(query.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu");
  const found = [];
  corpus.passages.forEach((passage, p) => {
    for (const match of passage.text.matchAll(wanted)) found.push({ passage: p, from: match.index, to: match.index + match[0].length });
  });
  return found;
}

/** Text nodes of a pane with the offset at which each begins. */
function textNodes(pane) {
  const walker = document.createTreeWalker(pane.text, NodeFilter.SHOW_TEXT);
  const nodes = [];
  let offset = 0;
  while (walker.nextNode()) {
    nodes.push({ node: walker.currentNode, from: offset });
    offset += walker.currentNode.length;
  }
  return nodes;
}

/** Highlights the matches that lie in the open passage; `current` is the one that was gone to. */
function highlight(panes, matches, current) {
  if (!("highlights" in CSS)) return;
  const ranges = (wanted) => panes.flatMap((pane) => {
    const inside = wanted.filter((match) => match.passage === pane.passage);
    return inside.length === 0 ? [] : rangesOf(textNodes(pane), inside);
  });
  CSS.highlights.set("match", new Highlight(...ranges(matches)));
  CSS.highlights.set("current", new Highlight(...ranges(current === null ? [] : [current])));
}

// Matches come in order, so one pass over the text nodes places them all.
function rangesOf(nodes, matches) {
  let next = 0;
  const advance = (offset) => {
    while (next + 1 < nodes.length && nodes[next + 1].from <= offset) next += 1;
    return next;
  };
  return matches.map(({ from, to }) => {
    const range = new Range();
    const begin = nodes[advance(from)];
    range.setStart(begin.node, from - begin.from);
    const end = nodes[advance(to - 1)];
    range.setEnd(end.node, to - end.from);
    return range;
  });
}

/** The search field and its two buttons. `go` is called with a match. */
function makeFinder(corpus, state, go) {
  const finder = { matches: [], at: null, counts: null };
  const field = at("query");
  const describe = () => {
    const passages = new Set(finder.matches.map((match) => match.passage)).size;
    const where = finder.at === null ? "" : `${whole(finder.at + 1)} of `;
    at("matches").textContent = state.find === "" ? "" : finder.matches.length === 0 ? "Found nowhere." : `${where}${counted(finder.matches.length, "match", "matches")} in ${counted(passages, "passage")}`;
    for (const id of ["find-next", "find-previous"]) at(id).disabled = finder.matches.length === 0;
  };
  finder.search = () => {
    finder.matches = findText(corpus, state.find);
    finder.at = null;
    finder.counts = null;
    if (state.find !== "") {
      finder.counts = new Uint32Array(corpus.passages.length);
      for (const match of finder.matches) finder.counts[match.passage] += 1;
    }
    describe();
  };
  finder.step = (direction) => {
    const count = finder.matches.length;
    if (count === 0) return;
    if (finder.at === null) {
      // From the open passage onwards, so that the first step does not lead away from what is being read.
      const ahead = finder.matches.findIndex((match) => match.passage >= state.passage);
      finder.at = direction > 0 ? Math.max(ahead, 0) : (ahead - 1 + count) % count;
    } else {
      finder.at = (finder.at + direction + count) % count;
    }
    describe();
    go(finder.matches[finder.at]);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    finder.step(event.shiftKey ? -1 : 1);
  });
  at("find-next").addEventListener("click", () => finder.step(1));
  at("find-previous").addEventListener("click", () => finder.step(-1));
  return finder;
}
