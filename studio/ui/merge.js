// What the Merge tab does without asking the server: sliding over alphas, the bars of the blocks, copying a path, and
// sending no more of a dropped model than its header.
(() => {
  "use strict";

  // A merge was drawn at several alphas: all pictures are in the page, one of each prompt is visible.
  function showAlpha(stage, place) {
    stage.dataset.at = place;
    stage.querySelectorAll(".is-merge [data-at]").forEach((part) => (part.hidden = Number(part.dataset.at) !== place));
    stage.querySelectorAll("[data-show-alpha]").forEach((cell) => {
      cell.setAttribute("aria-pressed", String(Number(cell.dataset.showAlpha) === place));
    });
    const alpha = stage.querySelector("[data-alphas]").dataset.alphas.split(" ")[place];
    stage.querySelectorAll("[data-alpha]").forEach((button) => (button.dataset.alpha = alpha));
    const slider = stage.querySelector("[data-alpha-slide]");
    const words = alpha ? `alpha ${Number(Number(alpha).toPrecision(6))}` : "merged";
    slider.value = place;
    slider.setAttribute("aria-valuetext", words);
    stage.querySelector(".alpha-said").textContent = words;
  }

  // A bar for each block: what is moved becomes the list of the blocks' own alphas.
  function mixed(fader) {
    const bars = [...fader.closest(".faders").querySelectorAll("input")];
    fader.title = `${fader.dataset.block} ${Number(fader.value).toFixed(2)}`;
    fader.closest(".mixer").querySelector(".mixer-said").textContent = fader.title;
    return bars.map((bar) => String(Number(bar.value))).join(", ");
  }

  function writeBlocks(text) {
    const field = document.querySelector("#block-alphas textarea");
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  async function copy(button) {
    await navigator.clipboard?.writeText(button.dataset.copy);
    button.dataset.copied = "";
    setTimeout(() => delete button.dataset.copied, 1200);
  }

  document.addEventListener("input", ({ target }) => {
    if (target.matches("[data-alpha-slide]")) showAlpha(target.closest(".stage"), Number(target.value));
    if (target.matches("[data-block]")) mixed(target);
  });

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    if (at("[data-show-alpha]")) showAlpha(at(".stage"), Number(at("[data-show-alpha]").dataset.showAlpha));
    else if (at("[data-copy]")) copy(at("[data-copy]"));
    else if (at("[data-clear-mixer]")) writeBlocks("");
  });

  // A recipe stands in a model's header: only that is sent, of however many gigabytes.
  const LONGEST_HEADER = 100 * 1024 * 1024; // bytes
  const cut = new WeakSet();

  async function headerOf(file) {
    const start = new DataView(await file.slice(0, 8).arrayBuffer());
    const length = Math.min(Number(start.getBigUint64(0, true)), LONGEST_HEADER);
    const header = new File([file.slice(0, 8 + length)], file.name, { type: file.type });
    cut.add(header);
    return header;
  }

  document.addEventListener("change", (event) => {
    const field = event.target;
    if (field.matches("[data-block]")) writeBlocks(mixed(field));
    const file = field.matches("input[type=file]") && field.files[0];
    if (!file || !file.name.endsWith(".safetensors") || file.size < 8 || cut.has(file)) return;
    event.stopImmediatePropagation();
    headerOf(file).then((header) => {
      const files = new DataTransfer();
      files.items.add(header);
      cut.add(files.files[0]);
      field.files = files.files;
      cut.add(field.files[0]);
      field.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }, true);
})();
