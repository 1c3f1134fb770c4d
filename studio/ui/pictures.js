// What the Train tab does with pictures and captions before it asks the server: saving what is written in place, putting
// the answers where they belong, and taking dropped files and folders.
(() => {
  "use strict";

  const find = (selector) => document.querySelector(selector);
  const shown = (selector) => [...document.querySelectorAll(selector)].find((each) => each.offsetParent !== null);

  // Captions are sent one after the other, so that an older text never arrives after a newer one.
  const PAUSE = 700; // milliseconds without a key before a caption is sent
  const PATIENCE = 8000; // milliseconds for an answer
  const waiting = new Map(); // picture -> its text that was not sent yet
  const JUST_NOW = 5000; // milliseconds in which who wrote in a field goes on there when the pictures are drawn anew
  let sent = null;
  let writing = null;
  let number = 0;
  let pause = 0;

  const fieldOf = (picture) => document.getElementById(`caption-${picture}`);
  const cardOf = (picture) => document.getElementById(`shot-${picture}`);
  const draftOf = (picture) => `duckrabbit.caption.${find(".shots")?.dataset.set}.${picture}`;

  function say(picture, words, kind = "") {
    const place = cardOf(picture)?.querySelector(".kept-said");
    if (!place) return;
    place.textContent = words;
    place.className = `kept-said ${kind}`;
  }

  function written(field) {
    const picture = field.dataset.caption;
    sessionStorage.setItem(draftOf(picture), field.value);
    if (document.activeElement === field) writing = { picture, at: performance.now() };
    waiting.set(picture, field.value);
    say(picture, "");
    clearTimeout(pause);
    pause = setTimeout(send, PAUSE);
  }

  function send() {
    const grid = find("#pictures-grid .shots");
    if (sent || !waiting.size || !grid) return;
    const [picture, text] = waiting.entries().next().value;
    waiting.delete(picture);
    number += 1;
    sent = { picture, text, number: String(number), draft: draftOf(picture) };
    sent.late = setTimeout(retry, PATIENCE, sent);
    say(picture, "Saving …");
    grid.dispatchEvent(new CustomEvent("duck-caption", { bubbles: true, detail: { picture, text, number: sent.number } }));
  }

  function retry(lost) {
    if (sent !== lost) return;
    sent = null;
    say(lost.picture, "Not saved yet; trying again", "is-wrong");
    if (!waiting.has(lost.picture)) waiting.set(lost.picture, lost.text);
    send();
  }

  function answered(refused) {
    clearTimeout(sent.late);
    const { picture, text, draft } = sent;
    sent = null;
    if (refused) say(picture, refused, "is-wrong");
    else if (!waiting.has(picture)) {
      say(picture, "Saved");
      if (sessionStorage.getItem(draft) === text) sessionStorage.removeItem(draft);
    }
    send();
  }

  // The server's answer holds pieces for places in the page; whoever writes in a field keeps it.
  let applied = "";

  function apply(patch) {
    applied = patch.dataset.serial;
    patch.querySelectorAll("[data-into]").forEach((piece) => {
      const place = document.getElementById(piece.dataset.into);
      if (!place) return;
      const open = place.querySelector("details")?.open;
      place.innerHTML = piece.innerHTML;
      if (open && place.querySelector("details")) place.querySelector("details").open = true;
    });
    patch.querySelectorAll("[data-card]").forEach((piece) => {
      const { card: picture, out, changed } = piece.dataset;
      const [card, field] = [cardOf(picture), fieldOf(picture)];
      if (!card) return;
      card.dataset.out = out;
      card.classList.toggle("is-out", out === "true");
      card.classList.toggle("is-changed", changed === "true");
      if (document.activeElement !== field && !waiting.has(picture)) field.value = piece.textContent;
    });
    const refused = patch.querySelector("[data-refused]")?.textContent;
    patch.replaceChildren(); // what it held stands in its places now
    if (sent && patch.dataset.answers === sent.number) answered(refused);
  }

  // What was typed and not saved before a reload or a turned page is still there. All other fields hold what was just
  // drawn: gradio draws over the elements that are there, and a field that was written in keeps its text in that.
  function recall(grid) {
    grid.dataset.met = "";
    grid.querySelectorAll("[data-caption]").forEach((field) => {
      const picture = field.dataset.caption;
      const coming = waiting.has(picture) || sent?.picture === picture;
      const draft = sessionStorage.getItem(draftOf(picture));
      const text = draft ?? field.defaultValue;
      if (field.value !== text) field.value = text;
      if (!coming && text !== field.defaultValue) written(field);
    });
    const field = writing && performance.now() - writing.at < JUST_NOW && fieldOf(writing.picture);
    if (field && document.activeElement === document.body) field.focus();
  }

  new MutationObserver(() => {
    const patch = find("#pictures-patch [data-serial]");
    if (patch && patch.dataset.serial !== applied) apply(patch);
    const grid = find("#pictures-grid .shots:not([data-met])");
    if (grid) recall(grid);
  }).observe(document, { childList: true, subtree: true });

  document.addEventListener("input", ({ target }) => {
    if (target.matches("[data-caption]")) written(target);
  });
  document.addEventListener("focusout", ({ target }) => {
    if (target.matches?.("[data-caption]")) send();
  });

  // A caption is one line: Enter goes on to the next picture's, Shift with it to the one before.
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("[data-caption]") || event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const fields = [...document.querySelectorAll("#pictures-grid [data-caption]")];
    const next = fields[fields.indexOf(event.target) + (event.shiftKey ? -1 : 1)];
    if (next) next.focus();
    else event.target.blur();
  });

  // Turning to other pictures shows where they begin.
  document.addEventListener("click", (event) => {
    if (event.target.closest("#pictures-grid [data-act=turn]")) find("#pictures").scrollIntoView({ block: "start" });
  });

  // A run begins with what is written: it waits until every caption is saved.
  const LONGEST_WAIT = 3000; // milliseconds

  document.addEventListener("click", (event) => {
    const run = event.target.closest("button.run, button.also-run");
    if (!run || !shown("#pictures") || (!waiting.size && !sent)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const until = performance.now() + LONGEST_WAIT;
    const go = () => {
      send();
      if ((waiting.size || sent) && performance.now() < until) setTimeout(go, 40);
      else if (!waiting.size && !sent) run.click();
    };
    go();
  }, true);

  // Files: their names with folders go to the server beside them, for an upload carries last names only.
  const dropArea = () => shown("#train-drop");
  const dropField = () => dropArea()?.closest(".field").querySelector("input[type=file]");
  let told = null;

  function type(field, text) {
    const kind = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  const megabytes = (bytes) => `${(bytes / 1024 ** 2).toFixed(1)} MB`;

  // Whether they may be sent; says so, or what is too large.
  function tell(files) {
    const names = told || files.map((file) => file.webkitRelativePath || file.name);
    told = null;
    const place = find("#train-said p");
    const large = files.find((file) => file.size > Number(place.dataset.most));
    place.className = large ? "is-error" : "hint";
    if (large) {
      const most = megabytes(Number(place.dataset.most));
      place.textContent = `${large.name} has ${megabytes(large.size)}, and at most ${most} can be sent here; shrink it.`;
      return false;
    }
    type(find("#train-names textarea, #train-names input"), JSON.stringify(names));
    const size = megabytes(files.reduce((sum, file) => sum + file.size, 0));
    place.textContent = `Sending ${files.length} ${files.length === 1 ? "file" : "files"}, ${size} …`;
    return true;
  }

  document.addEventListener("change", (event) => {
    const field = event.target;
    if (!field.matches("input[type=file]") || field !== dropField() || !field.files.length) return;
    if (tell([...field.files])) return;
    event.stopImmediatePropagation();
    field.value = "";
  }, true);

  const fileOf = (entry) => new Promise((done, failed) => entry.file(done, failed));

  // Every file of what was dropped, folders walked through, as [file, name with folders].
  async function filesIn(entries) {
    const found = [];
    for (const entry of entries) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isFile) found.push([await fileOf(entry), entry.fullPath.slice(1)]);
      else {
        const reader = entry.createReader();
        const read = () => new Promise((done, failed) => reader.readEntries(done, failed));
        for (let some = await read(); some.length; some = await read()) found.push(...(await filesIn(some)));
      }
    }
    return found;
  }

  function choose(field, files) {
    const list = new DataTransfer();
    files.forEach((file) => list.items.add(file));
    field.files = list.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  async function dropped(data) {
    const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...data.files].map((file) => [file, file.name]);
    const found = entries.some((entry) => entry.isDirectory) ? await filesIn(entries) : plain;
    if (!found.length) return;
    const restore = shown("button.restore-upload")?.closest(".starts-head")?.querySelector("input[type=file]");
    if (found.length === 1 && /\.(safetensors|json)$/i.test(found[0][1]) && restore) {
      choose(restore, [found[0][0]]);
      return;
    }
    told = found.map(([, name]) => name);
    choose(dropField(), found.map(([file]) => file));
  }

  const carriesFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  const veil = (on) => document.body.classList.toggle("is-dropping-pictures", on);
  let depth = 0;

  document.addEventListener("dragenter", (event) => {
    if (!carriesFile(event) || !dropArea()) return;
    depth += 1;
    veil(true);
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) veil(false);
  });
  // Before anything inside the page takes it, so that it arrives once.
  document.addEventListener("drop", (event) => {
    depth = 0;
    veil(false);
    if (!carriesFile(event) || !dropArea()) return;
    event.preventDefault();
    event.stopPropagation();
    dropped(event.dataTransfer);
  }, true);
})();
