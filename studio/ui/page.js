// What the page does without asking the server: keys, tabs, light and dark, candidates, the word list, dropping a picture,
// comparing two results, and showing at once that something was pressed.
(() => {
  "use strict";

  const THEME = "duckrabbit.theme";
  const find = (selector) => document.querySelector(selector);
  const shown = (element) => Boolean(element && element.offsetParent !== null);
  const findShown = (selector) => [...document.querySelectorAll(selector)].find(shown);

  // Light and dark: the visitor's choice, or else the system's.
  const asked = new URLSearchParams(location.search).get("__theme");
  const wanted = () => asked || localStorage.getItem(THEME) || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const paint = () => document.body.classList.toggle("dark", wanted() === "dark");
  const follow = () => {
    paint();
    // gradio writes the class as well, when it starts and when the system changes.
    new MutationObserver(() => {
      if (document.body.classList.contains("dark") !== (wanted() === "dark")) paint();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  };
  if (document.body) follow();
  else document.addEventListener("DOMContentLoaded", follow);

  function toggleTheme() {
    localStorage.setItem(THEME, document.body.classList.contains("dark") ? "light" : "dark");
    if (asked) {
      const address = new URL(location.href);
      address.searchParams.delete("__theme");
      location.replace(address);
      return;
    }
    paint();
  }

  // Candidates: all of them are in the page, one is visible.
  function pick(stage, index) {
    stage.querySelectorAll("[data-candidate]:is(.candidate, .readings)").forEach((part) => {
      part.hidden = Number(part.dataset.candidate) !== index;
    });
    stage.querySelectorAll("[data-pick]").forEach((thumb) => {
      const chosen = Number(thumb.dataset.pick) === index;
      thumb.setAttribute("aria-checked", String(chosen));
      thumb.tabIndex = chosen ? 0 : -1;
    });
  }

  function walk(thumb, by) {
    const thumbs = [...thumb.parentElement.querySelectorAll("[data-pick]")];
    const next = thumbs[(thumbs.indexOf(thumb) + by + thumbs.length) % thumbs.length];
    pick(next.closest(".stage"), Number(next.dataset.pick));
    next.focus();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // The animation can be held still.
  function hold(button) {
    const picture = button.parentElement.querySelector("img");
    const still = button.getAttribute("aria-pressed") !== "true";
    picture.src = still ? picture.dataset.still : picture.dataset.moving;
    button.setAttribute("aria-pressed", String(still));
  }

  // Tabs: an address may ask for one, and some buttons open one. gradio could do it, but looks through the whole page.
  const tabs = () => [...document.querySelectorAll("#tabs > .tab-wrapper [role=tab]")];
  const tabNamed = (name) => tabs().find((tab) => tab.textContent.trim().toLowerCase() === name);

  function openTab(name) {
    const tab = tabNamed(name);
    if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
  }

  let askedTab = new URLSearchParams(location.search).get("tab");
  function openAskedTab() {
    if (!askedTab || !tabs().length) return;
    openTab(askedTab);
    askedTab = null;
  }

  // Whatever was pressed says so at once, until the page changes: an answer may take longer than a fifth of a second.
  const LONGEST_PENDING = 4000; // milliseconds
  const RUNS = "button.run, button.also-run, button.stop, #search";
  let pending = [];

  function press(button) {
    button.dataset.pending = "";
    const started = { button, until: performance.now() + LONGEST_PENDING };
    pending.push(started);
    document.querySelectorAll(".fold .is-error").forEach((sentence) => delete sentence.dataset.met);
    setTimeout(() => release([started]), LONGEST_PENDING);
  }

  function release(those) {
    those.forEach(({ button }) => delete button.dataset.pending);
    pending = pending.filter((one) => !those.includes(one));
    openFoldsWithErrors();
  }

  const ANSWERS = ".stage-place, #pictures, #said, #history, #queue, #notice, #comparison, #pill, .note";
  const answered = (changes) => changes.some((change) => change.target.closest?.(ANSWERS));

  // On a phone the result stands above the recipe: who runs it wants to see it.
  function showStage() {
    const stage = findShown(".stage-place");
    if (stage && stage.getBoundingClientRect().bottom < 120) {
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      scrollTo({ top: 0, behavior: still ? "auto" : "smooth" });
    }
  }

  // A field and the sentence beside it belong together for a screen reader, too.
  const FIELDS = { prompts: ".prompt textarea", views: ".view input" };

  function tieNotes() {
    document.querySelectorAll(".note").forEach((note, index) => {
      const around = note.closest(".view-row, .field, .starts, #model, .action-bar");
      const wrong = [...note.querySelectorAll(".is-error")].map((each) => (each.dataset.field || "").split(".")[0]);
      const text = note.textContent.trim();
      note.id ||= `note-${index}`;
      around?.querySelectorAll("input:not([type=file]), textarea").forEach((field) => {
        const blamed = wrong.some((name) => !FIELDS[name] || field.matches(FIELDS[name]));
        if (text) field.setAttribute("aria-describedby", note.id);
        else field.removeAttribute("aria-describedby");
        if (blamed) field.setAttribute("aria-invalid", "true");
        else field.removeAttribute("aria-invalid");
      });
    });
  }

  // Comparing: which results are picked stands in the panel that the server draws.
  function markPicked() {
    const panel = find("#comparison .comparison");
    const picked = (panel?.dataset.picked || "").split(" ");
    document.querySelectorAll("#history [data-act=compare]").forEach((button) => {
      button.setAttribute("aria-pressed", String(picked.includes(button.dataset.job)));
    });
    if (panel && panel.matches(".is-open") && !panel.dataset.met) {
      panel.dataset.met = "yes";
      panel.scrollIntoView({ block: "start" });
      panel.querySelector("h2").focus({ preventScroll: true });
    }
  }

  function slide(input) {
    input.closest(".slide").style.setProperty("--at", `${input.value}%`);
  }

  const loaded = (source) =>
    new Promise((done, failed) => {
      const picture = new Image();
      picture.onload = () => done(picture);
      picture.onerror = failed;
      picture.src = source;
    });

  // Red, green and blue of how much is different, from 0 to 1: black, the accent, white.
  const RAMP = [[16, 17, 20], [11, 107, 88], [82, 203, 172], [255, 255, 255]];

  function heat(amount) {
    const at = Math.min(0.9999, amount) * (RAMP.length - 1);
    const low = Math.floor(at);
    return RAMP[low].map((from, i) => from + (RAMP[low + 1][i] - from) * (at - low));
  }

  // The mean over the channels of |left - right|, doubled so that small differences can be seen.
  async function drawDifference(canvas) {
    canvas.dataset.met = "yes";
    const [left, right] = await Promise.all([loaded(canvas.dataset.left), loaded(canvas.dataset.right)]);
    const side = Math.min(512, Math.max(left.naturalWidth, right.naturalWidth));
    canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const read = (picture) => {
      pen.drawImage(picture, 0, 0, side, side);
      return pen.getImageData(0, 0, side, side).data;
    };
    const [one, two, out] = [read(left), read(right), pen.createImageData(side, side)];
    let sum = 0;
    for (let i = 0; i < one.length; i += 4) {
      const by = (Math.abs(one[i] - two[i]) + Math.abs(one[i + 1] - two[i + 1]) + Math.abs(one[i + 2] - two[i + 2])) / 765;
      sum += by;
      out.data.set([...heat(2 * by), 255], i);
    }
    pen.putImageData(out, 0, 0);
    const mean = (100 * sum) / (side * side);
    const said = `${mean.toFixed(1)} % on average; dark is the same`;
    canvas.closest("figure").querySelector(".amount").textContent = said;
    canvas.setAttribute("aria-label", `Where the two differ, ${said}`);
  }

  // Who asked the system for less motion gets animations that stand still until they are played.
  const lessMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let undoSoon = false;

  // gradio's folds do not say whether they are open.
  function tellFolds() {
    document.querySelectorAll(".fold > button.label-wrap").forEach((button) => {
      button.setAttribute("aria-expanded", String(button.classList.contains("open")));
    });
  }

  // A sentence about a field in a closed fold would be seen by nobody: the fold opens,
  // once for every sentence and once more when something is pressed.
  function openFoldsWithErrors() {
    document.querySelectorAll(".fold .is-error:not([data-met])").forEach((sentence) => {
      sentence.dataset.met = "yes";
      const head = sentence.closest(".fold").querySelector(":scope > button.label-wrap");
      if (head && !head.classList.contains("open")) head.click();
    });
  }

  function settle() {
    openAskedTab();
    openFoldsWithErrors();
    tellFolds();
    tieNotes();
    markPicked();
    document.querySelectorAll("canvas[data-difference]:not([data-met])").forEach((canvas) => drawDifference(canvas));
    if (lessMotion) {
      document.querySelectorAll("[data-hold]:not([data-met])").forEach((button) => {
        button.dataset.met = "yes";
        hold(button);
      });
    }
    const undo = undoSoon && find("#notice [data-act=undo]");
    if (undo) {
      undo.focus();
      undoSoon = false;
    }
  }

  let settling = false;
  new MutationObserver((changes) => {
    if (pending.length && answered(changes)) release(pending);
    if (settling) return;
    settling = true;
    requestAnimationFrame(() => {
      settling = false;
      settle();
    });
  }).observe(document, { childList: true, subtree: true });

  // The word list: filter it, and put a word into the prompt that was used last.
  let lastPrompt = null;
  document.addEventListener("focusin", (event) => {
    if (event.target.matches(".prompt textarea")) lastPrompt = event.target;
  });

  function filterWords(field) {
    const wanted = field.value.trim().toLowerCase();
    let left = 0;
    field.closest(".words").querySelectorAll("li").forEach((item) => {
      item.hidden = !item.textContent.toLowerCase().includes(wanted);
      left += item.hidden ? 0 : 1;
    });
    field.closest(".words").querySelector(".left").textContent = wanted ? `${left} found` : "";
  }

  function type(field, text) {
    const kind = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function useWord({ word, into }) {
    const last = lastPrompt && lastPrompt.isConnected ? lastPrompt : null;
    const field = (into && find(`${into} textarea`)) || last || find(".prompt textarea");
    if (field) {
      type(field, `${/^[aeiou]/i.test(word) ? "an" : "a"} ${word}`);
      field.focus();
    }
  }

  document.addEventListener("input", (event) => {
    if (event.target.matches("[data-filter-words]")) filterWords(event.target);
    if (event.target.matches("[data-slide]")) slide(event.target);
  });

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    if (at("[data-look]")) toggleTheme();
    else if (at("[data-pick]")) pick(at(".stage"), Number(at("[data-pick]").dataset.pick));
    else if (at("[data-hold]")) hold(at("[data-hold]"));
    else if (at("[data-word]")) useWord(at("[data-word]").dataset);
    else if (at(RUNS)) press(at(RUNS));
    else if (at("[data-act]")) act(at("[data-act]"));
    if (at(".run, .also-run, #search, [data-act=vary], [data-act=save-this], [data-act=save-anyway], [data-act=resume]")) showStage();
    if (at(".fold > button")) setTimeout(tellFolds, 100);
  });

  // The part of a button's work that is the page's own; the server does the rest.
  function act(button) {
    const kind = button.dataset.act;
    press(button);
    if (kind === "queue") openTab("history");
    if (button.closest("#history") && (kind === "show" || kind === "restore")) {
      openTab(button.dataset.tab);
      scrollTo({ top: 0 });
    }
    if (kind === "delete") undoSoon = true;
    if (button.dataset.open) {
      openTab(button.dataset.open);
      bringIntoSight(button.dataset.see, 30);
    }
  }

  // What another tab was given may lie in a fold that opens only with the server's answer.
  function bringIntoSight(selector, times) {
    const target = find(selector);
    if (shown(target)) target.scrollIntoView({ block: "center" });
    else if (times) setTimeout(() => bringIntoSight(selector, times - 1), 100);
  }

  // Keys: Ctrl+Enter runs, Escape stops, arrows walk through candidates.
  document.addEventListener("keydown", (event) => {
    const free = !event.target.closest?.("input, textarea, select, [role=tab], [role=listbox]");
    const thumb = free && findShown(".stage-place [data-pick][aria-checked=true]");
    const upright = event.target.closest?.("[data-pick]") ? { ArrowDown: 1, ArrowUp: -1 } : {};
    const by = { ArrowRight: 1, ArrowLeft: -1, ...upright }[event.key];
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const run = findShown(".run") || findShown(".also-run");
      if (run && !("pending" in run.dataset)) {
        event.preventDefault();
        event.stopPropagation();
        run.click();
      }
    } else if (event.key === "Escape") {
      const [stop, close] = [findShown("button.stop"), find("#comparison [data-act=close-comparison]")];
      if (find("[role=listbox]")) return;
      if (shown(close)) close.click();
      else if (stop && !stop.disabled) stop.click();
      else find("#pill [data-act=stop]")?.click();
    } else if (thumb && by && shown(thumb)) {
      event.preventDefault();
      walk(thumb, by);
    }
  }, true);

  // A picture dropped anywhere restores its settings, as if it had been chosen with the button; but pictures.js takes
  // what is dropped where pictures are trained on.
  const carriesFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  const target = () => !findShown("#train-drop") && findShown("button.restore-upload")?.closest(".starts-head")?.querySelector("input[type=file]");
  let depth = 0;
  const veil = (on) => document.body.classList.toggle("is-dropping", on);

  document.addEventListener("dragenter", (event) => {
    if (!carriesFile(event) || !target()) return;
    depth += 1;
    veil(true);
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) veil(false);
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFile(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    depth = 0;
    veil(false);
    if (!carriesFile(event)) return;
    event.preventDefault();
    const field = target();
    if (field && event.dataTransfer.files.length) choose(field, event.dataTransfer.files[0]);
  });

  function choose(field, file) {
    const files = new DataTransfer();
    files.items.add(file);
    field.files = files.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }
})();
