"use strict";
// The gallery. What comes from the data is set as text or as numbers, never as markup.

const LARGEST = { "single-threshold": 512, levels: 128 }; // pixels of a side at which boxes are drawn
const LEVELS = Array.from({ length: 16 }, (_, i) => (5 + 5 * i) / 100);
const HEAT = [
  [0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164],
];
const SVG = "http://www.w3.org/2000/svg";

const data = JSON.parse(document.getElementById("data").textContent);
const at = document.getElementById("at");
const cards = document.getElementById("cards");
const slider = document.getElementById("threshold");
let threshold = data.threshold; // which need not be one of the slider's steps

// ---------------------------------------------------------------- from a map to boxes

function decode(map) {
  const bytes = atob(map.values);
  const values = new Float32Array(map.width * map.height);
  for (let i = 0; i < values.length; i++) {
    values[i] = (bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)) / 65535;
  }
  return values;
}

// For each pixel of one axis the two cells around its centre, and the weight of the second.
function between(cells, pixels) {
  return Array.from({ length: pixels }, (_, i) => {
    const place = Math.min(Math.max((i + 0.5) * cells / pixels - 0.5, 0), cells - 1);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, cells - 1), place - first];
  });
}

// The map at a size, bilinear, from 0 to 1; zeros without contrast.
function normalize(map, width, height) {
  const values = decode(map);
  const columns = between(map.width, width);
  const rows = between(map.height, height);
  const heat = new Float32Array(width * height);
  let low = Infinity;
  let high = -Infinity;
  const mix = (row, [left, right, over]) =>
    values[row * map.width + left] * (1 - over) + values[row * map.width + right] * over;
  for (let y = 0; y < height; y++) {
    const [top, bottom, down] = rows[y];
    for (let x = 0; x < width; x++) {
      const above = mix(top, columns[x]);
      const below = mix(bottom, columns[x]);
      const value = above * (1 - down) + below * down;
      heat[y * width + x] = value;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  for (let i = 0; i < heat.length; i++) heat[i] = high > low ? (heat[i] - low) / (high - low) : 0;
  return heat;
}

// A mean over `radius` pixels of a row or column, the borders reflected; of an even radius the
// extra pixel lies before.
function smoothLine(from, to, start, step, count, radius) {
  const half = radius >> 1;
  const reflected = (i) => {
    const period = 2 * count;
    i = ((i % period) + period) % period;
    return from[start + step * (i < count ? i : period - 1 - i)];
  };
  let sum = 0;
  for (let i = -half; i < radius - half; i++) sum += reflected(i);
  for (let i = 0; i < count; i++) {
    to[start + step * i] = sum / radius;
    sum += reflected(i + radius - half) - reflected(i - half);
  }
}

function smooth(heat, width, height, radius) {
  if (radius < 2) return heat;
  const down = new Float32Array(heat.length);
  const both = new Float32Array(heat.length);
  for (let x = 0; x < width; x++) smoothLine(heat, down, x, width, height, radius);
  for (let y = 0; y < height; y++) smoothLine(down, both, y * width, 1, width, radius);
  return both;
}

// Visits everything that 4-neighbours connect to a pixel and `belongs`; returns its box.
function flood(labels, width, height, start, belongs, label) {
  const box = [width, height, 0, 0];
  const waiting = [start];
  labels[start] = label;
  while (waiting.length) {
    const i = waiting.pop();
    const x = i % width;
    const y = (i - x) / width;
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x + 1);
    box[3] = Math.max(box[3], y + 1);
    const neighbours = [
      [i - 1, x > 0], [i + 1, x < width - 1], [i - width, y > 0], [i + width, y < height - 1],
    ];
    for (const [j, inside] of neighbours) {
      if (inside && labels[j] === belongs) {
        labels[j] = label;
        waiting.push(j);
      }
    }
  }
  return box;
}

function componentBoxes(smoothed, width, height, threshold) {
  const BACK = 0, HOT = 1, OUTSIDE = 2, DONE = 3;
  const labels = new Uint8Array(smoothed.length);
  for (let i = 0; i < labels.length; i++) labels[i] = smoothed[i] > threshold ? HOT : BACK;
  for (let x = 0; x < width; x++) {
    for (const i of [x, (height - 1) * width + x]) {
      if (labels[i] === BACK) flood(labels, width, height, i, BACK, OUTSIDE);
    }
  }
  for (let y = 0; y < height; y++) {
    for (const i of [y * width, y * width + width - 1]) {
      if (labels[i] === BACK) flood(labels, width, height, i, BACK, OUTSIDE);
    }
  }
  for (let i = 0; i < labels.length; i++) if (labels[i] === BACK) labels[i] = HOT; // holes
  const boxes = [];
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] === HOT) boxes.push(flood(labels, width, height, i, HOT, DONE));
  }
  return boxes.reverse(); // the last in raster order comes first
}

