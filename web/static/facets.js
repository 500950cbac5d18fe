// One facet per attribute of the catalogue. Each kind knows how to show itself, read itself as a
// filter condition, and take a condition back: { element, read() -> condition | undefined, write(condition) }.

import { formatNumber, h, humanise } from "./dom.js";

const SHOWN_AT_FIRST = 10;
const FINDER_FROM = 24; // more values than this are found faster by typing

/** Values of a colour attribute get a swatch, where the browser knows a colour by that name. */
function swatchOf(attribute, value) {
  if (!/colou?r/i.test(attribute.name)) return null;
  const words = value.toLowerCase().split(/[^a-z]+/).filter(Boolean);
  const colour = [words.join(""), ...words].find((word) => CSS.supports("color", word)); // "Navy Blue" is navy
  if (!colour) return null;
  const swatch = h("span", { className: "swatch", "aria-hidden": "true" });
  swatch.style.setProperty("background-color", colour);
  return swatch;
}

function chip(attribute, value) {
  const input = h("input", { type: "checkbox", className: "visually-hidden", name: attribute.name, value });
  return { input, label: h("label", { className: "chip", title: value.length > 28 ? value : null }, input, h("span", {}, swatchOf(attribute, value), value)) };
}

function stringFacet(attribute) {
  const chips = new Map((attribute.values ?? []).map((value) => [value, chip(attribute, value)]));
  const list = h("div", { className: "chips" });
  const more = h("button", { type: "button", className: "link", on: { click: () => showAll(more.getAttribute("aria-expanded") !== "true") } });
  const finder = h("input", {
    type: "search", className: "finder", placeholder: `Find in ${chips.size}`, "aria-label": `Find a value of ${humanise(attribute.name)}`,
    on: { input: (event) => { event.stopPropagation(); showAll(true); } }, // looking for a value is no change of the filter
  });
  function showAll(isOpen) {
    finder.hidden = !isOpen || chips.size < FINDER_FROM;
    const wanted = finder.hidden ? "" : finder.value.trim().toLowerCase();
    [...chips.values()].forEach(({ input, label }, index) => {
      const isListed = isOpen ? input.value.toLowerCase().includes(wanted) : index < SHOWN_AT_FIRST;
      label.hidden = !isListed && !input.checked; // a filter that can't be seen can't be understood
    });
    more.hidden = chips.size <= SHOWN_AT_FIRST;
    more.setAttribute("aria-expanded", String(isOpen));
    more.textContent = isOpen ? "Show fewer" : `Show all ${chips.size}`;
  }
  list.append(...[...chips.values()].map(({ label }) => label));
  showAll(false);
  return {
    element: h("div", {}, finder, list, more),
    read() {
      const chosen = [...chips.values()].filter(({ input }) => input.checked).map(({ input }) => input.value);
      return chosen.length > 1 ? { in: chosen } : chosen[0];
    },
    write(condition) {
      const wanted = new Set(typeof condition === "string" ? [condition] : condition?.in ?? []);
      for (const value of wanted) {
        if (chips.has(value)) continue;
        chips.set(value, chip(attribute, value)); // a link may name a value that is too rare to be listed
        list.append(chips.get(value).label);
      }
      for (const [value, { input }] of chips) input.checked = wanted.has(value);
      showAll(false);
    },
  };
}

function numberFacet(attribute) {
  const bound = (label, placeholder) => h("input", {
    type: "number", inputMode: "decimal", step: "any", "aria-label": `${humanise(attribute.name)} ${label}`,
    placeholder: placeholder === null || placeholder === undefined ? "" : formatNumber(placeholder),
  });
  const [low, high] = [bound("from", attribute.minimum), bound("to", attribute.maximum)];
  return {
    element: h("div", { className: "range" }, low, h("span", { "aria-hidden": "true" }, "–"), high),
    read() {
      const condition = {};
      if (Number.isFinite(low.valueAsNumber)) condition.gte = low.valueAsNumber;
      if (Number.isFinite(high.valueAsNumber)) condition.lte = high.valueAsNumber;
      return Object.keys(condition).length ? condition : undefined;
    },
    write(condition) {
      const exact = typeof condition === "number" ? condition : undefined;
      low.value = exact ?? condition?.gte ?? "";
      high.value = exact ?? condition?.lte ?? "";
    },
  };
}

function booleanFacet(attribute) {
  const options = [["", "Any"], ["true", "Yes"], ["false", "No"]].map(([value, text]) => {
    const input = h("input", { type: "radio", className: "visually-hidden", name: attribute.name, value, checked: value === "" });
    return { input, label: h("label", { className: "chip" }, input, h("span", {}, text)) };
  });
  return {
    element: h("div", { className: "chips" }, ...options.map(({ label }) => label)),
    read() {
      const { value } = options.find(({ input }) => input.checked).input;
      return value === "" ? undefined : value === "true";
    },
    write(condition) {
      const wanted = typeof condition === "boolean" ? String(condition) : "";
      for (const { input } of options) input.checked = input.value === wanted;
    },
  };
}

const KINDS = { string: stringFacet, number: numberFacet, boolean: booleanFacet };

/** Makes the facet of an attribute, folded under its name. */
export function createFacet(attribute, isOpen) {
  const facet = KINDS[attribute.type](attribute);
  const count = h("span", { className: "badge", hidden: true });
  const fold = h("details", { className: "facet", open: isOpen },
    h("summary", {}, h("span", {}, humanise(attribute.name)), count),
    h("fieldset", {}, h("legend", { className: "visually-hidden" }, humanise(attribute.name)), facet.element));
  return {
    name: attribute.name,
    element: fold,
    read: facet.read,
    write(condition) {
      facet.write(condition);
      if (condition !== undefined) fold.open = true;
    },
    refresh() {
      const condition = facet.read();
      count.hidden = condition === undefined;
      count.textContent = condition?.in ? condition.in.length : "1";
    },
  };
}
