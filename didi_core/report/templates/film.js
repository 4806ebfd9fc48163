(() => {
  // One film for each model; all of them show the same call. Texts become text nodes, never elements.
  const section = document.querySelector("section.film");
  const {films, colours} = JSON.parse(section.querySelector("script").textContent);
  const find = name => section.querySelector(name);
  const reels = [...section.querySelectorAll(".reel")], slider = find("input"), run = find(".run"), said = find("output");
  const still = matchMedia("(prefers-reduced-motion: reduce)"), last = Number(slider.max), PAUSE = 900;
  let timer = null;

  const draw = call => {
    films.forEach(({start, changes}, i) => {
      const texts = start.slice(), since = start.map(() => 0);
      changes.slice(0, call).forEach((changed, k) => changed.forEach(([place, text]) => {
        texts[place] = text;
        since[place] = k + 1;
      }));
      reels[i].replaceChildren(...texts.map((text, place) => {
        const piece = document.createElement("i");
        piece.textContent = text === null ? "·" : text;
        if (text === null) piece.className = "mask";
        else if (Object.hasOwn(colours, text)) piece.className = "g" + colours[text];
        if (text && start[place] !== null) piece.classList.add("given");
        if (call && since[place] === call) piece.classList.add("new");
        return piece;
      }));
    });
    slider.value = call;
    said.textContent = `call ${call} of ${last}`;
  };
  const stop = () => { clearInterval(timer); timer = null; run.textContent = "Play"; };
  const step = by => { stop(); draw(Math.min(Math.max(Number(slider.value) + by, 0), last)); };
  const start = () => {
    if (Number(slider.value) === last) draw(0);
    run.textContent = "Pause";
    timer = setInterval(() => {
      draw(Number(slider.value) + 1);
      if (Number(slider.value) === last) stop();
    }, PAUSE);
  };
  run.onclick = () => timer === null ? start() : stop();
  find(".back").onclick = () => step(-1);
  find(".on").onclick = () => step(1);
  slider.oninput = () => { stop(); draw(Number(slider.value)); };
  find(".controls").hidden = false;
  draw(last);
  if (!still.matches) {  // it begins by itself, once, when it is seen
    const seen = new IntersectionObserver(entries => entries.some(it => it.isIntersecting) && (seen.disconnect(), start()), {threshold: 0.6});
    seen.observe(find(".controls"));
  }
})();