// The 4-connected regions above a level, without a look at holes.
function regionBoxes(heat, width, height, level) {
  const labels = Uint8Array.from(heat, (value) => (value > Math.fround(level) ? 1 : 0));
  const boxes = [];
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] === 1) boxes.push(flood(labels, width, height, i, 1, 2));
  }
  return boxes;
}

// Of boxes that overlap, the one with the highest score; without those that hardly score.
function suppress(boxes) {
  const kept = [];
  const least = data.least * Math.max(0, ...boxes.map((box) => box[4]));
  for (const box of [...boxes].sort((a, b) => b[4] - a[4])) {
    if (box[4] < least) break;
    if (kept.every((each) => overlap(each, box) <= data.overlap)) kept.push(box);
  }
  return kept;
}

// The boxes of an entry, [xmin, ymin, xmax, ymax, score] in pixels of its picture.
function boxesAt(entry, threshold) {
  const stored = entry.boxes.find((each) => Math.abs(each.at - threshold) < 1e-9);
  return stored ? stored.boxes : drawBoxes(entry, threshold);
}

function drawBoxes(entry, threshold) {
  const scale = Math.min(1, LARGEST[data.rules] / Math.max(...entry.size));
  const [width, height] = entry.size.map((side) => Math.max(1, Math.round(side * scale)));
  entry.heat ??= normalize(entry.map, width, height);
  entry.smoothed ??= smooth(entry.heat, width, height, Math.round(data.radius * scale));
  const total = entry.heat.reduce((a, b) => a + b, 0);
  const scored = (box) => {
    let inside = 0;
    for (let y = box[1]; y < box[3]; y++) {
      for (let x = box[0]; x < box[2]; x++) inside += entry.heat[y * width + x];
    }
    const share = total ? Math.min(1, inside / total) : 0;
    const density = inside / ((box[2] - box[0]) * (box[3] - box[1]));
    const scores = {
      density: Math.cbrt(entry.probability) * share * density,
      heat: entry.probability * share,
      constant: 1,
    };
    return [...box, scores[data.score]];
  };
  const levels = [threshold, ...LEVELS.filter((level) => level > threshold)];
  const singleThresholdBoxes = () =>
    entry.heat.reduce((a, b) => Math.max(a, b), 0) > Math.fround(threshold)
      ? componentBoxes(entry.smoothed, width, height, threshold)
      : [[0, 0, width, height]];
  const found = data.rules === "levels"
    ? suppress(levels.flatMap((at) => regionBoxes(entry.smoothed, width, height, at)).map(scored))
    : singleThresholdBoxes().map(scored);
  const across = entry.size[0] / width;
  const down = entry.size[1] / height;
  return found.map(([left, top, right, bottom, score]) =>
    [left * across, top * down, right * across, bottom * down, score]);
}

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

// The score and the IoU of the most confident box.
function fit(entry, boxes) {
  const objects = entry.objects.filter((_, i) => !entry.difficult[i]);
  const best = boxes.reduce((a, b) => (a && a[4] >= b[4] ? a : b), null);
  const iou = best ? Math.max(0, ...objects.map((each) => overlap(best, each))) : 0;
  return { score: best ? best[4] : 0, iou: objects.length ? iou : null };
}

// ---------------------------------------------------------------- the cards

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function rectangle(box, className) {
  const made = document.createElementNS(SVG, "rect");
  const [x, y, right, bottom] = box;
  const numbers = { x, y, width: right - x, height: bottom - y };
  for (const [name, value] of Object.entries(numbers)) made.setAttribute(name, value);
  made.setAttribute("class", className);
  return made;
}

