"use strict";
// Draws scans with WebGL 2. Points stay quantised (uint16); the matrix that draws them undoes it.

const header = JSON.parse(document.getElementById("header").textContent);
const $ = (id) => document.getElementById(id);
const FIELD_OF_VIEW = 50 * Math.PI / 180;
const NEAR = 0.1; // share of the distance to the middle
const SLOW = 60; // milliseconds that a picture may be late
const GREY = [38, 42, 52]; // what a chosen class leaves
const TYPES = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, uint32: Uint32Array };
const ramps = Object.fromEntries(
  Object.entries(header.ramps).map(([key, text]) => [key, fromBase64(text)]));
const modes = [...header.modes];
const similarity = { key: "similarity", title: "Similarity", kind: "ramp", low: 0, high: 1, unit: "",
  hint: "Cosine of the features to the point that you click" };
if (header.features) modes.push(similarity);

const scans = [];
const panes = [];
const state = { mode: modes[0], size: 2, linked: true, picked: null, only: null };

// ---- data ------------------------------------------------------------------------------------

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

async function unpack(index) {
  const element = $(`scan-${index}`);
  const stream = new Blob([fromBase64(element.textContent)]).stream();
  const bytes = await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  element.remove();
  const scan = { ...header.scans[index] };
  for (const [key, { dtype, offset, shape }] of Object.entries(scan.arrays)) {
    scan[key + "Array"] = new TYPES[dtype](bytes, offset, shape.reduce((a, b) => a * b, 1));
  }
  const { low, step } = scan.coord;
  scan.low = low;
  scan.step = step;
  scan.high = low.map((value, axis) => value + 65535 * step[axis]);
  scan.home = home(scan);
  return scan;
}

const position = (scan, i) =>
  [0, 1, 2].map((axis) => scan.low[axis] + scan.step[axis] * scan.coordArray[3 * i + axis]);
const row = (scan, i) => (scan.inverseArray ? scan.inverseArray[i] : i);
const strength = (scan, i) => scan.strength.low[0] + scan.strength.step[0] * scan.strengthArray[i];

/** The first view: over the shoulder of a sensor that looks along x. */
function home(scan) {
  const middle = [0, 1, 2].map((axis) => quantile(scan, axis, 0.5));
  const reach = Math.max(...[0, 1].map((axis) => quantile(scan, axis, 0.9) - quantile(scan, axis, 0.1)), 1);
  return { target: [middle[0], middle[1], quantile(scan, 2, 0.1)], azimuth: Math.PI * 1.1,
    elevation: 0.55, distance: 1.1 * reach };
}

function quantile(scan, axis, share) {
  const values = [];
  const step = Math.max(1, Math.floor(scan.count / 5000));
  for (let i = 0; i < scan.count; i += step) values.push(scan.coordArray[3 * i + axis]);
  values.sort((a, b) => a - b);
  return scan.low[axis] + scan.step[axis] * values[Math.floor(share * (values.length - 1))];
}

// ---- colours ---------------------------------------------------------------------------------

/** Cosines of every row of a scan to the picked point. */
function cosines(scan) {
  const features = scan.featuresArray, { kept } = header.features;
  const from = scans[state.picked.scan];
  const start = row(from, state.picked.point) * kept;
  const wanted = from.featuresArray.subarray(start, start + kept);
  const length = Math.hypot(...wanted) || 1;
  const found = new Float32Array(features.length / kept);
  for (let r = 0; r < found.length; r++) {
    let product = 0, square = 0;
    for (let k = 0, at = r * kept; k < kept; k++, at++) {
      product += features[at] * wanted[k];
      square += features[at] * features[at];
    }
    found[r] = product / (length * Math.sqrt(square || 1));
  }
  return found;
}

