// The answer to a search: cards, where it came from, and words for an empty one.

import { formatNumber, h, humanise, plural } from "./dom.js";

const FACTS_SHOWN = 5;
const SKELETONS_AT_MOST = 12;

const ORIGINS = {
  engine: "Computed now",
  embedding_cache: "Known photo, searched now",
  result_cache: "From the cache",
  similar_result_cache: "From the cache of a nearly identical photo",
};

const STEPS = ["queue", "fetch", "decode", "embed", "search"];

const REASONS = {
  catalogue_empty: { title: "The catalogue is empty", text: "Import your items, then search again.", action: "import", button: "Import a catalogue" },
  no_item_matches_filter: { title: "No item matches these filters", text: "Take a filter away to see more.", action: "clear", button: "Clear filters" },
  all_below_min_score: { title: "Nothing is that similar", text: "Every item is below the minimum score.", action: "anyScore", button: "Accept any score" },
  no_similar_item: { title: "Nothing looks alike", text: "Try another photo, or draw a rectangle around the part that counts." },
};

/** A picture on a calm ground; a fixed shape, so that nothing moves when it arrives. */
export function picture(url, title, options = {}) {
  const image = h("img", { alt: title, width: 400, height: 500, loading: "lazy", decoding: "async", draggable: false, ...options });
  const well = h("div", { className: "well" }, image);
  image.addEventListener("error", () => well.toggleAttribute("data-broken", true));
  image.src = url; // after loading=lazy is set, or the browser would fetch it at once
  return well;
}

function scoreLine(score) {
  const bar = h("span", { className: "bar", "aria-hidden": "true" }, h("span"));
  bar.firstChild.style.setProperty("inline-size", `${Math.max(0, Math.min(1, score)) * 100}%`);
  return h("p", { className: "score" }, bar, h("span", { className: "visually-hidden" }, "Score "), h("span", { className: "score-number" }, score.toFixed(2)));
}

const worded = (value) => (typeof value === "boolean" ? (value ? "Yes" : "No") : typeof value === "number" ? formatNumber(value) : value);

function card(hit, linkTo) {
  const attributes = Object.entries(hit.attributes);
  const facts = attributes.filter(([, value]) => typeof value === "string" && value).slice(0, FACTS_SHOWN).map(([, value]) => value);
  const price = attributes.find(([name, value]) => /^price$/i.test(name) && typeof value === "number")?.[1];
  const title = hit.title || hit.item_id;
  return h("li", { className: "card", "data-item": hit.item_id, "data-score": hit.score },
    picture(hit.image_url, title),
    scoreLine(hit.score),
    h("h2", { className: "card-title", title }, title),
    facts.length ? h("p", { className: "facts" }, facts.join("\u00a0· ")) : null,
    price === undefined ? null : h("p", { className: "price" }, price.toFixed(2)),
    h("div", { className: "card-actions" },
      linkTo({ kind: "item", id: hit.item_id, title, image: hit.image_url }, { className: "more", "aria-label": `More like this: ${title}` }, "More like this"),
      attributes.length ? h("details", { className: "all-facts" },
        h("summary", { "aria-label": `Details of ${title}` }, "Details"),
        h("dl", {}, h("div", {}, h("dt", {}, "Id"), h("dd", {}, hit.item_id)),
          ...attributes.map(([name, value]) => h("div", {}, h("dt", {}, humanise(name)), h("dd", {}, worded(value)))))) : null));
}

/** The grid of hits, or words about why there are none. */
export function renderResult(region, result, { linkTo, actions }) {
  if (result.hits.length) {
    region.replaceChildren(h("ol", { className: "grid" }, ...result.hits.map((hit) => card(hit, linkTo))));
    return;
  }
  const reason = REASONS[result.reason] ?? REASONS.no_similar_item;
  region.replaceChildren(h("div", { className: "nothing" },
    h("h2", {}, reason.title),
    h("p", {}, reason.text),
    reason.action ? h("button", { type: "button", className: "button", on: { click: actions[reason.action] } }, reason.button) : null));
}

/** Grey shapes where the cards will be; only where there is nothing better to leave in place. */
export function renderWaiting(region, count) {
  if (region.querySelector(".grid:not([data-waiting])")) return;
  const shapes = Array.from({ length: Math.min(count, SKELETONS_AT_MOST) }, () => h("li", { className: "card" }, h("div", { className: "well" }), h("p", { className: "score" }, h("span", { className: "bar" }))));
  region.replaceChildren(h("ol", { className: "grid", "data-waiting": "", "aria-hidden": "true" }, ...shapes));
}

export const headline = (result) => (result.hits.length ? plural(result.hits.length, "item that looks alike", "items that look alike") : "No items");

/** `Computed now in 43 ms · queue 3 · decode 5 · embed 31 · search 2 · release lite0-7f3a` */
export function provenance({ answered_from: origin, timings_ms: { total, ...steps }, release }) {
  const order = (name) => (STEPS.includes(name) ? STEPS.indexOf(name) : STEPS.length);
  const milliseconds = (value) => (value < 1 ? "<1" : formatNumber(Math.round(value)));
  return [
    (ORIGINS[origin] ?? humanise(origin)) + (total === undefined ? "" : ` in ${milliseconds(total)} ms`),
    ...Object.keys(steps).sort((a, b) => order(a) - order(b)).map((name) => `${humanise(name).toLowerCase()} ${milliseconds(steps[name])}`),
    release ? `release ${release}` : null,
  ].filter(Boolean).join(" · ");
}
