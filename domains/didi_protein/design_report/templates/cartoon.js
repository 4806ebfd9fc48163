// Cartoons of predicted structures through 3Dmol.js.
// Data: {designs: [{name, pdb, motif: [[first, last], ...], reference}], references: [PDB text]} in <script id="structures">.
"use strict";
(() => {
  const { designs, references } = JSON.parse(document.getElementById("structures").textContent);
  const label = document.getElementById("viewer-label");
  const choices = document.getElementById("viewer-choices");
  const input = (name) => document.getElementById(name);
  const BANDS = [[90, "#0053d6"], [70, "#65cbf3"], [50, "#ffdb13"], [-Infinity, "#ff7d45"]];
  const CHAINS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];
  const MOTIF = "#d81b60";
  let viewer, current = 0;

  try {
    viewer = $3Dmol.createViewer("viewer", { backgroundColor: getComputedStyle(input("viewer")).backgroundColor });
  } catch (error) {
    viewer = null;
  }
  if (!viewer) {
    label.textContent = "This browser has no WebGL: report.html shows the structures without it.";
    return;
  }

  const band = (atom) => BANDS.find(([low]) => atom.b >= low)[1];
  const letter = (atom) => CHAINS[Math.max(0, atom.chain.charCodeAt(0) - 65) % CHAINS.length];

  // "12-30, 45" as the residues that 3Dmol selects; what is no number or range is left out.
  const ranges = (text) => text.split(",").map((part) => part.trim()).filter((part) => /^\d+(-\d+)?$/.test(part));

  function style() {
    const design = designs[current], scheme = input("colour").value;
    const cartoon = scheme === "rainbow" ? { color: "spectrum" } : { colorfunc: scheme === "chain" ? letter : band };
    viewer.setStyle({ model: 0 }, { cartoon });
    if (input("motif") && input("motif").checked && design.motif.length)
      viewer.setStyle({ model: 0, chain: "A", resi: design.motif.map(([a, b]) => `${a}-${b}`) }, { cartoon: { color: MOTIF } });
    if (input("reference") && design.reference !== null)
      viewer.setStyle({ model: 1 }, input("reference").checked ? { cartoon: { color: "#9aa3b2", opacity: 0.7 } } : {});
    const chosen = ranges(input("selection").value);
    if (chosen.length) viewer.addStyle({ model: 0, resi: chosen }, { stick: { radius: 0.16 } });
    viewer.render();
  }

  function show(number) {
    current = number;
    const design = designs[number];
    viewer.removeAllModels();
    viewer.addModel(design.pdb, "pdb");
    if (design.reference !== null) viewer.addModel(references[design.reference], "pdb");
    for (const [i, button] of [...choices.children].entries()) button.setAttribute("aria-pressed", String(i === number));
    label.textContent = design.name;
    viewer.setClickable({ model: 0 }, true, (atom) => {
      label.textContent = `${design.name}: ${atom.resn}${atom.resi} of chain ${atom.chain}, pLDDT ${atom.b.toFixed(1)}`;
    });
    style();
    viewer.zoomTo({ model: 0 });
    viewer.zoom(Math.min(1, input("viewer").clientWidth / input("viewer").clientHeight)); // it fits the height only
    viewer.render();
  }

  for (const name of ["colour", "motif", "reference", "selection"])
    if (input(name)) input(name).addEventListener(name === "selection" ? "input" : "change", style);
  for (const [number, design] of designs.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = design.name;
    button.addEventListener("click", () => show(number));
    choices.append(button);
  }
  new ResizeObserver(() => viewer.resize()).observe(input("viewer"));
  show(0);
})();
