// Copy buttons and the refresh toggle. Every page is whole without this file.
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
  return active && main.contains(active) && active.matches("input, select");
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
refreshToggle();
