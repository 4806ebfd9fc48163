// A small structure viewer: the CA trace as a shaded tube, coloured by pLDDT. Canvas only, no library, no network.
// Data: a JSON list of {name, letters, chains: [residues of each], plddt: [0-100 per residue], ca: [x, y, z, x, ...]} in
// <script id="structures">.
"use strict";
(() => {
  const structures = JSON.parse(document.getElementById("structures").textContent);
  const canvas = document.getElementById("viewer");
  const label = document.getElementById("viewer-label");
  const choices = document.getElementById("viewer-choices");
  const pen = canvas.getContext("2d");
  const BANDS = [[90, [0, 83, 214]], [70, [101, 203, 243]], [50, [255, 219, 19]], [-Infinity, [255, 125, 69]]];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let tube, turn, zoom, spinning = !still, waiting = false, pointers = new Map(), pinch = 0;

  const band = (value) => BANDS.find(([low]) => value >= low)[1];

  // Catmull-Rom through the CA atoms of each chain; each piece belongs to the nearer residue. ends: the last points of
  // the chains, which nothing joins to the next.
  function spline(structure) {
    const count = structure.plddt.length, fine = Math.max(2, Math.min(8, Math.round(2400 / count)));
    const points = [], owner = [], ends = new Set();
    let first = 0;
    for (const length of structure.chains) {
      const from = first, last = first + length - 1;
      const at = (i, k) => structure.ca[3 * Math.max(from, Math.min(last, i)) + k];
      for (let i = from; i < last; i++) {
        for (let j = 0; j < fine; j++) {
          const t = j / fine, t2 = t * t, t3 = t2 * t;
          const w = [-t3 + 2 * t2 - t, 3 * t3 - 5 * t2 + 2, -3 * t3 + 4 * t2 + t, t3 - t2];
          points.push([0, 1, 2].map((k) => 0.5 * (w[0] * at(i - 1, k) + w[1] * at(i, k) + w[2] * at(i + 1, k) + w[3] * at(i + 2, k))));
          owner.push(t < 0.5 ? i : i + 1);
        }
      }
      points.push([0, 1, 2].map((k) => at(last, k)));
      owner.push(last);
      ends.add(points.length - 1);
      first += length;
    }
    const radius = Math.max(6, ...points.map((p) => Math.hypot(...p)));
    return { points, owner, ends, radius, structure };
  }

  function multiply(a, b) {
    const made = [];
    for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++)
      made.push(a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]);
    return made;
  }

  function rotate(dx, dy) { // screen angles, applied after the turn so far
    const [cx, sx, cy, sy] = [Math.cos(dy), Math.sin(dy), Math.cos(dx), Math.sin(dx)];
    turn = multiply(multiply([1, 0, 0, 0, cx, -sx, 0, sx, cx], [cy, 0, sy, 0, 1, 0, -sy, 0, cy]), turn);
  }

  function project(width, height) {
    const scale = (0.46 * Math.min(width, height) * zoom) / tube.radius, eye = 3.2 * tube.radius;
    return tube.points.map(([x, y, z]) => {
      const depth = turn[6] * x + turn[7] * y + turn[8] * z, near = eye / (eye - depth);
      return [
        width / 2 + (turn[0] * x + turn[1] * y + turn[2] * z) * scale * near,
        height / 2 - (turn[3] * x + turn[4] * y + turn[5] * z) * scale * near,
        depth, scale * near,
      ];
    });
  }

  function page() { // the page's own card colour, for the fog
    const probe = getComputedStyle(canvas).backgroundColor.match(/[\d.]+/g) || [255, 255, 255];
    return probe.slice(0, 3).map(Number);
  }

  const middle = (one, two) => [(one[0] + two[0]) / 2, (one[1] + two[1]) / 2];
  const mixed = (one, two, part) => `rgb(${one.map((c, k) => Math.round(c + (two[k] - c) * part)).join(",")})`;

  function draw() {
    waiting = false;
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.lineJoin = "round";
    const seen = project(width, height), background = page();
    const dark = background[0] + background[1] + background[2] < 380;
    const ends = tube.ends;
    const order = seen.map((_, i) => i).filter((i) => !ends.has(i)).sort((a, b) => seen[a][2] + seen[a + 1][2] - seen[b][2] - seen[b + 1][2]);
    for (const i of order) {
      const [a, b] = [seen[i], seen[i + 1]];
      const thick = Math.max(1.2, 1.15 * (a[3] + b[3]) * 0.5);
      const far = Math.min(0.72, Math.max(0, 0.36 - (0.36 * (a[2] + b[2])) / (2 * tube.radius)));
      const colour = band(tube.structure.plddt[tube.owner[i]]);
      // Reaching into the neighbours, whose round ends would otherwise cut the outline into dashes.
      const [before, after] = [i === 0 || ends.has(i - 1) ? a : seen[i - 1], ends.has(i + 1) ? b : seen[i + 2]];
      const path = [middle(before, a), a, b, middle(b, after)];
      const line = (width, style, cap, shift) => {
        pen.lineWidth = width;
        pen.strokeStyle = style;
        pen.lineCap = cap;
        pen.beginPath();
        for (const [x, y] of path) pen.lineTo(x - shift, y - shift);
        pen.stroke();
      };
      line(thick + 2.2, mixed(dark ? [8, 9, 12] : [40, 44, 56], background, far), "butt", 0);
      line(thick, mixed(colour.map((c) => 0.86 * c), background, far), "round", 0);
      line(0.5 * thick, mixed(colour.map((c) => c + 0.12 * (255 - c)), background, far), "round", 0.12 * thick);
    }
    if (spinning) {
      rotate(0.006, 0);
      ask();
    }
  }

  function ask() {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(draw);
    }
  }

  function reset() {
    turn = [1, 0, 0, 0, 1, 0, 0, 0, 1];
    rotate(0.5, 0.35);
    zoom = 1;
    ask();
  }

  function show(number) {
    tube = spline(structures[number]);
    for (const [i, button] of [...choices.children].entries()) button.setAttribute("aria-pressed", String(i === number));
    tell(-1);
    reset();
  }

  function place(residue) { // its number in its chain, and the chain where there are several
    const { chains } = tube.structure;
    let chain = 0;
    while (residue >= chains[chain]) residue -= chains[chain++];
    return chains.length > 1 ? `${residue + 1} of chain ${chain + 1}` : `${residue + 1}`;
  }

  function tell(residue) {
    const { name, letters, plddt } = tube.structure;
    const mean = plddt.reduce((sum, value) => sum + value, 0) / plddt.length;
    label.textContent = residue < 0
      ? `${name}: ${plddt.length} residues, mean pLDDT ${mean.toFixed(1)}`
      : `${name}: ${letters[residue]}${place(residue)}, pLDDT ${plddt[residue].toFixed(1)}`;
  }

  function under(x, y) { // the residue nearest to the pointer, in front first
    let best = -1, least = 196;
    for (const [i, [px, py, depth]] of project(canvas.clientWidth, canvas.clientHeight).entries()) {
      const away = (px - x) ** 2 + (py - y) ** 2 - (8 * depth) / tube.radius;
      if (away < least) [least, best] = [away, tube.owner[i]];
    }
    return best;
  }

  const touch = (change) => { spinning = false; change(); ask(); };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    pinch = 0;
    touch(() => {});
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (!before) return tell(under(...now));
    pointers.set(event.pointerId, now);
    if (pointers.size === 1) return touch(() => rotate((now[0] - before[0]) * 0.009, (now[1] - before[1]) * 0.009));
    const [one, two] = [...pointers.values()], apart = Math.hypot(one[0] - two[0], one[1] - two[1]);
    touch(() => { if (pinch) zoom = Math.min(8, Math.max(0.3, (zoom * apart) / pinch)); pinch = apart; });
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, (event) => { pointers.delete(event.pointerId); pinch = 0; });
  canvas.addEventListener("pointerleave", () => tell(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    touch(() => { zoom = Math.min(8, Math.max(0.3, zoom * Math.exp(-0.0015 * event.deltaY))); });
  }, { passive: false });
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key in steps) touch(() => rotate(...steps[event.key]));
    else if (event.key === "+" || event.key === "-") touch(() => { zoom *= event.key === "+" ? 1.15 : 0.87; });
    else return;
    event.preventDefault();
  });
  for (const [number, structure] of structures.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = structure.name;
    button.addEventListener("click", () => show(number));
    choices.append(button);
  }
  for (const link of document.querySelectorAll("[data-view]"))
    link.addEventListener("click", () => { show(Number(link.dataset.view)); canvas.scrollIntoView({ block: "center" }); });
  new ResizeObserver(ask).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
  show(0);
})();
