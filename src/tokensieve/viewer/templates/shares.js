// The share kept of everything, of the open passage, and by source and region: bars with numbers, beside the slider that
// moves them. A mark on each bar stands at the chosen ratio, so that what is favoured shows at a glance.

const FEW = 12;

/** Makes the rows of one group. */
function makeShares(title, names) {
  const group = make("div", "share-group");
  group.append(make("h3", "", title));
  const list = make("ul");
  const rows = names.map((name) => {
    const item = make("li");
    const track = make("span", "track");
    track.setAttribute("aria-hidden", "true");
    const fill = make("span", "fill");
    track.append(fill);
    const value = make("span", "value");
    const label = make("bdi", "name", name);
    item.append(label, value, track);
    list.append(item);
    return { item, label, fill, value };
  });
  if (names.length > FEW) list.className = "many";
  group.append(list);
  at("share-groups").append(group);
  return rows;
}

/** All groups of the page. */
function makeAllShares(corpus) {
  return {
    whole: makeShares("Overall", ["All passages", "This passage"]),
    sources: makeShares("By source", corpus.view.sources.map(oneLine)),
    regions: corpus.regions === null ? null : makeShares("By region", corpus.view.regions.map(oneLine)),
  };
}

/** Moves the bars. */
function showShares(state, shares, tallies) {
  at("share-groups").style.setProperty("--ratio", `${100 * state.ratio}%`);
  showRows(shares.whole, [tallies.all, tallies.passages[state.passage]]);
  showRows(shares.sources, tallies.sources);
  if (shares.regions !== null) showRows(shares.regions, tallies.regions);
}

function showRows(rows, groups) {
  rows.forEach(({ item, fill, value }, i) => {
    const group = groups[i];
    fill.style.width = `${group.candidates === 0 ? 0 : 100 * group.kept / group.candidates}%`;
    value.textContent = percent(group);
    item.title = `${whole(group.kept)} of ${counted(group.candidates, "candidate")}`;
    item.dataset.kept = group.kept;
    item.dataset.candidates = group.candidates;
    item.hidden = group.candidates === 0;
  });
}