/** RGB of every point in the present mode. */
function colours(scan) {
  const { key, kind } = state.mode;
  const out = new Uint8Array(4 * scan.count); // the fourth is there for alignment
  const of = state.mode.rows ? (i) => row(scan, i) : (i) => i;
  const put = (i, table, at) => {
    out[4 * i] = table[at];
    out[4 * i + 1] = table[at + 1];
    out[4 * i + 2] = table[at + 2];
  };
  if (kind === "rgb") {
    for (let i = 0; i < scan.count; i++) put(i, scan[key + "Array"], 3 * of(i));
  } else if (kind === "classes") {
    const table = state.mode.colours.flat();
    for (let i = 0; i < scan.count; i++) {
      const index = scan[key + "Array"][of(i)];
      if (state.only === null || state.only === index) put(i, table, 3 * index);
      else put(i, GREY, 0);
    }
  } else {
    const { low, high } = state.mode;
    const scale = 255 / (high - low || 1);
    const found = key === "similarity" ? scan.cosines : null;
    for (let i = 0; i < scan.count; i++) {
      const value = found ? found[row(scan, i)]
        : key === "height" ? scan.low[2] + scan.step[2] * scan.coordArray[3 * i + 2] : strength(scan, i);
      put(i, ramps[key], 3 * Math.round(Math.min(255, Math.max(0, scale * (value - low)))));
    }
  }
  return out;
}

/** Where the ramp begins: half of the points stay dark at first, however alike the features are. */
function setContrast() {
  const values = [];
  for (const { scan } of panes) {
    const step = Math.max(1, Math.floor(scan.count / 5000));
    for (let i = 0; i < scan.count; i += step) values.push(scan.cosines[row(scan, i)]);
  }
  values.sort((a, b) => a - b);
  similarity.low = Math.min(0.999, values[Math.floor($("contrast").value / 100 * (values.length - 1))]);
}

// ---- a pane: canvas, camera, markers -----------------------------------------------------------

const VERTEX = `#version 300 es
layout(location = 0) in vec3 place;
layout(location = 1) in vec3 colour;
uniform mat4 matrix;
uniform float size, reach;
out vec3 shade;
void main() {
  gl_Position = matrix * vec4(place, 1.0);
  gl_PointSize = clamp(size * sqrt(reach / max(gl_Position.w, 1e-3)), 1.0, 4.0 * size);
  shade = colour * clamp(1.2 - 0.2 * gl_Position.w / reach, 0.45, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 shade;
uniform bool discs;
out vec4 pixel;
void main() {
  if (discs && distance(gl_PointCoord, vec2(0.5)) > 0.5) discard;
  pixel = vec4(shade, 1.0);
}`;

function shader(gl, type, text) {
  const made = gl.createShader(type);
  gl.shaderSource(made, text);
  gl.compileShader(made);
  return made;
}

class Pane {
  constructor(scan) {
    this.element = document.createElement("div");
    this.element.className = "pane";
    this.element.innerHTML = `<canvas tabindex="0" aria-label="Scan in 3D"></canvas>
      <div class="ring"></div><div class="ring best"></div>
      <div class="name"></div><div class="say" aria-live="polite"></div>
      <div class="bar"><i></i><span></span></div>`;
    [this.canvas] = this.element.getElementsByTagName("canvas");
    [this.ring, this.best] = this.element.getElementsByClassName("ring");
    this.say = this.element.querySelector(".say");
    document.querySelector("main").insertBefore(this.element, $("legend"));
    const gl = this.canvas.getContext("webgl2", { antialias: false, alpha: false });
    if (!gl) throw new Error("This browser has no WebGL 2, or it is switched off.");
    this.gl = gl;
    const program = gl.createProgram();
    gl.attachShader(program, shader(gl, gl.VERTEX_SHADER, VERTEX));
    gl.attachShader(program, shader(gl, gl.FRAGMENT_SHADER, FRAGMENT));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(13 / 255, 16 / 255, 23 / 255, 1);
    this.uniforms = Object.fromEntries(["matrix", "size", "reach", "discs"]
      .map((name) => [name, gl.getUniformLocation(program, name)]));
    this.buffers = [gl.createBuffer(), gl.createBuffer()];
    gl.enableVertexAttribArray(0);
    gl.enableVertexAttribArray(1);
    this.chooser();
    this.show(scan);
    listen(this);
  }

  /** Name of the scan, or a choice where there are more than two. */
  chooser() {
    const name = this.element.querySelector(".name");
    const text = (scan) => `${scan.name} · ${scan.count.toLocaleString("en")} points` +
      (scan.total > scan.count ? ` of ${scan.total.toLocaleString("en")}` : "");
    if (scans.length < 3) {
      this.label = () => { name.textContent = text(this.scan); };
      return;
    }
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Scan");
    select.append(...scans.map((scan, index) => new Option(text(scan), index)));
    select.onchange = () => { this.show(scans[select.value]); pickAgain(); };
    name.append(select);
    this.label = () => { select.value = scans.indexOf(this.scan); };
  }

