// Draw, move and resize boxes on an image with mouse, pen, finger or keys. A box is [x, y, width, height] in image pixels.

const SVG = "http://www.w3.org/2000/svg";
const EDGES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const DRAG_DISTANCE = 4; // screen pixels; a shorter movement is a tap
const MIN_SIZE = 8; // screen pixels; a smaller box is discarded

export function element(name, attributes = {}, ...classes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.classList.add(...classes.filter(Boolean));
  return node;
}

export class BoxEditor {
  // changed(): a box was added, changed or removed. chosen(): the selection changed. tapped(point): returns true if it handled the tap.
  constructor(svg, layer, { changed, chosen, tapped, canAdd }) {
    Object.assign(this, { svg, layer, changed, chosen, tapped, canAdd, boxes: [], index: -1, size: [1, 1], drag: null });
    svg.addEventListener("pointerdown", (event) => this.begin(event));
    const dragging = (act) => (event) => event.pointerId === this.drag?.pointer && act(event); // ignore a second finger
    svg.addEventListener("pointermove", dragging((event) => this.go(event)));
    svg.addEventListener("pointerup", dragging((event) => this.end(event)));
    svg.addEventListener("pointercancel", dragging(() => this.undo()));
  }

  reset(width, height) {
    Object.assign(this, { size: [width, height], boxes: [], index: -1, drag: null });
    this.draw();
  }

  // image pixels per screen pixel
  unit() {
    return this.size[0] / Math.max(1, this.svg.getBoundingClientRect().width);
  }

  point(event) {
    const frame = this.svg.getBoundingClientRect();
    return [(event.clientX - frame.left) * this.unit(), (event.clientY - frame.top) * this.unit()].map((value, axis) =>
      Math.min(Math.max(value, 0), this.size[axis]),
    );
  }

  choose(index) {
    this.drag = null; // a key may change the selection during a drag
    this.index = index;
    this.draw();
    this.chosen();
  }

  add(box) {
    if (!this.canAdd(this.boxes.length)) return;
    this.boxes.push(box);
    this.choose(this.boxes.length - 1);
    this.changed();
  }

  remove() {
    if (this.index < 0) return;
    this.boxes.splice(this.index, 1);
    this.choose(Math.min(this.index, this.boxes.length - 1));
    this.changed();
  }

  // returns true if the key applies to the chosen box
  key(event) {
    if (this.index < 0) return false;
    if (event.key === "Escape") this.choose(-1);
    else if (event.key === "Delete" || event.key === "Backspace") this.remove();
    else {
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
      if (!dx && !dy) return false;
      const step = Math.max(1, Math.round(Math.max(...this.size) / 100));
      this.boxes[this.index] = this.shifted(this.boxes[this.index], dx * step, dy * step, event.shiftKey ? "se" : "move");
      this.draw();
      this.changed();
    }
    event.preventDefault();
    return true;
  }

  // move a box, or some of its edges, by (dx, dy), and keep it on the image
  shifted([x, y, width, height], dx, dy, edges) {
    const [W, H] = this.size;
    if (edges === "move") {
      return [Math.min(Math.max(x + dx, 0), W - width), Math.min(Math.max(y + dy, 0), H - height), width, height];
    }
    const xs = [x + (edges.includes("w") ? dx : 0), x + width + (edges.includes("e") ? dx : 0)];
    const ys = [y + (edges.includes("n") ? dy : 0), y + height + (edges.includes("s") ? dy : 0)];
    const [left, right] = xs.map((value) => Math.min(Math.max(value, 0), W)).sort((a, b) => a - b);
    const [top, bottom] = ys.map((value) => Math.min(Math.max(value, 0), H)).sort((a, b) => a - b);
    return [left, top, Math.max(1, right - left), Math.max(1, bottom - top)];
  }

  holds(box, [x, y]) {
    return x >= box[0] && y >= box[1] && x <= box[0] + box[2] && y <= box[1] + box[3];
  }

  begin(event) {
    if (event.button !== 0 || this.drag) return;
    event.preventDefault();
    this.svg.focus({ preventScroll: true });
    this.svg.setPointerCapture(event.pointerId);
    const start = this.point(event);
    const inside = this.index >= 0 && this.holds(this.boxes[this.index], start);
    const kind = event.target.dataset?.edges ?? (inside ? "move" : "new");
    const [at, before] = [[event.clientX, event.clientY], this.boxes[this.index]];
    this.drag = { pointer: event.pointerId, kind, start, at, before, index: this.index, moved: false };
  }

  go(event) {
    const { drag } = this;
    if (!drag) return;
    if (!drag.moved) {
      if (Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) < DRAG_DISTANCE) return;
      if (drag.kind === "new") {
        if (!this.canAdd(this.boxes.length)) return this.undo();
        this.boxes.push([...drag.start, 1, 1]);
        this.index = this.boxes.length - 1;
      }
      drag.moved = true;
    }
    const [x, y] = this.point(event);
    const offset = [x - drag.start[0], y - drag.start[1]];
    this.boxes[this.index] =
      drag.kind === "new" ? this.shifted([...drag.start, 0, 0], ...offset, "se") : this.shifted(drag.before, ...offset, drag.kind);
    this.draw();
  }

  end(event) {
    const { drag } = this;
    if (!drag) return;
    const box = this.boxes[this.index];
    if (!drag.moved) {
      this.drag = null;
      this.tap(this.point(event));
    } else if (drag.kind === "new" && Math.min(box[2], box[3]) < MIN_SIZE * this.unit()) {
      this.undo();
    } else {
      this.drag = null;
      this.boxes[this.index] = box.map((value) => Math.round(value * 10) / 10);
      this.choose(this.index);
      this.changed();
    }
  }

  tap(point) {
    if (this.tapped(point)) return;
    const hits = this.boxes.map((box, index) => [box[2] * box[3], index]).filter(([, index]) => this.holds(this.boxes[index], point));
    this.choose(hits.length ? hits.sort((a, b) => a[0] - b[0])[0][1] : -1);
  }

  undo() {
    const { drag } = this;
    if (!drag) return;
    if (drag.kind === "new" && drag.moved) this.boxes.pop();
    else if (drag.before) this.boxes[drag.index] = drag.before;
    this.index = drag.index;
    this.drag = null;
    this.draw();
  }

  draw() {
    const unit = this.unit();
    this.layer.replaceChildren();
    this.boxes.forEach((box, index) => this.layer.append(...outline(box, unit, index === this.index)));
    if (this.index < 0) return;
    const [x, y, width, height] = this.boxes[this.index];
    for (const edges of EDGES) {
      const along = edges.length > 1 ? Infinity : /[ns]/.test(edges) ? width : height;
      if (along < 60 * unit) continue; // too short between the corners
      const cx = x + width * (edges.includes("w") ? 0 : edges.includes("e") ? 1 : 0.5);
      const cy = y + height * (edges.includes("n") ? 0 : edges.includes("s") ? 1 : 0.5);
      const side = 9 * unit;
      const square = { x: cx - side / 2, y: cy - side / 2, width: side, height: side, "stroke-width": unit };
      for (const part of [element("rect", square, "handle"), element("circle", { cx, cy, r: 14 * unit }, "reach")]) {
        part.dataset.edges = edges;
        part.style.cursor = `${edges}-resize`;
        this.layer.append(part);
      }
    }
  }
}

export function outline([x, y, width, height], unit, chosen) {
  const frame = { x, y, width, height };
  return [
    element("rect", { ...frame, "stroke-width": 4 * unit }, "box-shade"),
    element("rect", { ...frame, "stroke-width": 2 * unit }, "box", chosen && "chosen"),
  ];
}
