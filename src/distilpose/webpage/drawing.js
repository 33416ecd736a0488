// Draw a result: skeletons, the table of joints, heat maps. Names come from checkpoints, so they are only inserted as text.

import { element } from "./boxes.js";

// One view for each model: the image with boxes and skeletons over it. Boxes are edited in the first view.
export function makeView(place, model, first) {
  const figure = document.createElement("figure");
  const stage = document.createElement("div");
  stage.className = "stage";
  const image = document.createElement("img");
  image.alt = "the photograph";
  const svg = element("svg", first ? { role: "application", tabindex: 0 } : { role: "img" });
  svg.setAttribute("aria-label", `Poses of ${model.name}`);
  const [frames, skeletons] = [element("g"), element("g")];
  svg.append(frames, skeletons);
  stage.append(image, svg);
  const caption = document.createElement("figcaption");
  caption.textContent = model.scores_trained ? model.name : `${model.name} (trained without confidences: all are 1)`;
  figure.append(stage, caption);
  place.append(figure);
  return { model, stage, image, svg, frames, skeletons };
}

// Draw the skeletons of all persons into an SVG layer. model: an entry of /about; poses: its keypoints and scores.
export function drawSkeletons(layer, model, poses, { threshold, unit, person, joint }) {
  layer.replaceChildren();
  poses.keypoints.forEach((places, number) => {
    const scores = poses.scores[number];
    const shown = scores.map((score) => score > threshold);
    const width = (number === person ? 3 : 2) * unit;
    for (const [start, end] of model.limbs) {
      if (!shown[start] || !shown[end]) continue;
      const side = model.sides[start] === model.sides[end] ? model.sides[start] : "centre";
      const [x1, y1] = places[start];
      const [x2, y2] = places[end];
      layer.append(element("line", { x1, y1, x2, y2, "stroke-width": width }, "limb", side));
    }
    places.forEach(([cx, cy], index) => {
      if (!shown[index]) return;
      const opacity = Math.min(1, Math.max(0.15, scores[index]));
      const look = { cx, cy, r: 4.5 * unit, "stroke-width": 1.2 * unit, opacity };
      layer.append(element("circle", look, "joint", model.sides[index]));
    });
    if (number === person && joint !== null && joint >= 0) {
      const [cx, cy] = places[joint];
      layer.append(element("circle", { cx, cy, r: 9 * unit, "stroke-width": 2.5 * unit }, "joint", "ring"));
    }
  });
}

// The joint nearest to a point, as { person, joint }, within a distance in image pixels; null if there is none.
export function nearestJoint(poses, threshold, [x, y], reach) {
  let best = null;
  poses.keypoints.forEach((places, person) =>
    places.forEach(([u, v], joint) => {
      const distance = Math.hypot(u - x, v - y);
      if (poses.scores[person][joint] > threshold && distance <= (best?.distance ?? reach)) best = { person, joint, distance };
    }),
  );
  return best;
}

function cell(row, kind, text = "", name = "") {
  const field = document.createElement(kind);
  field.textContent = text;
  if (name) field.className = name;
  row.append(field);
  return field;
}

function level(score) {
  const bar = document.createElement("span");
  bar.className = "level";
  const filled = document.createElement("span");
  filled.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
  bar.append(filled);
  return bar;
}

// The table of one person's joints. models: those of /about; pick(joint) is called when a joint is chosen.
export function fillTable(section, models, result, { threshold, person, joint, pick }) {
  const [model, other] = models;
  const head = document.createElement("tr");
  const titles = other ? ["joint", `confidence: ${model.name}`, `confidence: ${other.name}`, "apart (px)"] : ["joint", "confidence", "x, y (px)"];
  for (const title of titles) cell(head, "th", title).scope = "col";
  section.querySelector("thead").replaceChildren(head);
  const rows = model.joints.map((name, index) => {
    const row = document.createElement("tr");
    const score = result.models[0].scores[person][index];
    row.classList.toggle("below", score <= threshold);
    row.classList.toggle("picked", index === joint);
    const title = cell(row, "th");
    title.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.className = `name ${model.sides[index]}`;
    button.textContent = name;
    button.setAttribute("aria-pressed", index === joint);
    button.addEventListener("click", () => pick(index));
    title.append(button);
    cell(row, "td", "", "number").append(level(score), score.toFixed(2));
    if (other) {
      const place = other.joints.indexOf(name);
      const otherScore = place < 0 ? null : result.models[1].scores[person][place];
      const field = cell(row, "td", otherScore === null ? "none" : "", "number");
      if (otherScore !== null) field.append(level(otherScore), otherScore.toFixed(2));
      const apart = result.distances[person][index];
      cell(row, "td", apart === null ? "" : apart.toFixed(1), "number");
    } else {
      cell(row, "td", result.models[0].keypoints[person][index].map((value) => value.toFixed(1)).join(", "), "number");
    }
    return row;
  });
  section.querySelector("tbody").replaceChildren(...rows);
}

async function picture(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

// Draw the heat map of one joint over the crop. The sheet holds the maps of all joints, one below the other.
export async function drawMap(canvas, { crop, maps }, joint, count) {
  const turn = (canvas.turn ?? 0) + 1;
  canvas.turn = turn;
  const [below, sheet] = await Promise.all([picture(crop), picture(maps)]);
  if (canvas.turn !== turn) return; // another joint was chosen in the meantime
  const factor = Math.max(1, Math.round(512 / below.height));
  [canvas.width, canvas.height] = [below.width * factor, below.height * factor];
  const brush = canvas.getContext("2d");
  brush.drawImage(below, 0, 0, canvas.width, canvas.height);
  brush.fillStyle = "rgb(0 0 0 / 45%)";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  const height = sheet.height / count;
  brush.drawImage(sheet, 0, joint * height, sheet.width, height, 0, 0, canvas.width, canvas.height);
}
