// The page: selection, requests to the server, and drawing.

import { BoxEditor, outline } from "./boxes.js";
import { setUpCamera } from "./camera.js";
import { drawMap, drawSkeletons, fillTable, makeView, nearestJoint } from "./drawing.js";

const DEBOUNCE = 400; // ms without a change before a prediction
const find = (name) => document.getElementById(name);
const state = { photo: null, url: null, result: null, stale: false, person: 0, joint: null, busy: false, again: false, timer: 0, turn: 0 };
let about = null;
let views = [];
let editor = null;

function fail(message) {
  find("error").textContent = message;
  find("error").hidden = !message;
}

function setStatus(text) {
  find("status").textContent = text;
}

async function setUp() {
  const answer = await fetch("about");
  if (!answer.ok) throw new Error(answer.statusText);
  about = await answer.json();
  const describe = (model) => `${model.name} (${model.model}, ${(model.parameters / 1e6).toFixed(2)} M parameters)`;
  const texts = about.models.map(describe);
  find("models").textContent = texts.join(" beside ") + (about.teacher ? `; teacher: ${describe(about.teacher)}` : "");
  views = about.models.map((model, index) => makeView(find("pictures"), model, index === 0));
  const svg = views[0].svg;
  svg.classList.add("edited");
  svg.setAttribute("aria-describedby", "hint");
  editor = new BoxEditor(svg, views[0].frames, { changed, chosen, tapped, canAdd });
  svg.addEventListener("keydown", (event) => editor.key(event));
  find("persons").addEventListener("keydown", (event) => editor.key(event));
  new ResizeObserver(() => draw()).observe(svg);
}

function canAdd(count) {
  const most = about.limits.max_persons;
  if (count >= most) fail(`There are at most ${most} boxes: delete one first.`);
  return count < most;
}

// ---- the image

async function take(blob) {
  if (!blob || !about) return;
  const turn = (state.turn += 1);
  fail("");
  const most = about.limits.max_megabytes;
  if (blob.size > most * 2 ** 20) {
    fail(`The image has ${(blob.size / 2 ** 20).toFixed(1)} MB: send one of at most ${most} MB.`);
    return;
  }
  const url = URL.createObjectURL(blob);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(url);
    if (state.turn === turn) fail("The file is damaged or not an image: give a JPEG, PNG or WebP file.");
    return;
  }
  if (state.turn !== turn) return URL.revokeObjectURL(url); // another image was chosen in the meantime
  if (state.url) URL.revokeObjectURL(state.url);
  Object.assign(state, { photo: blob, url, result: null, stale: false, person: 0, joint: null });
  find("work").hidden = false;
  for (const view of views) {
    view.image.src = url;
    view.stage.style.maxWidth = `min(${(72 * image.naturalWidth) / image.naturalHeight}vh, ${4 * image.naturalWidth}px)`;
    view.svg.setAttribute("viewBox", `0 0 ${image.naturalWidth} ${image.naturalHeight}`);
  }
  editor.reset(image.naturalWidth, image.naturalHeight);
  chosen();
  predict();
}

// ---- predictions: one at a time, and another one if something has changed in the meantime

function changed() {
  state.stale = true;
  if (state.result && state.result.boxes.length !== Math.max(1, editor.boxes.length)) state.result = null;
  draw();
  clearTimeout(state.timer);
  if (find("auto").checked) state.timer = setTimeout(predict, DEBOUNCE);
}

async function predict() {
  clearTimeout(state.timer);
  if (!state.photo) return;
  state.again = state.busy;
  if (state.busy) return;
  state.busy = true;
  const sent = { photo: state.photo, boxes: JSON.stringify(editor.boxes) };
  const form = new FormData();
  form.append("photo", sent.photo, "photo");
  form.append("boxes", sent.boxes);
  setStatus("Predicting …");
  const start = performance.now();
  let answer = null;
  try {
    const response = await fetch("predict", { method: "POST", body: form });
    answer = await response.json();
  } catch {
    answer = { error: "The server does not respond: check that it is running, then try again." };
  }
  state.busy = false;
  const current = sent.photo === state.photo && sent.boxes === JSON.stringify(editor.boxes);
  if (current) show(answer, performance.now() - start);
  if (state.again) predict();
  else if (!current) setStatus("The boxes have changed since: press Predict.");
}

