// The filter panel: k, minimum score, and a facet for every attribute that the catalogue has.

import { byId } from "./dom.js";
import { createFacet } from "./facets.js";

const OPEN_AT_FIRST = 3;
const SETTLE_MS = 350; // several ticks in a row are one change of mind
const DEFAULT_K = 10;

/** @param {(parameters) => void} onChange called when the person has changed something. */
export function createFilters(onChange) {
  const [form, k, minScore, valueOfScore] = ["filters", "k", "min-score", "min-score-value"].map(byId);
  const [count, clear] = ["filter-count", "filters-clear"].map(byId);
  let facets = [];
  let settle;

  /** What the search asks for, as the API names it; defaults are left out. */
  function read() {
    const conditions = facets.map((facet) => [facet.name, facet.read()]).filter(([, condition]) => condition !== undefined);
    return {
      k: Number(k.value),
      ...(Number(minScore.value) > 0 && { min_score: Number(minScore.value) }),
      ...(conditions.length && { filter: Object.fromEntries(conditions) }),
    };
  }

  function write({ k: wanted = DEFAULT_K, min_score: score = 0, filter = {} } = {}) {
    clearTimeout(settle);
    if (![...k.options].some((option) => option.value === String(wanted))) k.add(new Option(wanted, wanted));
    k.value = String(wanted);
    minScore.value = String(score);
    for (const facet of facets) facet.write(filter[facet.name]);
    refresh();
  }

  function refresh() {
    const { min_score: score, filter = {} } = read();
    const words = score ? score.toFixed(2) : "any";
    valueOfScore.textContent = words;
    minScore.setAttribute("aria-valuetext", words);
    for (const facet of facets) facet.refresh();
    const active = Object.keys(filter).length + (score ? 1 : 0);
    count.textContent = active;
    count.hidden = clear.hidden = active === 0;
  }

  function changed() {
    refresh();
    clearTimeout(settle);
    settle = setTimeout(() => onChange(read()), SETTLE_MS);
  }

  function reset() {
    write({ k: Number(k.value) });
    onChange(read());
  }

  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault(); // the browser's own reset would also forget k, and run after our listeners
    k.focus(); // the button is about to be hidden, which would lose the focus
    reset();
  });

  return {
    read,
    write,
    reset,
    /** Makes the facets anew from the catalogue's attributes and keeps what was chosen. */
    setAttributes(attributes) {
      const { filter = {} } = read();
      facets = attributes.map((attribute, index) => createFacet(attribute, index < OPEN_AT_FIRST));
      byId("facets").replaceChildren(...facets.map(({ element }) => element));
      for (const facet of facets) facet.write(filter[facet.name]);
      refresh();
    },
  };
}
