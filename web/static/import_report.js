// What an import did, in words and figures.

import { listRowErrors } from "./api.js";
import { formatNumber, h, plural } from "./dom.js";

const ERRORS_SHOWN = 8;
const FIGURES = [["rows", "Rows"], ["imported", "Imported"], ["failed", "Left out"], ["deleted", "Deleted"], ["embedded", "New images"]];

/** `1,204 of 8,024 rows · 54 rows/s · about 2 min left · 3 left out` */
export function pace({ done, failed, total, rate_per_second: rate, eta_seconds: eta }) {
  return [
    total ? `${formatNumber(Math.min(done, total))} of ${plural(total, "row", "rows")}` : plural(done, "row", "rows"),
    rate ? `${formatNumber(rate >= 10 ? Math.round(rate) : Math.round(rate * 10) / 10)} rows/s` : null,
    eta === null || eta === undefined ? null : duration(eta),
    failed ? `${formatNumber(failed)} left out` : null,
  ].filter(Boolean).join(" · ");
}

function duration(seconds) {
  if (seconds < 1.5) return "nearly done";
  if (seconds < 90) return `about ${Math.round(seconds)} s left`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${(seconds / 3600).toFixed(1)} h left`;
}

export function bytes(count) {
  const megabytes = count / 1e6;
  return megabytes >= 1 ? `${formatNumber(Math.round(megabytes * 10) / 10)} MB` : `${formatNumber(Math.ceil(count / 1e3))} kB`;
}

async function errorTable(job) {
  const { errors, next_cursor: hasMore } = await listRowErrors(job.id, ERRORS_SHOWN);
  if (!errors.length) return null;
  const rows = errors.map(({ line, item_id: item, detail }) => h("tr", {}, h("td", { className: "number" }, formatNumber(line)), h("td", {}, item ?? "—"), h("td", {}, detail)));
  const all = job.links.errors ?? `/v1/jobs/${job.id}/errors`;
  return h("div", { className: "row-errors" },
    h("table", {},
      h("caption", {}, hasMore || job.result.failed > errors.length ? `The first ${errors.length} rows that were left out` : "Rows that were left out"),
      h("thead", {}, h("tr", {}, ...["Line", "Item", "Reason"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows)),
    h("p", {}, h("a", { href: all, target: "_blank", rel: "noopener" }, `All ${formatNumber(job.result.failed)} as JSON`)));
}

/** Shows the finished job; `onAgain` starts over. */
export async function renderReport(region, job, { onAgain, onClose }) {
  const { result } = job;
  const figures = FIGURES.map(([name, label]) => h("div", {}, h("dt", {}, label), h("dd", {}, formatNumber(result[name]))));
  const errors = result.failed ? await errorTable(job).catch((error) => h("p", { className: "hint" }, error.detail)) : null;
  region.replaceChildren(...[
    h("p", { className: "stage-name" }, result.failed ? `Imported, with ${plural(result.failed, "row", "rows")} left out` : "Everything was imported"),
    h("dl", { className: "figures" }, ...figures),
    errors,
    h("div", { className: "importer-actions" },
      h("button", { type: "button", className: "button", on: { click: onAgain } }, "Import another file"),
      h("button", { type: "button", className: "button primary", on: { click: onClose } }, "Done")),
  ].filter(Boolean));
}
