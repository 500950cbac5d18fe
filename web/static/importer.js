// The import dialog: choose a file, watch it being imported, read what came of it.

import { cancelJob, uploadImport, watchJob } from "./api.js";
import { byId, showProblem } from "./dom.js";
import { bytes, pace, renderReport } from "./import_report.js";

const REMEMBERED = "lookalike.import"; // the running job survives a reload of the page

/** @param {{onDone: (result) => void, announce: (text) => void}} listeners */
export function createImporter({ onDone, announce }) {
  const [dialog, form, file, name] = ["importer", "import-form", "import-file", "import-name"].map(byId);
  const [running, report, problem] = ["import-running", "import-report", "importer-problem"].map(byId);
  const [stage, progress, paceLine, cancel, label] = ["import-stage", "import-progress", "import-pace", "import-cancel", "import-label"].map(byId);
  let active = null; // {controller, job}

  function showPart(part) {
    for (const each of [form, running, report]) each.hidden = each !== part;
  }

  function open() {
    if (!dialog.open) dialog.showModal();
  }

  function startOver() {
    form.reset();
    nameFile();
    showProblem(problem, null);
    label.textContent = "Import catalogue";
    showPart(form);
  }

  function nameFile() {
    const [chosen] = file.files;
    name.textContent = chosen ? chosen.name : "Choose a file, or drop it here";
    byId("filedrop").toggleAttribute("data-chosen", Boolean(chosen));
  }

  function showProgress(text, share, detail) {
    stage.textContent = text;
    paceLine.textContent = detail;
    if (share === null) progress.removeAttribute("value");
    else progress.value = share;
    label.textContent = share === null ? text : `${text} ${Math.floor(share * 100)}%`;
  }

  function formData() {
    const data = new FormData();
    data.set("file", file.files[0]);
    data.set("mode", form.elements.mode.value);
    data.set("encoding", form.elements.encoding.value);
    const columns = ["id", "title", "image"].map((field) => [field, form.elements[`column-${field}`].value.trim()]).filter(([, column]) => column);
    if (columns.length) data.set("columns", JSON.stringify(Object.fromEntries(columns)));
    return data;
  }

  async function upload() {
    const controller = new AbortController();
    active = { controller };
    showProgress("Uploading", 0, "");
    const job = await uploadImport(formData(), {
      signal: controller.signal,
      onProgress: (sent, total) => showProgress(sent < total ? "Uploading" : "Checking the file", sent < total ? sent / total : null, `${bytes(sent)} of ${bytes(total)}`),
    });
    sessionStorage.setItem(REMEMBERED, job.id);
    return job;
  }

  function onJobChange(job) {
    active.job = job;
    const now = job.progress;
    showProgress("Importing", now?.total ? Math.min(1, now.done / now.total) : null, now ? pace(now) : "Waiting for a worker");
  }

  /** Runs an import to its end, from a new upload or from a job that is under way. */
  async function run(begin) {
    showProblem(problem, null);
    cancel.disabled = false;
    showPart(running);
    cancel.focus();
    announce("Import started");
    try {
      const job = await watchJob(await begin(), { wait: 1, onChange: onJobChange });
      await renderReport(report, job, { onAgain: () => { startOver(); file.focus(); }, onClose: () => dialog.close() });
      showPart(report);
      if (dialog.open) report.focus();
      label.textContent = "Import finished";
      announce(`Import finished: ${job.result.imported} of ${job.result.rows} rows imported`);
      onDone(job.result);
    } catch (error) {
      const isCancelled = error.code === "cancelled" || error.name === "AbortError";
      showPart(form);
      file.focus();
      label.textContent = isCancelled ? "Import cancelled" : "Import failed";
      if (isCancelled) announce("Import cancelled");
      else showProblem(problem, error);
      if (active?.job) onDone(null); // what was imported before the end stays
    } finally {
      active = null;
      sessionStorage.removeItem(REMEMBERED);
    }
  }

  async function stop() {
    cancel.disabled = true;
    if (!active.job) return active.controller.abort(new DOMException("cancelled", "AbortError"));
    // 409 means that it ended in the same moment; the watch tells how.
    await cancelJob(active.job.id).catch((error) => { if (error.code !== "job_already_finished") { showProblem(problem, error); cancel.disabled = false; } });
  }

  byId("import-open").addEventListener("click", open);
  dialog.addEventListener("close", () => { if (!active) startOver(); }); // the report was read
  byId("importer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // the backdrop
  cancel.addEventListener("click", stop);
  file.addEventListener("change", nameFile);
  form.addEventListener("submit", (event) => { event.preventDefault(); run(upload); });
  dialog.addEventListener("drop", (event) => {
    event.preventDefault();
    if (form.hidden || !event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    nameFile();
  });

  const remembered = sessionStorage.getItem(REMEMBERED);
  if (remembered) { active = {}; run(async () => ({ id: remembered, status: "queued" })); }

  return { open, isOpen: () => dialog.open };
}
