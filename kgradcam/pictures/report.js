"use strict";
// Draws the cards of the gallery, and fills them as they scroll into view. It computes no boxes.
// Text from the data is set with textContent or as an attribute, never as markup.

const SVG = "http://www.w3.org/2000/svg";

const data = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("cards");
const slider = document.getElementById("threshold");
let step = data.step;

// The boxes at a step of the slider, best first: [xmin, ymin, xmax, ymax, score, IoU].
function boxesAt(card, step) {
  const [, ...shown] = card.changes.findLast(([from]) => from <= step);
  return shown.map((i) => card.boxes[i]);
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function image(className, source, text) {
  const made = element("img", className);
  made.alt = text;
  made.src = source;
  return made;
}

function rectangle([xmin, ymin, xmax, ymax], className) {
  const made = document.createElementNS(SVG, "rect");
  const attributes = { x: xmin, y: ymin, width: xmax - xmin, height: ymax - ymin, class: className };
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function makeItem(card) {
  const item = element("li");
  const figure = element("figure");
  const caption = element("figcaption");
  caption.append(element("div", "name", card.file), element("div", "values"));
  const view = element("button", "view");
  view.type = "button";
  view.setAttribute("aria-label", `enlarge ${card.class} in ${card.file}`);
  view.addEventListener("click", () => enlarge(card));
  figure.append(view, caption);
  item.append(figure);
  return item;
}

// Pictures are decoded only for cards in view: a thousand at once would take gigabytes.
function fill(card) {
  if (!card.svg) {
    card.svg = document.createElementNS(SVG, "svg");
    card.svg.setAttribute("viewBox", `0 0 ${card.size[0]} ${card.size[1]}`);
    card.svg.setAttribute("preserveAspectRatio", "none");
    card.svg.setAttribute("aria-hidden", "true");
    const frame = element("div", "frame");
    const photo = image("photo", data.photos[card.file], `${card.class} in ${card.file}`);
    frame.append(photo, image("heat", card.heat, ""), card.svg);
    card.item.querySelector(".view").append(frame);
  }
  if (card.drawnAt === step) return;
  card.drawnAt = step;
  const boxes = boxesAt(card, step);
  card.svg.replaceChildren(
    ...[...card.objects, ...boxes].map((box) => rectangle(box, "rim")),
    ...card.objects.map((box, i) => rectangle(box, card.difficult[i] ? "difficult" : "truth")),
    ...boxes.map((box) => rectangle(box, "box")),
  );
  // Without a box, an object that counts is missed: its IoU is 0.
  const [score, iou] = boxes.length ? boxes[0].slice(4) : [0, card.iou === null ? null : 0];
  card.item.querySelector(".values").textContent =
    `${card.class} ${(100 * card.probability).toFixed(0)} %, ` +
    `${boxes.length} ${boxes.length === 1 ? "box" : "boxes"}, score ${score.toFixed(2)}, ` +
    `IoU ${iou === null ? "-" : iou.toFixed(2)}`;
}

const dialog = document.getElementById("large");
let chosen = []; // the cards that pass the filters, in order
let enlarged = null;

function enlarge(card) {
  enlarged = card;
  fill(card);
  const [width, height] = card.size;
  const frame = card.item.querySelector(".frame").cloneNode(true);
  frame.style.width = `min(90vw, ${(75 * width) / height}vh)`;
  dialog.querySelector(".view").replaceChildren(frame);
  dialog.querySelector(".caption").textContent =
    `${card.file}: ${card.item.querySelector(".values").textContent}`;
  if (!dialog.open) dialog.showModal();
}

function walk(by) {
  const next = chosen[chosen.indexOf(enlarged) + by];
  if (next) enlarge(next);
}

const visible = new Set();
const observer = new IntersectionObserver((changes) => {
  for (const change of changes) {
    const card = data.cards[change.target.dataset.index];
    if (change.isIntersecting) {
      visible.add(card);
      fill(card);
    } else {
      visible.delete(card);
    }
  }
}, { rootMargin: "300px" });

const byScore = (a, b) => b.score - a.score;
const ORDERS = {
  worst: (a, b) => (a.iou ?? 2) - (b.iou ?? 2) || byScore(a, b),
  best: (a, b) => (b.iou ?? -1) - (a.iou ?? -1) || byScore(a, b),
  confident: byScore,
  doubtful: (a, b) => b.doubt - a.doubt,
  name: (a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : 0),
};

function arrange() {
  const value = (id) => document.getElementById(id).value;
  const [name, most, least] = [value("file").toLowerCase(), value("most"), value("least")];
  const kept = (card) =>
    (!value("class") || card.class === value("class")) &&
    card.file.toLowerCase().includes(name) &&
    (card.iou === null ? most === "" || most >= 1 : most === "" || card.iou <= most) &&
    card.score >= least;
  chosen = data.cards.filter(kept).sort(ORDERS[value("order")]);
  list.replaceChildren(...chosen.map((card) => card.item));
  document.getElementById("shown").textContent =
    `${chosen.length} ${chosen.length === 1 ? "heatmap" : "heatmaps"}`;
}

let frame = 0;
function redraw() {
  const threshold = String(Number(data.thresholds[step].toFixed(4)));
  document.getElementById("at").textContent = threshold;
  slider.setAttribute("aria-valuetext", threshold); // its value is the index of a step
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    visible.forEach(fill);
    if (dialog.open) enlarge(enlarged);
  });
}

data.cards.forEach((card, i) => {
  card.item = makeItem(card);
  card.item.dataset.index = i;
  observer.observe(card.item);
});
for (const name of [...new Set(data.cards.map((card) => card.class))].sort()) {
  const option = element("option", "", name);
  option.value = name;
  document.getElementById("class").append(option);
}
if (data.cards.every((card) => card.iou === null)) document.getElementById("order").value = "doubtful";
slider.value = step;
slider.addEventListener("input", () => {
  step = Number(slider.value);
  redraw();
});
for (const id of ["order", "class"]) document.getElementById(id).addEventListener("change", arrange);
for (const id of ["file", "most", "least"]) document.getElementById(id).addEventListener("input", arrange);
document.getElementById("previous").addEventListener("click", () => walk(-1));
document.getElementById("next").addEventListener("click", () => walk(1));
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) walk(by);
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
window.addEventListener("beforeprint", () => chosen.forEach(fill));
document.getElementById("heat").addEventListener("change", (event) => {
  list.classList.toggle("no-heat", !event.target.checked);
});
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
arrange();
redraw();
