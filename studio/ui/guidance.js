// What the Guidance tab does without asking the server: a cell of the grid shown large, walked to with the arrow keys, two
// of them compared, and a comma taken for the point that it is meant to be.
(() => {
  "use strict";

  const cellsOf = (stage) => [...stage.querySelectorAll("[data-cell]")];
  const chosenIn = (stage) => stage.querySelector("[data-cell][aria-pressed=true]");
  const whole = (cell) => cell.querySelector("img").getAttribute("src").replace(/\?w=\d+$/, "");

  // What the grid says of one cell, by the names that the panel's places have.
  function factsOf(cell) {
    const place = cell.closest("td");
    const row = cell.closest("tr").querySelector("th").dataset;
    const column = cell.closest("table").querySelectorAll("thead th")[place.cellIndex - 1].dataset;
    const { prompt, seed } = row;
    return { column: column.title, settings: column.settings, prompt, seed, cost: cell.dataset.cost };
  }

  const wordsFor = (facts) => `${facts.prompt} by ${facts.column}, seed ${facts.seed}`;

  function mark(stage, cell) {
    cellsOf(stage).forEach((each) => {
      each.setAttribute("aria-pressed", String(each === cell));
      each.tabIndex = each === cell ? 0 : -1;
    });
  }

  function showLarge(stage, cell) {
    const panel = stage.querySelector(".cell-panel");
    const facts = factsOf(cell);
    const picture = panel.querySelector("[data-large]");
    picture.src = whole(cell);
    picture.alt = wordsFor(facts);
    Object.entries(facts).forEach(([name, text]) => (panel.querySelector(`[data-fact=${name}]`).textContent = text));
    panel.querySelectorAll("[data-cell-place]").forEach((button) => (button.dataset.cellPlace = cell.dataset.cell));
    panel.querySelector("[data-save]").href = whole(cell);
  }

  function reveal(panel, block) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    panel.scrollIntoView({ block, behavior: still ? "auto" : "smooth" });
  }

  // The first of two: the next cell that is pressed stands beside it.
  function from(stage) {
    return stage.querySelector(`[data-cell="${stage.dataset.from || ""}"]`);
  }

  function toggleFrom(stage) {
    if (stage.dataset.from) return endPair(stage);
    const cell = chosenIn(stage);
    stage.dataset.from = cell.dataset.cell;
    cell.dataset.first = "";
    const button = stage.querySelector("[data-compare]");
    button.setAttribute("aria-pressed", "true");
    button.lastChild.textContent = "Press a second picture";
    cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function endPair(stage) {
    delete stage.dataset.from;
    stage.querySelectorAll("[data-first]").forEach((cell) => delete cell.dataset.first);
    stage.querySelector(".cell-pair")?.remove();
    stage.querySelector(".cell-alone").hidden = false;
    const button = stage.querySelector("[data-compare]");
    button.setAttribute("aria-pressed", "false");
    button.lastChild.textContent = "Compare with …";
    const cell = chosenIn(stage);
    showLarge(stage, cell);
    cell.focus({ preventScroll: true });
  }

  function showPair(stage, left, right) {
    const panel = stage.querySelector(".cell-panel");
    panel.querySelector(".cell-pair")?.remove();
    const pair = panel.querySelector("template").content.firstElementChild.cloneNode(true);
    const [one, two] = [factsOf(left), factsOf(right)];
    const [under, over] = pair.querySelectorAll(".slide img");
    Object.assign(over, { src: whole(left), alt: `Left: ${wordsFor(one)}` });
    Object.assign(under, { src: whole(right), alt: `Right: ${wordsFor(two)}` });
    const captions = pair.querySelectorAll(".is-pair strong");
    [one, two].forEach((facts, index) => (captions[index].textContent = captions[index].title = facts.column));
    const map = pair.querySelector("canvas");
    Object.assign(map.dataset, { left: whole(left), right: whole(right) });
    Object.keys(one).forEach((name) => {
      const places = [pair.querySelector(`[data-left-fact=${name}]`), pair.querySelector(`[data-right-fact=${name}]`)];
      places[0].textContent = one[name];
      places[1].textContent = two[name];
      places[0].closest("tr").hidden = one[name] === two[name];
    });
    panel.querySelector(".cell-alone").hidden = true;
    panel.append(pair);
    reveal(panel, "nearest");
  }

  function choose(cell) {
    const stage = cell.closest(".stage");
    mark(stage, cell);
    const first = from(stage);
    if (first && first !== cell) showPair(stage, first, cell);
    else if (!first) showLarge(stage, cell);
    const panel = stage.querySelector(".cell-panel");
    if (panel.getBoundingClientRect().top > innerHeight - 160) reveal(panel, "end");
  }

  // The cell that an arrow leads to; cells that were not drawn are stepped over.
  function next(cell, [down, right]) {
    const rows = [...cell.closest("tbody").rows];
    let [y, x] = [rows.indexOf(cell.closest("tr")), cell.closest("td").cellIndex];
    for (;;) {
      y += down;
      x += right;
      if (y < 0 || y >= rows.length || x < 1 || x >= rows[y].cells.length) return null;
      const found = rows[y].cells[x].querySelector("[data-cell]");
      if (found) return found;
    }
  }

  const ARROWS = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };

  document.addEventListener("keydown", (event) => {
    const stage = event.target.closest?.(".guidance-stage");
    const cell = event.target.closest?.("[data-cell]");
    if (event.key === "Escape" && stage?.dataset.from) {
      event.preventDefault();
      event.stopPropagation();
      endPair(stage);
    } else if (cell && ARROWS[event.key]) {
      event.preventDefault();
      const there = next(cell, ARROWS[event.key]);
      if (!there) return;
      choose(there);
      there.focus({ preventScroll: true });
      there.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }, true);

  // Browsers drop the comma that somebody types into a slider's number, and 1,5 would be 15.
  document.addEventListener("beforeinput", (event) => {
    if (event.data !== "," || !event.target.matches?.("input[data-testid=number-input]")) return;
    event.preventDefault();
    document.execCommand("insertText", false, ".");
  });

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    if (at("[data-cell]")) choose(at("[data-cell]"));
    else if (at("[data-compare]")) toggleFrom(at(".stage"));
    else if (at("[data-close-pair]")) endPair(at(".stage"));
  });
})();