  show(scan) {
    const gl = this.gl;
    this.scan = scan;
    this.camera = structuredClone(scan.home);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[0]);
    gl.bufferData(gl.ARRAY_BUFFER, scan.coordArray, gl.STATIC_DRAW);
    this.label();
  }

  colour() {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[1]);
    gl.bufferData(gl.ARRAY_BUFFER, colours(this.scan), gl.DYNAMIC_DRAW);
    redraw();
  }

  /** Unit vectors of the camera: right, up, backward; and where it stands. */
  axes() {
    const { target, azimuth, elevation, distance } = this.camera;
    const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
    const back = [ce * ca, ce * sa, se], right = [-sa, ca, 0], up = [-se * ca, -se * sa, ce];
    return { right, up, back, eye: target.map((value, axis) => value + distance * back[axis]) };
  }

  /** Rows of the matrix from metres to clip coordinates. */
  rows() {
    const { right, up, back, eye } = this.axes();
    const { distance } = this.camera;
    const focal = 1 / Math.tan(FIELD_OF_VIEW / 2);
    const near = NEAR * distance;
    const far = distance + 2 * Math.max(...this.scan.high.map((value, axis) => value - this.scan.low[axis]), distance);
    const depth = (far + near) / (far - near);
    const line = (vector, scale) => [...vector.map((value) => scale * value), -scale * dot(vector, eye)];
    const clip = line(back, -depth);
    clip[3] -= 2 * far * near / (far - near);
    const aspect = this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight);
    return [line(right, focal / aspect), line(up, focal), clip, line(back, -1)];
  }

  /** The same, column by column, from the numbers in the buffer. */
  matrix() {
    const rows = this.rows();
    const size = this.scan.high.map((value, axis) => value - this.scan.low[axis]);
    return new Float32Array([
      ...[0, 1, 2].flatMap((axis) => rows.map((line) => line[axis] * size[axis])),
      ...rows.map((line) => dot(line, this.scan.low) + line[3]),
    ]);
  }

  /** Draw one point of so many. */
  draw(every) {
    const { gl, canvas, uniforms } = this;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * ratio)));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(uniforms.matrix, false, this.matrix());
    gl.uniform1f(uniforms.size, state.size * ratio);
    gl.uniform1f(uniforms.reach, this.camera.distance);
    gl.uniform1i(uniforms.discs, state.size * ratio > 3);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[0]);
    gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, true, 6 * every, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[1]);
    gl.vertexAttribPointer(1, 3, gl.UNSIGNED_BYTE, true, 4 * every, 0);
    gl.drawArrays(gl.POINTS, 0, Math.ceil(this.scan.count / every));
    this.mark();
    this.scaleBar();
  }

  /** Pixel of a place, null behind the camera. */
  project(place) {
    const [x, y, , w] = this.rows().map((line) => dot(line, place) + line[3]);
    if (w <= NEAR * this.camera.distance) return null;
    return [(x / w + 1) / 2 * this.canvas.clientWidth, (1 - y / w) / 2 * this.canvas.clientHeight, w];
  }

  mark() {
    const put = (ring, point) => {
      const pixel = point === null ? null : this.project(position(this.scan, point));
      ring.style.display = pixel ? "block" : "none";
      if (pixel) [ring.style.left, ring.style.top] = [`${pixel[0]}px`, `${pixel[1]}px`];
    };
    const own = state.picked && scans[state.picked.scan] === this.scan;
    put(this.ring, own ? state.picked.point : null);
    put(this.best, state.picked && !own && this.scan.best !== undefined ? this.scan.best : null);
  }

  scaleBar() {
    const perMetre = this.canvas.clientHeight / (2 * Math.tan(FIELD_OF_VIEW / 2) * this.camera.distance);
    const power = 10 ** Math.floor(Math.log10(120 / perMetre));
    const metres = power * [5, 2, 1].find((factor) => factor * power * perMetre <= 120);
    const [line, text] = this.element.querySelector(".bar").children;
    line.style.width = `${metres * perMetre}px`;
    text.textContent = metres < 1 ? `${+(100 * metres).toPrecision(1)} cm` : `${+metres.toPrecision(1)} m`;
  }

  /** The point at a pixel: the foremost within a few pixels, else the nearest one around. */
  pick(x, y) {
    const { scan, canvas } = this;
    const m = this.matrix().map((value, at) => (at < 12 ? value / 65535 : value)); // of the numbers
    const [halfWidth, halfHeight] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    const near = NEAR * this.camera.distance, reach = (3 + state.size / 2) ** 2;
    let front = -1, depth = Infinity, around = -1, least = 18 ** 2;
    for (let i = 0, at = 0; i < scan.count; i++, at += 3) {
      const a = scan.coordArray[at], b = scan.coordArray[at + 1], c = scan.coordArray[at + 2];
      const w = m[3] * a + m[7] * b + m[11] * c + m[15];
      if (w <= near) continue;
      const dx = ((m[0] * a + m[4] * b + m[8] * c + m[12]) / w + 1) * halfWidth - x;
      const dy = (1 - (m[1] * a + m[5] * b + m[9] * c + m[13]) / w) * halfHeight - y;
      const square = dx * dx + dy * dy;
      if (square < reach && w < depth) [front, depth] = [i, w];
      if (square < least) [around, least] = [i, square];
    }
    return front >= 0 ? front : around;
  }

  turn(dx, dy) {
    const camera = this.camera;
    camera.azimuth -= dx;
    camera.elevation = Math.min(Math.PI / 2, Math.max(-1.4, camera.elevation + dy));
    follow(this);
  }

  /** Move the middle by pixels. */
  move(dx, dy) {
    const { right, up } = this.axes();
    const metres = 2 * Math.tan(FIELD_OF_VIEW / 2) * this.camera.distance / this.canvas.clientHeight;
    this.camera.target = this.camera.target.map((value, axis) => value + metres * (dy * up[axis] - dx * right[axis]));
    follow(this);
  }

  zoom(factor) {
    this.camera.distance = Math.min(1e5, Math.max(0.3, this.camera.distance * factor));
    follow(this);
  }
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** Linked panes have one direction and distance, and move by the same. */
function follow(pane) {
  if (state.linked) {
    for (const other of panes) {
      if (other === pane) continue;
      const moved = pane.camera.target.map((value, axis) => value - pane.scan.home.target[axis]);
      other.camera = { ...pane.camera, target: other.scan.home.target.map((value, axis) => value + moved[axis]) };
    }
  }
  redraw(true);
}