function paint(canvas, map) {
  const values = decode(map);
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.width, map.height);
  values.forEach((value, i) => {
    const place = value * (HEAT.length - 1);
    const low = Math.min(Math.floor(place), HEAT.length - 2);
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = HEAT[low][c] + (place - low) * (HEAT[low + 1][c] - HEAT[low][c]);
    }
    pixels.data[4 * i + 3] = 178 * value; // 0.7 at the hottest
  });
  context.putImageData(pixels, 0, 0);
}

function makeCard(entry) {
  const card = element("li");
  const figure = element("figure");
  const view = element("div", "view");
  const caption = element("figcaption");
  caption.append(element("div", "name", entry.file), element("div", "values"));
  figure.append(view, caption);
  card.append(figure);
  return card;
}

function fill(entry) {
  const view = entry.card.querySelector(".view");
  if (!view.firstChild) {
    const frame = element("div", "frame");
    const picture = element("img");
    picture.alt = `${entry.class} in ${entry.file}`;
    picture.src = entry.picture;
    entry.svg = document.createElementNS(SVG, "svg");
    entry.svg.setAttribute("viewBox", `0 0 ${entry.size[0]} ${entry.size[1]}`);
    entry.svg.setAttribute("preserveAspectRatio", "none");
    entry.svg.setAttribute("aria-hidden", "true");
    const canvas = element("canvas");
    paint(canvas, entry.map);
    frame.append(picture, canvas, entry.svg);
    view.append(frame);
  }
  if (entry.drawnAt === threshold) return;
  entry.drawnAt = threshold;
  const boxes = boxesAt(entry, threshold);
  const { score, iou } = fit(entry, boxes);
  entry.svg.replaceChildren(
    ...[...entry.objects, ...boxes].map((box) => rectangle(box, "rim")),
    ...entry.objects.map((box, i) => rectangle(box, entry.difficult[i] ? "difficult" : "truth")),
    ...boxes.map((box) => rectangle(box, "box")),
  );
  entry.card.querySelector(".values").textContent =
    `${entry.class} ${(100 * entry.probability).toFixed(0)} %, ` +
    `${boxes.length} ${boxes.length === 1 ? "box" : "boxes"}, score ${score.toFixed(2)}, ` +
    `IoU ${iou === null ? "-" : iou.toFixed(2)}`;
}

const visible = new Set();
const watcher = new IntersectionObserver((changes) => {
  for (const change of changes) {
    const entry = data.entries[change.target.dataset.index];
    if (change.isIntersecting) {
      visible.add(entry);
      fill(entry);
    } else {
      visible.delete(entry);
      entry.heat = entry.smoothed = null; // a thousand pictures' worth would be gigabytes
    }
  }
}, { rootMargin: "300px" });

const worth = (entry) => (entry.iou === null ? 2 : entry.iou);
const ORDERS = {
  worst: (a, b) => worth(a) - worth(b) || b.score - a.score,
  best: (a, b) => (b.iou ?? -1) - (a.iou ?? -1) || b.score - a.score,
  confident: (a, b) => b.score - a.score,
  doubtful: (a, b) => a.score - b.score,
  name: (a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : 0),
};

function arrange() {
  const wanted = document.getElementById("class").value;
  const order = ORDERS[document.getElementById("order").value];
  const chosen = data.entries.filter((entry) => !wanted || entry.class === wanted).sort(order);
  cards.replaceChildren(...chosen.map((entry) => entry.card));
  document.getElementById("shown").textContent =
    `${chosen.length} ${chosen.length === 1 ? "heatmap" : "heatmaps"}`;
}

let waiting = 0;
function redraw() {
  at.textContent = Number(threshold.toFixed(4));
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => visible.forEach(fill));
}

data.entries.forEach((entry, i) => {
  entry.card = makeCard(entry);
  entry.card.dataset.index = i;
  watcher.observe(entry.card);
});
for (const name of [...new Set(data.entries.map((entry) => entry.class))].sort()) {
  const option = element("option", "", name);
  option.value = name;
  document.getElementById("class").append(option);
}
slider.value = threshold;
slider.addEventListener("input", () => {
  threshold = Number(slider.value);
  redraw();
});
document.getElementById("order").addEventListener("change", arrange);
document.getElementById("class").addEventListener("change", arrange);
document.getElementById("heat").addEventListener("change", (event) => {
  cards.classList.toggle("no-heat", !event.target.checked);
});
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
arrange();
redraw();
