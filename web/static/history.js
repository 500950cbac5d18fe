// Where the person is, kept in the browser's own history so that Back, Forward, reload and links work.
// An entry is {source, crop, result, scroll}. A photo can't live in a URL or in history.state, so entries stay in
// memory under a key; items and addresses can be made again from the URL alone.

const entries = new Map();
let key = null;

const store = (entry) => { const name = crypto.getRandomValues(new Uint32Array(2)).join("-"); entries.set(name, entry); return name; };
const outline = ({ source: { file, preview, ...rest } }) => rest; // what survives a reload

/** The address of a search: item or image, and every parameter that isn't the default. */
export function addressOf(source, { k, min_score: minScore, filter } = {}) {
  const query = new URLSearchParams();
  if (source?.kind === "item") query.set("item", source.id);
  if (source?.kind === "url") query.set("url", source.url);
  if (k && k !== 10) query.set("k", k);
  if (minScore) query.set("min_score", minScore);
  if (filter) query.set("filter", JSON.stringify(filter));
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

/** Reads what addressOf wrote; a mistyped address is the start page, never an error. */
export function readAddress() {
  const query = new URLSearchParams(location.search);
  const parameters = {};
  if (Number(query.get("k"))) parameters.k = Number(query.get("k"));
  if (Number(query.get("min_score"))) parameters.min_score = Number(query.get("min_score"));
  try { parameters.filter = JSON.parse(query.get("filter")) ?? undefined; } catch { /* not a filter */ }
  const source = query.get("item") ? { kind: "item", id: query.get("item") }
    : query.get("url") ? { kind: "url", url: query.get("url") } : null;
  return { source, parameters };
}

export const current = () => entries.get(key) ?? null;

/** Goes to a new search. `trail` is the way that led to it: [{key, ...outline of the source}]. */
export function open(source, parameters, trail = []) {
  leave();
  key = store({ source });
  history.pushState({ key, trail, outline: outline({ source }) }, "", addressOf(source, parameters));
  return current();
}

export function goHome() {
  leave();
  key = null;
  history.pushState(null, "", "/");
}

/** Notes changed parameters in the address, without a new step for Back. */
export const noteParameters = (parameters) => history.replaceState(history.state, "", addressOf(current()?.source, parameters));

/** The crumbs up to and with the current entry, for the next search to start from. */
export const trailHere = () => (key ? [...trail(), { key, ...outline(current()) }] : []);
export const trail = () => history.state?.trail ?? [];

/** A crumb's source: from memory with its photo, or remade; null where the photo is gone. */
export function sourceOf(crumb) {
  return entries.get(crumb.key)?.source ?? (crumb.kind === "photo" ? null : crumb);
}

/** After a reload, a link or Back: the entry to show, or null for the start page. */
export function restore() {
  leave();
  const state = history.state;
  if (state?.key && entries.has(state.key)) key = state.key;
  else {
    const { source, parameters } = readAddress();
    const known = source && state?.outline?.kind === source.kind ? { ...state.outline, ...source } : source;
    key = known ? store({ source: known }) : null;
    history.replaceState(key && { key, trail: state?.trail ?? [], outline: outline({ source: known }) }, "", addressOf(known, known ? parameters : {}));
  }
  return current();
}

/** Remembers how far the page was scrolled, to be there again after Back. */
export function leave() {
  if (current()) current().scroll = window.scrollY;
}

/** Forgets every answer, since the catalogue has changed. */
export function forgetResults() {
  for (const entry of entries.values()) entry.result = undefined;
}