let waiting = false, every = 1, rest;
/** Draw soon. What moves is drawn with fewer points where that takes long, and in full at rest. */
function redraw(moving = false) {
  if (waiting) return;
  waiting = true;
  const asked = performance.now();
  requestAnimationFrame(() => {
    waiting = false;
    if (moving) {
      const delay = performance.now() - asked;
      if (delay > SLOW) every = Math.min(32, 2 * every);
      else if (delay < SLOW / 3) every = Math.max(1, every / 2);
      clearTimeout(rest);
      rest = setTimeout(() => redraw(), 250);
    }
    panes.forEach((pane) => pane.draw(moving ? every : 1));
  });
}

/** With how many points to begin to move, by the time that a picture takes. */
function gauge() {
  const started = performance.now();
  for (const pane of panes) {
    pane.draw(1);
    const { gl } = pane;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for it
  }
  const late = (performance.now() - started) / SLOW;
  while (every < 32 && every < late) every *= 2;
}

// ---- what the user does ------------------------------------------------------------------------

function listen(pane) {
  const { canvas } = pane;
  const down = new Map();
  let travelled = 0, pinch = null;
  const at = (event) => [event.offsetX, event.offsetY];
  const spread = () => {
    const [a, b] = [...down.values()];
    return { length: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    if (down.size === 1) travelled = 0;
    pinch = down.size === 2 ? spread() : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!down.has(event.pointerId)) return;
    const before = down.get(event.pointerId), now = at(event);
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    down.set(event.pointerId, now);
    travelled += Math.abs(dx) + Math.abs(dy);
    if (pinch && down.size === 2) {
      const next = spread();
      pane.zoom(pinch.length / Math.max(1, next.length));
      pane.move(next.middle[0] - pinch.middle[0], next.middle[1] - pinch.middle[1]);
      pinch = next;
    } else if (down.size === 1) {
      const moves = event.buttons & 6 || event.shiftKey;
      if (moves) pane.move(dx, dy);
      else if (travelled > 4) pane.turn(dx * 0.006, dy * 0.006);
    }
  });
  const up = (event) => {
    const alone = down.size === 1;
    down.delete(event.pointerId);
    pinch = null;
    if (event.type === "pointerup" && alone && travelled <= 4 && event.button === 0) {
      const point = pane.pick(...at(event));
      if (point >= 0) pick(scans.indexOf(pane.scan), point);
    } else if (down.size) travelled = Infinity; // the rest of a pinch is no click
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode ? 30 : 1;
    pane.zoom(Math.exp(Math.max(-200, Math.min(200, event.deltaY * lines)) * 0.0015));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => {
    const point = pane.pick(...at(event));
    if (point < 0) return;
    pane.camera.target = position(pane.scan, point);
    follow(pane);
  });
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!arrows) return;
    event.preventDefault();
    if (event.shiftKey) pane.move(40 * arrows[0], 40 * arrows[1]);
    else pane.turn(0.08 * arrows[0], 0.08 * arrows[1]);
  });
  canvas.addEventListener("webglcontextlost", () => fail(new Error("The browser took the picture away: reload the page.")));
}

