// Every candidate as a point: the student's loss against the reference's, with the line above (or beside) which tokens
// are kept. Drawn on a canvas, because 100,000 points are too many for elements; the ranges below it say the same in
// numbers, for those who cannot drag.

const MARGIN = { left: 34, right: 8, top: 8, bottom: 32 };

/** The plot and its parts. `choose` is called with { x: [from, to], y: [from, to] }. */
function makeScatter(choose) {
  const canvas = at("plot");
  const plot = { canvas, axes: null, most: 1, box: null, dragged: null, shown: null };
  let start = null;
  const place = (event) => {
    const bounds = canvas.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  };
  const lossesAt = (point) => {
    const clamp = (value) => Math.min(plot.most, Math.max(0, value));
    return {
      x: clamp((point.x - plot.box.left) / plot.box.width * plot.most),
      y: clamp((plot.box.top + plot.box.height - point.y) / plot.box.height * plot.most),
    };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || plot.box === null) return;
    start = place(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const [a, b] = [lossesAt(start), lossesAt(place(event))];
    const sorted = (first, second) => [Math.min(first, second), Math.max(first, second)];
    plot.dragged = { x: sorted(a.x, b.x), y: sorted(a.y, b.y) };
    plot.draw();
  });
  canvas.addEventListener("pointerup", () => {
    start = null;
    if (plot.dragged !== null) choose(plot.dragged);
    plot.dragged = null;
  });
  canvas.addEventListener("pointercancel", () => {
    start = null;
    plot.dragged = null;
    plot.draw();
  });
  let waiting = false;
  const afterFrame = () => setTimeout(() => {
    waiting = false;
    if (plot.shown !== null) drawScatter(plot, plot.shown);
  });
  // After the frame: text and underlines come first, and several calls draw once. The first time one frame later, so that
  // the page is seen before 100,000 points are drawn.
  plot.draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(plot.box === null ? () => requestAnimationFrame(afterFrame) : afterFrame);
  };
  new ResizeObserver(plot.draw).observe(canvas);
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", plot.draw);
  return plot;
}

/** Largest loss of two models, rounded up to a whole nat. */
function mostOf(corpus, axes) {
  let most = 1;
  for (const column of [corpus.losses.get(axes.x), corpus.losses.get(axes.y)]) {
    corpus.candidates.forEach((yes, i) => { if (yes && column[i] > most) most = column[i]; });
  }
  return Math.ceil(most);
}

// `shown`: corpus, axes, names, pane, from and to (tokens), line, chosen (a rectangle or null).
function drawScatter(plot, shown) {
  const { canvas } = plot;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (width === 0) return;
  const scale = window.devicePixelRatio;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  plot.box = { left: MARGIN.left, top: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const x = (loss) => plot.box.left + loss / plot.most * plot.box.width;
  const y = (loss) => plot.box.top + plot.box.height - loss / plot.most * plot.box.height;
  drawAxes(pen, plot, shown, x, y, colour, style.fontFamily);
  const [across, up] = [shown.corpus.losses.get(shown.axes.x), shown.corpus.losses.get(shown.axes.y)];
  const size = shown.to - shown.from > 5000 ? 1.5 : 3;
  for (const kept of [0, 1]) {
    pen.fillStyle = colour(kept ? "--point-kept" : "--point-dropped");
    for (let i = shown.from; i < shown.to; i += 1) {
      if (shown.corpus.candidates[i] && shown.kept[i] === kept) pen.fillRect(x(across[i]) - size / 2, y(up[i]) - size / 2, size, size);
    }
  }
  drawLine(pen, plot, shown, x, y, colour("--ink"));
  const chosen = plot.dragged ?? shown.chosen;
  if (chosen === null) return;
  pen.strokeStyle = colour("--ink");
  pen.setLineDash([4, 3]);
  pen.strokeRect(x(chosen.x[0]), y(chosen.y[1]), x(chosen.x[1]) - x(chosen.x[0]), y(chosen.y[0]) - y(chosen.y[1]));
}

function drawAxes(pen, plot, shown, x, y, colour, family) {
  const step = [1, 2, 5, 10, 20, 50].find((candidate) => plot.most / candidate <= 7) ?? 100;
  pen.font = `11px ${family}`;
  pen.lineWidth = 1;
  for (let loss = 0; loss <= plot.most; loss += step) {
    pen.strokeStyle = colour(loss === 0 ? "--quiet" : "--line");
    pen.beginPath();
    pen.moveTo(x(loss), y(0));
    pen.lineTo(x(loss), y(plot.most));
    pen.moveTo(x(0), y(loss));
    pen.lineTo(x(plot.most), y(loss));
    pen.stroke();
    pen.fillStyle = colour("--quiet");
    pen.textAlign = "center";
    pen.fillText(String(loss), x(loss), y(0) + 14);
    pen.textAlign = "right";
    pen.fillText(String(loss), x(0) - 5, y(loss) + 4);
  }
  pen.textAlign = "right";
  pen.fillText(`${shown.names.x} loss →`, x(plot.most), y(0) + 27);
  pen.save();
  pen.translate(9, plot.box.top);
  pen.rotate(-Math.PI / 2);
  pen.fillText(`${shown.names.y} loss →`, 0, 0);
  pen.restore();
}

// A score's cut-off as a line in the plane of the two losses; null where the score or the scope has none.
function lineOf(key, value, most) {
  if (value === null) return null;
  if (key === "excess_loss") return [[Math.max(0, -value), Math.max(0, value)], [Math.min(most, most - value), Math.min(most, most + value)]];
  if (key === "reference_loss") return [[-value, 0], [-value, most]];
  return key === "current_loss" ? [[0, value], [most, value]] : null;
}

function drawLine(pen, plot, shown, x, y, ink) {
  if (shown.line === null) return;
  const [[x0, y0], [x1, y1]] = shown.line;
  pen.strokeStyle = ink;
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(x(x0), y(y0));
  pen.lineTo(x(x1), y(y1));
  pen.stroke();
  pen.lineWidth = 1;
}
