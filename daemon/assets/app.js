// Copy buttons, the refresh toggle, and the keys of the map. Every page is whole without this file.
"use strict";

const COPIED_MS = 1500;

function copyButtons(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, COPIED_MS);
    });
  }
}

// Rows the reader opened stay open, and a form in use is left alone.
function busy(main) {
  const active = document.activeElement;
  return active && main.contains(active) && active.matches("input, select, [data-cells] a, dialog *");
}

async function reload() {
  const main = document.getElementById("main");
  if (document.hidden || busy(main)) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
  for (const open of main.querySelectorAll("details[open][data-key]")) {
    const same = fresh.querySelector(`details[data-key="${CSS.escape(open.dataset.key)}"]`);
    if (same) same.open = true;
  }
  main.replaceChildren(...fresh.childNodes);
  copyButtons(main);
  mapKeys(main);
}

// Cells of a row lie at one height; how many there are depends on the window.
function perRow(cells) {
  const below = cells.findIndex((cell) => cell.offsetTop > cells[0].offsetTop);
  return below < 0 ? cells.length : below;
}

function step(key, at, cells) {
  const row = perRow(cells);
  const last = cells.length - 1;
  switch (key) {
    case "ArrowRight": return Math.min(at + 1, last);
    case "ArrowLeft": return Math.max(at - 1, 0);
    case "ArrowDown": return at + row > last ? at : at + row;
    case "ArrowUp": return at < row ? at : at - row;
    case "PageDown": return Math.min(at + 10 * row, last);
    case "PageUp": return Math.max(at - 10 * row, 0);
    case "Home": return 0;
    case "End": return last;
    default: return -1;
  }
}

// What the table says of a cell, as a list of terms.
function showDetails(root, cell) {
  const dialog = root.querySelector("[data-details]");
  const row = document.getElementById(cell.hash.slice(1));
  const heads = row.closest("table").tHead.rows[0].cells;
  const terms = [...row.cells].flatMap((value, index) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = heads[index].textContent;
    text.textContent = value.title ? `${value.textContent} (${value.title})` : value.textContent || "–";
    return [term, text];
  });
  dialog.querySelector("dl").replaceChildren(...terms);
  dialog.querySelector("button").onclick = () => dialog.close();
  dialog.showModal();
}

function mapKeys(root) {
  const map = root.querySelector("[data-cells]");
  if (!map) return;
  const cells = [...map.children];
  const said = root.querySelector("[data-said]");
  let current = 0;
  const choose = (next) => {
    cells[current].tabIndex = -1;
    cells[current].setAttribute("aria-selected", "false");
    current = next;
    cells[current].tabIndex = 0;
    cells[current].setAttribute("aria-selected", "true");
  };
  map.addEventListener("keydown", (event) => {
    const next = step(event.key, current, cells);
    if (next < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(next);
    cells[next].focus();
  });
  map.addEventListener("focusin", (event) => {
    choose(cells.indexOf(event.target));
    said.textContent = event.target.title;
  });
  map.addEventListener("mouseover", (event) => {
    if (event.target !== map) said.textContent = event.target.title;
  });
  map.addEventListener("click", (event) => {
    if (event.target === map) return;
    event.preventDefault();
    showDetails(root, event.target);
  });
}

function refreshToggle() {
  const button = document.querySelector("button[data-refresh]");
  if (!button) return;
  let seconds = Number(button.dataset.refresh);
  let timer = 0;
  const apply = () => {
    clearInterval(timer);
    if (seconds > 0) timer = setInterval(() => reload().catch(() => {}), seconds * 1000);
    button.textContent = `Refresh every ${seconds || 5} s`;
    button.setAttribute("aria-pressed", String(seconds > 0));
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    seconds = seconds > 0 ? 0 : 5;
    const url = new URL(location.href);
    if (seconds > 0) url.searchParams.set("refresh", String(seconds));
    else url.searchParams.delete("refresh");
    history.replaceState(null, "", url);
    apply();
  });
  apply();
}

copyButtons(document);
mapKeys(document);
refreshToggle();