function pick(scan, point) {
  state.picked = { scan, point };
  if (header.features) Object.assign(state, { mode: similarity, only: null });
  pickAgain();
}

/** Similarities to the picked point, and what there is to say about it. */
function pickAgain() {
  for (const { scan } of panes) {
    if (!state.picked || !header.features) continue;
    scan.cosines = cosines(scan);
    let most = 0;
    for (let i = 1; i < scan.count; i++) {
      if (scan.cosines[row(scan, i)] > scan.cosines[row(scan, most)]) most = i;
    }
    scan.best = most;
  }
  if (state.picked && header.features) setContrast();
  panes.forEach((pane) => {
    const own = state.picked && scans[state.picked.scan] === pane.scan;
    if (own) pane.say.textContent = describe(pane.scan, state.picked.point);
    else if (state.picked && pane.scan.best !== undefined) {
      const cosine = pane.scan.cosines[row(pane.scan, pane.scan.best)];
      pane.say.textContent = `most similar, ${cosine.toFixed(3)}: ${describe(pane.scan, pane.scan.best)}`;
    } else pane.say.textContent = "";
    pane.colour();
  });
  legend();
}

function describe(scan, i) {
  const parts = [position(scan, i).map((value) => value.toFixed(2)).join(", ") + " m"];
  for (const mode of header.modes) {
    if (mode.kind === "classes") parts.push(mode.names[scan[mode.key + "Array"][mode.rows ? row(scan, i) : i]]);
    if (mode.key === "strength") parts.push(`strength ${+strength(scan, i).toPrecision(3)}`);
  }
  return parts.join(" · ");
}

function setMode(mode) {
  if (mode === similarity && !state.picked) return;
  if (mode !== state.mode) state.only = null;
  state.mode = mode;
  panes.forEach((pane) => pane.colour());
  legend();
}