function show(answer, time) {
  fail(answer.error ?? "");
  state.result = answer.error ? null : answer;
  state.stale = false;
  const count = answer.boxes?.length ?? 0;
  setStatus(answer.error ? "" : `${count} ${count === 1 ? "person" : "persons"} in ${(time / 1000).toFixed(2)} s`);
  draw();
}

// ---- selection

function chosen() {
  if (editor.index >= 0 || !editor.boxes.length) state.person = Math.max(0, editor.index);
  find("delete").disabled = editor.index < 0;
  const labels = editor.boxes.length ? editor.boxes.map((box, index) => `Person ${index + 1}`) : ["Whole image"];
  const held = find("persons").contains(document.activeElement);
  const buttons = labels.map((label, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-pressed", index === state.person);
    if (editor.boxes.length) button.addEventListener("click", () => editor.choose(index));
    return button;
  });
  find("persons").replaceChildren(...buttons);
  if (held) buttons[Math.min(state.person, buttons.length - 1)].focus();
  draw();
}

function tapped(point) {
  if (!state.result || state.stale) return false;
  const nearest = nearestJoint(state.result.models[0], threshold(), point, 14 * editor.unit());
  if (!nearest) return false;
  state.joint = nearest.joint;
  state.person = nearest.person;
  editor.choose(editor.boxes.length ? nearest.person : -1);
  return true;
}

const threshold = () => Number(find("threshold").value);

// ---- draw everything from the state

function draw() {
  if (!editor || !state.photo) return;
  editor.draw();
  const { result, joint } = state;
  const person = Math.min(state.person, (result?.boxes.length ?? 1) - 1);
  views.forEach((view, index) => {
    const unit = editor.size[0] / Math.max(1, view.svg.getBoundingClientRect().width);
    if (index) view.frames.replaceChildren(...editor.boxes.flatMap((box, n) => outline(box, unit, n === editor.index)));
    view.skeletons.classList.toggle("stale", state.stale);
    if (!result) return view.skeletons.replaceChildren();
    const place = joint === null ? null : view.model.joints.indexOf(about.models[0].joints[joint]);
    drawSkeletons(view.skeletons, view.model, result.models[index], { threshold: threshold(), unit, person, joint: place });
  });
  find("joints").hidden = !result;
  find("maps").hidden = !result?.maps;
  if (!result) return;
  find("joints").classList.toggle("stale", state.stale);
  find("maps").classList.toggle("stale", state.stale);
  fillTable(find("joints"), about.models, result, { threshold: threshold(), person, joint, pick });
  if (result.maps) showMaps(result.maps[person], person);
}

function pick(joint) {
  state.joint = joint;
  draw();
  find("joints").querySelectorAll("button")[joint].focus();
}

function showMaps(maps, person) {
  const { joint, result } = state;
  find("maps-hint").hidden = joint !== null;
  find("maps-pair").hidden = joint === null;
  if (joint === null) return;
  const name = about.models[0].joints[joint];
  const [sx, sy] = maps.sigmas[joint].map((value) => value.toFixed(1));
  const peak = maps.peaks[joint];
  const score = result.models[0].scores[person][joint].toFixed(2);
  const captions = {
    teacher: `Teacher heat map, ${name}: ${peak === null ? "it has no such joint" : `peak ${peak.toFixed(2)}`}`,
    student: `Simulated heat map, ${name}: sigma ${sx} x ${sy} cells, confidence ${score}`,
  };
  for (const role of ["teacher", "student"]) {
    const canvas = find(`map-${role}`);
    canvas.setAttribute("aria-label", captions[role]);
    canvas.parentElement.querySelector("figcaption").textContent = captions[role];
    drawMap(canvas, maps[role], joint, about.models[0].joints.length).catch(() => fail("A heat map cannot be shown."));
  }
}

// ---- events

find("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
find("run").addEventListener("click", predict);
find("add").addEventListener("click", () => {
  const [width, height] = editor.size;
  editor.add([width / 4, height / 4, width / 2, height / 2].map(Math.round));
});
find("delete").addEventListener("click", () => editor.remove());
find("threshold").addEventListener("input", () => {
  find("shown").textContent = threshold().toFixed(2);
  draw();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
setUpCamera({ button: find("camera"), dialog: find("viewfinder"), taken: take, failed: fail });
setUp().catch(() => fail("The server does not respond: check that it is running, then reload the page."));
