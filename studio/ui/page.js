// What the page does without asking the server: keys, light and dark, candidates, the word list, dropping a picture.
(() => {
  "use strict";

  const THEME = "duckrabbit.theme";
  const find = (selector) => document.querySelector(selector);
  const shown = (element) => Boolean(element && element.offsetParent !== null);

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
    stage.querySelectorAll("[data-candidate].candidate").forEach((part) => {
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
    button.setAttribute("aria-label", still ? "Play the animation" : "Pause the animation");
  }

  // Who asked the system for less motion gets animations that stand still until they are played.
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    new MutationObserver(() => {
      document.querySelectorAll("[data-hold]:not([data-met])").forEach((button) => {
        button.dataset.met = "";
        hold(button);
      });
    }).observe(document, { childList: true, subtree: true });
  }

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
  });

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    if (at("[data-look]")) toggleTheme();
    else if (at("[data-pick]")) pick(at(".stage"), Number(at("[data-pick]").dataset.pick));
    else if (at("[data-hold]")) hold(at("[data-hold]"));
    else if (at("[data-word]")) useWord(at("[data-word]").dataset);
  });

  // Keys: Ctrl+Enter runs, Escape stops, arrows walk through candidates.
  document.addEventListener("keydown", (event) => {
    const free = !event.target.closest?.("input, textarea, select, [role=tab], [role=listbox]");
    const thumb = free && find("#stage [data-pick][aria-checked=true]");
    const upright = event.target.closest?.("[data-pick]") ? { ArrowDown: 1, ArrowUp: -1 } : {};
    const by = { ArrowRight: 1, ArrowLeft: -1, ...upright }[event.key];
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const run = find("#generate");
      if (shown(run)) {
        event.preventDefault();
        event.stopPropagation();
        run.click();
      }
    } else if (event.key === "Escape") {
      const stop = find("#stop");
      if (stop && !stop.disabled && shown(stop) && !find("[role=listbox]")) stop.click();
    } else if (thumb && by && shown(thumb)) {
      event.preventDefault();
      walk(thumb, by);
    }
  }, true);

  // A picture dropped anywhere restores its settings, as if it had been chosen with the button.
  const carriesFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  const target = () => shown(find("#restore-upload")) && find(".starts-head input[type=file]");
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
    if (!field || !event.dataTransfer.files.length) return;
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    field.files = files.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
})();
