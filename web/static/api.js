// The HTTP contract, and nothing of the page: every call ends with data or throws an ApiError.

const FINAL = ["succeeded", "failed", "cancelled"];
const BLIPS_ALLOWED = 5;

/** A problem+json body, a failed job, or no answer at all, in one shape. */
export class ApiError extends Error {
  constructor({ title, detail, code, status = 0 }, retryAfter) {
    super(detail || title);
    this.title = title || "Something went wrong";
    this.detail = detail || "";
    this.code = code;
    this.isTemporary = status === 503 || status === 429;
    this.needsKey = status === 401;
    this.isRetryable = this.isTemporary || status === 0 || status >= 500;
    this.retryAfter = Number(retryAfter) || 2;
  }
}

const unreachable = () =>
  new ApiError({ code: "unreachable", title: "The server can’t be reached", detail: "Check that it is running and that you are online." });

function problemFrom(status, text, retryAfter) {
  let body = {};
  try { body = JSON.parse(text) ?? {}; } catch { /* a proxy's HTML page has nothing to tell people */ }
  return new ApiError({ title: `The server answered ${status}`, ...body, status }, retryAfter);
}

const KEY = "lookalike-key"; // of this tab alone, and gone with it

/** Keeps the API key that a person entered; the next call sends it. */
export const rememberKey = (key) => sessionStorage.setItem(KEY, key);

const keyHeaders = () => (sessionStorage.getItem(KEY) ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...keyHeaders(), ...options.headers } });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  const text = await response.text();
  if (!response.ok) throw problemFrom(response.status, text, response.headers.get("Retry-After"));
  return text ? JSON.parse(text) : null;
}

// no-store on reads only: on a search it would send `Cache-Control: no-cache`, which asks the server to bypass its caches.
const get = (path, signal) => request(path, { signal, cache: "no-store" });

export const listAttributes = async () => (await get("/v1/attributes")).attributes;
export const listItems = async (limit) => (await get(`/v1/items?limit=${limit}`)).items;
export const getItem = (id, signal) => get(`/v1/items/${encodeURIComponent(id)}`, signal);
export const listRowErrors = (id, limit) => get(`/v1/jobs/${id}/errors?limit=${limit}`);
export const cancelJob = (id) => request(`/v1/jobs/${id}`, { method: "DELETE", keepalive: true });

function searchBody({ source, crop, parameters }) {
  if (source.kind !== "photo") {
    const photo = source.kind === "item" ? { item_id: source.id } : { image_url: source.url };
    return { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...photo, ...parameters, ...(crop && { crop }) }) };
  }
  const form = new FormData();
  form.set("image", source.file, source.file.name || "photo");
  for (const [name, value] of Object.entries({ ...parameters, ...(crop && { crop }) })) {
    form.set(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  return { headers: {}, body: form };
}

/** Searches and waits for the answer. Aborting `signal` also cancels the job, so that nobody computes for no one. */
export async function search(query, signal) {
  const { headers, body } = searchBody(query);
  const job = await request("/v1/searches", { method: "POST", headers: { Prefer: "wait=10", ...headers }, body, signal });
  try {
    return (await watchJob(job, { wait: 20, signal })).result;
  } catch (error) {
    if (error.name === "AbortError") cancelJob(job.id).catch(() => {});
    throw error;
  }
}

/** Follows a job to its end; a short outage on the way is waited out, since the job itself goes on. */
export async function watchJob(job, { wait, signal, onChange = () => {} }) {
  let blips = 0;
  while (!FINAL.includes(job.status)) {
    onChange(job);
    const started = performance.now();
    try {
      job = await get(`/v1/jobs/${job.id}?wait=${wait}`, signal);
      blips = 0;
    } catch (error) {
      if (!error.isRetryable || ++blips > BLIPS_ALLOWED) throw error;
      await pause(error.retryAfter * 1000, signal);
    }
    // A server may be set to not wait at all; this keeps the loop from spinning then.
    if (!FINAL.includes(job.status)) await pause(Math.max(0, 300 - (performance.now() - started)), signal);
  }
  onChange(job);
  if (job.status === "failed") throw new ApiError(job.error);
  if (job.status === "cancelled") throw new ApiError({ code: "cancelled", title: "Cancelled", detail: "The job was cancelled." });
  return job;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** Sends a catalogue file. XHR, since fetch can't tell how much of an upload is sent. */
export function uploadImport(form, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const upload = new XMLHttpRequest();
    upload.open("POST", "/v1/imports");
    for (const [name, value] of Object.entries(keyHeaders())) upload.setRequestHeader(name, value);
    upload.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded, event.total);
    upload.onerror = () => reject(unreachable());
    upload.onabort = () => reject(signal.reason);
    upload.onload = () => {
      if (upload.status >= 200 && upload.status < 300) resolve(JSON.parse(upload.responseText));
      else reject(problemFrom(upload.status, upload.responseText, upload.getResponseHeader("Retry-After")));
    };
    signal.addEventListener("abort", () => upload.abort(), { once: true });
    upload.send(form);
  });
}
