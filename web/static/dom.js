// A very small way to make elements. Text always goes in as text, so a title from a catalogue can't become markup.

/** Makes an element: properties by their DOM name, attributes with a dash as written, `on` for listeners. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** `base_colour` -> `Base colour`: column names are written for machines. */
export function humanise(name) {
  const words = name.replace(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

const numbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
export const formatNumber = (value) => numbers.format(value);
export const plural = (count, one, many) => `${formatNumber(count)} ${count === 1 ? one : many}`;

/** Shows a problem with its remedy in a role=alert region, or empties it. */
export function showProblem(region, error, retry) {
  if (!error) return region.replaceChildren();
  region.replaceChildren(
    h("div", { className: "alert" },
      h("p", {}, h("strong", {}, error.title)),
      h("p", {}, error.detail),
      error.isTemporary ? h("p", { className: "hint" }, `This usually passes. Try again in ${plural(error.retryAfter, "second", "seconds")}.`) : null,
      retry ? h("button", { type: "button", className: "button", on: { click: retry } }, "Try again") : null),
  );
}
