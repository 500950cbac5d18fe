// Wires the parts: a source (photo, address or item) and parameters go in, a page of results comes out.

import { getItem, listAttributes, listItems, rememberKey, search } from "./api.js";
import { createCrop } from "./crop.js";
import { byId, h, showProblem } from "./dom.js";
import { createFilters } from "./filters.js";
import * as visits from "./history.js";
import { createImporter } from "./importer.js";
import { createIntake } from "./intake.js";
import { headline, picture, provenance, renderResult, renderWaiting } from "./results.js";

const SHELF_ITEMS = 12;
const [status, problem, results, preview, stage] = ["status", "problem", "results", "preview", "stage"].map(byId);
const announce = (text) => { status.textContent = text; };
let running; // AbortController of the search under way

const labelOf = (source) => source.title || { photo: "Your photo", url: "Image from the web", item: source.id }[source.kind];

/** A real link to a search, so that it can be opened in a tab; a plain click stays on the page. */
function linkTo(source, properties, ...content) {
  const onClick = (event) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(source, visits.trailHere());
  };
  return h("a", { href: visits.addressOf(source, filters.read()), on: { click: onClick }, ...properties }, ...content);
}

function renderTrail() {
  const crumbs = visits.trail();
  const steps = crumbs.map((crumb, index) => {
    const source = visits.sourceOf(crumb);
    const back = () => go(source, crumbs.slice(0, index));
    return h("li", {}, source ? h("button", { type: "button", className: "link", on: { click: back } }, labelOf(crumb)) : labelOf(crumb));
  });
  const here = visits.current()?.source;
  byId("trail").hidden = !steps.length;
  byId("trail").replaceChildren(h("ol", {}, ...steps, h("li", { "aria-current": "page" }, here ? labelOf(here) : "")));
}

function showSource(source, isShowable = true) {
  // Only pictures of this host can be shown: the page calls no other one, so an address is shown in words.
  const url = !isShowable ? null : source.kind === "photo" ? (source.preview ??= URL.createObjectURL(source.file)) : source.image;
  stage.hidden = byId("crop-help").hidden = byId("crop-reset").hidden = !url;
  byId("no-preview").hidden = Boolean(url);
  byId("no-preview").textContent = source.kind === "url" ? source.url : source.kind === "photo" ? source.file.name : source.id;
  preview.alt = source.kind === "item" ? labelOf(source) : "The photo you search with";
  if (url) preview.src = url;
  else preview.removeAttribute("src");
}

preview.addEventListener("load", () => stage.style.setProperty("--ratio", preview.naturalWidth / preview.naturalHeight));
preview.addEventListener("error", () => {
  // A format that this browser can't show may still be one that the server can search with.
  if (visits.current() && preview.hasAttribute("src")) showSource(visits.current().source, false);
});

function showResult(entry) {
  renderResult(results, entry.result, { linkTo, actions: { import: importer.open, clear: filters.reset, anyScore: () => { filters.write({ ...filters.read(), min_score: 0 }); runSearch(); } } });
  byId("results-title").textContent = headline(entry.result);
  byId("provenance").textContent = provenance(entry.result);
  announce(headline(entry.result));
}

async function runSearch() {
  const entry = visits.current();
  if (!entry) return;
  const parameters = filters.read();
  visits.noteParameters(parameters);
  running?.abort();
  const mine = (running = new AbortController());
  results.setAttribute("aria-busy", "true");
  showProblem(problem, null);
  renderWaiting(results, parameters.k);
  announce("Searching…");
  try {
    entry.result = await search({ source: entry.source, crop: entry.crop, parameters }, mine.signal);
    if (mine === running) showResult(entry);
  } catch (error) {
    if (mine !== running || error.name === "AbortError") return;
    results.replaceChildren();
    byId("results-title").textContent = "That didn’t work";
    byId("provenance").textContent = "";
    announce("");
    showProblem(problem, error, error.isRetryable ? runSearch : null);
  } finally {
    if (mine === running) results.setAttribute("aria-busy", "false");
  }
}

/** A link that somebody shared names an item by its id only. */
async function completeItem(source) {
  if (source.kind !== "item" || source.image) return;
  const item = await getItem(source.id).catch(() => null); // the search itself tells what is wrong
  if (!item || visits.current()?.source !== source) return;
  Object.assign(source, { title: item.title || item.id, image: item.images[0]?.url });
  showPlace();
}

function showPlace() {
  const { source } = visits.current();
  document.title = `${labelOf(source)} – Lookalike`;
  showSource(source);
  renderTrail();
}

/** Shows the entry that the history points at; what is known already is not asked for again. */
function showEntry(entry) {
  running?.abort();
  byId("start").hidden = Boolean(entry);
  byId("search").hidden = !entry;
  if (!entry) {
    document.title = "Lookalike";
    announce("");
    return window.scrollTo(0, 0);
  }
  document.querySelector(".query").scrollTop = 0;
  crop.set(entry.crop);
  results.replaceChildren();
  byId("results-title").textContent = "Searching…";
  byId("provenance").textContent = "";
  showProblem(problem, null);
  results.setAttribute("aria-busy", "false");
  showPlace();
  completeItem(entry.source);
  if (entry.result) showResult(entry);
  else runSearch();
  window.scrollTo(0, entry.scroll ?? 0);
}

function go(source, trail = []) {
  showEntry(visits.open(source, filters.read(), trail));
  byId("results-title").focus({ preventScroll: true });
}

async function loadCatalogue() {
  try {
    const [attributes, items] = await Promise.all([listAttributes(), listItems(SHELF_ITEMS)]);
    filters.setAttributes(attributes);
    byId("invite").hidden = items.length > 0;
    byId("shelf").hidden = items.length === 0;
    byId("shelf-items").replaceChildren(...items.filter(({ images }) => images.length).map(({ id, title, images: [{ url: image }] }) =>
      h("li", {}, linkTo({ kind: "item", id, title: title || id, image }, { title: title || id }, picture(image, title || id)))));
    showProblem(byId("start-problem"), null);
    byId("key-form").hidden = true;
  } catch (error) {
    byId("key-form").hidden = !error.needsKey;
    showProblem(byId("start-problem"), error.needsKey && error.code === "api_key_missing" ? null : error, error.needsKey ? null : loadCatalogue);
    if (error.needsKey) byId("key").focus();
  }
}

const filters = createFilters(() => runSearch());
const crop = createCrop({ stage, frame: byId("crop"), reset: byId("crop-reset"), onChange: (box) => { visits.current().crop = box; runSearch(); } });
const importer = createImporter({
  announce,
  async onDone() {
    visits.forgetResults();
    await loadCatalogue();
    if (visits.current()) runSearch();
  },
});
createIntake((source) => go(source), importer.isOpen);

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  rememberKey(byId("key").value.trim());
  await loadCatalogue();
  if (byId("key-form").hidden && visits.current()) runSearch();
});
byId("invite-import").addEventListener("click", importer.open);
byId("home").addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  visits.goHome();
  filters.write();
  showEntry(null);
});
window.addEventListener("popstate", () => {
  const entry = visits.restore();
  filters.write(visits.readAddress().parameters);
  showEntry(entry);
});
history.scrollRestoration = "manual"; // the results that give the page its height come later
if (matchMedia("(max-width: 56rem)").matches) byId("filters-fold").open = false;

const first = visits.restore();
await loadCatalogue(); // a filter in the address can be read only when its facets are there
if (visits.current() === first) { // else a photo was dropped in the meantime
  filters.write(visits.readAddress().parameters);
  showEntry(first);
}
