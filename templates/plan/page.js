
(() => {
  "use strict";
  const one = (what, at = document) => at.querySelector(what);
  const all = (what, at = document) => [...at.querySelectorAll(what)];
  const bar = one(".bar"), find = one("#find"), dialog = one("dialog");
  const only = ["effect", "later"].map((name) => [name, one("#" + name)]).filter(([, box]) => box);

  // What each item is found by: its own words, those above it, and names of its hosts.
  const items = all(".item").map((item) => {
    const step = item.closest(".step"), hosts = one(".hosts", item) || one(".hosts", step);
    const names = (one("#" + hosts.dataset.list) || hosts).textContent.toLowerCase().trim().split(", ");
    const above = [item.closest(".layer")?.dataset.name, one("h4", step)?.textContent, names.join(" ")];
    return { item, step, names, text: [...above, item.textContent].join(" ").toLowerCase() };
  });

  const fits = (word, { names, text }) => word.startsWith("host:") ? names.includes(word.slice(5)) : text.includes(word);

  function narrow() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const each of items)
      each.item.hidden = !(words.every((word) => fits(word, each)) &&
        only.every(([name, box]) => !box.checked || name in each.item.dataset));
    for (const outer of all(".step, .layer")) outer.hidden = !one(".item:not([hidden])", outer);
    if (items.some((each) => each.item.hidden)) for (const layer of all(".layer")) layer.open = true;
    const steps = all(view() + " .step"), left = steps.filter((step) => !step.hidden).length;
    one("output").textContent = left === steps.length ? "" : `${left} of ${steps.length} shown`;
  }

  const view = () => "#by-" + document.body.dataset.view;
  function show(name) {
    document.body.dataset.view = bar.elements.view.value = name;
    narrow();
  }

  const unfold = (open) => { for (const each of all("details")) each.open = open; };

  function go(step) {
    const layer = step?.closest(".layer");
    if (layer) layer.open = true;
    step?.focus({ preventScroll: true });
    step?.scrollIntoView({ block: "nearest" });
  }

  function move(by) {
    const steps = all(view() + " .step").filter((step) => !step.hidden);
    const now = steps.indexOf(document.activeElement.closest(".step"));
    go(steps[now < 0 ? 0 : Math.min(Math.max(now + by, 0), steps.length - 1)]);
  }

  function toggle() {
    const diffs = all("details", document.activeElement.closest(".step") || document.createElement("p"));
    const open = diffs.some((each) => !each.open);
    for (const each of diffs) each.open = open;
  }

  const keys = {
    "/": () => find.focus(), j: () => move(1), k: () => move(-1), o: toggle, e: () => unfold(true),
    f: () => unfold(false), v: () => show(view() === "#by-layer" ? "host" : "layer"), "?": () => dialog.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.target === find && event.key === "Escape") { find.value = ""; narrow(); find.blur(); }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === find || dialog.open) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link) return;
    const host = link.dataset.host, step = one(link.getAttribute("href"));
    if (host) find.value = "host:" + host;
    else if (step.closest("#by-layer")) show("layer");
    else return;
    event.preventDefault();
    narrow();
    if (host) bar.scrollIntoView();
    else go(step);
  });

  bar.addEventListener("input", (event) => event.target.name === "view" ? show(event.target.value) : narrow());
  bar.addEventListener("submit", (event) => event.preventDefault());
  one("#open").addEventListener("click", () => unfold(true));
  one("#fold").addEventListener("click", () => unfold(false));
  one("#keys").addEventListener("click", () => dialog.showModal());
  addEventListener("beforeprint", () => unfold(true));
  bar.hidden = false;
  show("layer");
})();