function legend() {
  const box = $("legend"), { mode } = state;
  modes.forEach((one) => {
    one.button.setAttribute("aria-pressed", one === mode);
    one.button.disabled = one === similarity && !state.picked;
  });
  const make = (tag, text, className = "") =>
    Object.assign(document.createElement(tag), { textContent: text, className });
  const parts = [make("p", mode.hint)];
  if (mode.kind === "classes") {
    const counts = new Float64Array(mode.names.length);
    let total = 0;
    for (const { scan } of panes) {
      const index = scan[mode.key + "Array"];
      for (let i = 0; i < scan.count; i++) counts[index[mode.rows ? row(scan, i) : i]]++;
      total += scan.count;
    }
    // Classes in their order; of many prototypes the commonest.
    let shown = [...counts.keys()].filter((index) => counts[index]);
    const all = shown.length;
    if (all > 40) shown = shown.sort((a, b) => counts[b] - counts[a]).slice(0, 20);
    for (const index of shown) {
      const line = make("button", "", "kind");
      line.classList.toggle("off", state.only !== null && state.only !== index);
      const patch = make("i", "");
      patch.style.background = `rgb(${mode.colours[index].join(" ")})`;
      const share = 100 * counts[index] / total;
      line.append(patch, mode.names[index], make("span", `${share < 1 ? share.toFixed(1) : Math.round(share)} %`, "share"));
      line.onclick = () => {
        state.only = state.only === index ? null : index;
        panes.forEach((pane) => pane.colour());
        legend();
      };
      parts.push(line);
    }
    if (all > shown.length) parts.push(make("p", `and ${all - shown.length} others`));
  } else if (mode.kind === "ramp") {
    const strip = make("div", "", "ramp"), ends = make("div", "", "ends"), table = ramps[mode.key];
    const stops = Array.from({ length: 16 }, (_, i) => `rgb(${table.slice(51 * i, 51 * i + 3).join(" ")})`);
    strip.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    ends.append(...[mode.low, mode.high].map((value) => make("span", `${+value.toPrecision(3)}${mode.unit}`)));
    parts.push(strip, ends);
  }
  if (mode === similarity) {
    const { channels, kept, share } = header.features;
    const of = `From ${kept} of ${channels} channels, which hold ${(100 * share).toFixed(1)} % of the features' length.`;
    if (kept < channels) parts.push(make("p", of));
  }
  box.querySelector("div.parts").replaceChildren(...parts);
  box.querySelector("summary").textContent = mode.title;
  $("contrast").parentElement.hidden = mode !== similarity;
  box.hidden = false;
}

function fail(error) {
  $("status").hidden = false;
  $("status").textContent = error.message;
  console.error(error);
}

function toggleLink() {
  state.linked = !state.linked;
  $("link").setAttribute("aria-pressed", state.linked);
}

function resize(by) {
  state.size = Math.min(10, Math.max(1, state.size + by));
  $("size").value = state.size;
  redraw();
}

function reset() {
  const distance = Math.max(...panes.map((pane) => pane.scan.home.distance));
  panes.forEach((pane) => {
    pane.camera = structuredClone(pane.scan.home);
    if (state.linked) pane.camera.distance = distance;
  });
  redraw();
}

function fromAbove() {
  panes.forEach((pane) => {
    Object.assign(pane.camera, { azimuth: -Math.PI / 2, elevation: Math.PI / 2 });
  });
  redraw();
}

function forget() {
  state.picked = null;
  panes.forEach(({ scan }) => { delete scan.best; });
  if (state.mode === similarity) state.mode = modes[0];
  pickAgain();
}

async function start() {
  if (!("DecompressionStream" in window)) throw new Error("This browser is too old: it has no DecompressionStream (Chrome 80, Firefox 113, Safari 16.4).");
  for (let index = 0; index < header.scans.length; index++) scans.push(await unpack(index));
  $("title").textContent = header.title;
  modes.forEach((mode, index) => {
    mode.button = Object.assign(document.createElement("button"), { textContent: mode.title, title: `${mode.hint} (${index + 1})` });
    mode.button.onclick = () => setMode(mode);
    $("modes").append(mode.button);
  });
  scans.slice(0, 2).forEach((scan) => panes.push(new Pane(scan)));
  $("link").hidden = panes.length < 2;
  $("about-click").hidden = !header.features;
  $("size").oninput = () => { state.size = +$("size").value; redraw(); };
  $("contrast").oninput = () => {
    setContrast();
    panes.forEach((pane) => pane.colour());
    legend();
  };
  $("link").onclick = toggleLink;
  $("reset").onclick = reset;
  $("top").onclick = fromAbove;
  $("help").onclick = () => $("keys").showModal();
  $("close").onclick = () => $("keys").close();
  const keys = { r: reset, t: fromAbove, l: toggleLink, "?": () => $("keys").showModal(), Escape: forget,
    "[": () => resize(-0.5), "]": () => resize(0.5), "+": () => panes[0].zoom(0.85), "-": () => panes[0].zoom(1.18) };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || event.target.matches("select, input")) return;
    const mode = modes[Number(event.key) - 1];
    if (mode) setMode(mode);
    else keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]?.();
  });
  new ResizeObserver(() => redraw()).observe(document.querySelector("main"));
  reset();
  setMode(state.mode);
  requestAnimationFrame(() => requestAnimationFrame(() => {
    $("status").hidden = true;
    gauge();
    window.viewer = { scans, panes, state, modes, pick, ready: true }; // for tests and the curious
  }));
}

start().catch(fail);
