// Scrapes the metrics every two seconds while somebody can see the page, and says so if it cannot.

const EVERY = 2000; // milliseconds between two scrapes
const SLOWEST = 30_000; // milliseconds between two attempts that fail
const PATIENCE = 10_000; // milliseconds for one scrape
const MOST_BYTES = 32 << 20;

const root = document.documentElement;
const metrics = new URL(`.${root.dataset.metrics}`, location.origin + location.pathname);

class ScrapeError extends Error {}
// After this one a browser would ask for the password again and again.
class RefusedError extends ScrapeError {}

async function scrape(signal) {
  const headers = { Accept: "text/plain;version=0.0.4", "X-Prometheus-Scrape-Timeout-Seconds": String(WAITS) };
  const response = await fetch(metrics, { headers, signal, cache: "no-store", redirect: "error" }).catch(
    (error) => {
      if (signal.aborted) throw error;
      throw new ScrapeError("octoserve does not respond: it has stopped, or cannot be reached.");
    },
  );
  if (response.status === 401) throw new RefusedError("The password is no longer accepted.");
  if (response.status !== 200) throw new ScrapeError(`The metrics respond with status ${response.status}.`);
  if (!/^text\/plain\b/.test(response.headers.get("content-type") ?? ""))
    throw new ScrapeError("What responds is not octoserve's metrics.");
  const exposition = new Exposition();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (let bytes = 0; ;) {
    const { done, value } = await reader.read().catch((error) => {
      if (signal.aborted) throw error;
      throw new ScrapeError("The metrics broke off in the middle.");
    });
    if (done) break;
    bytes += value.length;
    if (bytes > MOST_BYTES) {
      reader.cancel().catch(() => {});
      throw new ScrapeError(
        "The metrics are larger than 32 MiB, the most that this page reads: a source sends very many samples.",
      );
    }
    exposition.push(decoder.decode(value, { stream: true }));
  }
  if (!exposition.isWhole) throw new ScrapeError("The metrics broke off in the middle.");
  if (!exposition.samples.has(`${OWN}build_info`))
    throw new ScrapeError("What responds is not octoserve's metrics.");
  const date = Date.parse(response.headers.get("date") ?? "");
  return new Snapshot(exposition, performance.now() / 1000, (Number.isNaN(date) ? Date.now() : date) / 1000);
}

const timeline = new Timeline();
const freeSpace = new Map();
let scrapes = 0;
let failures = 0;
let paused = false;
let stopped = false;
let timer;
let running = false;
let lastStart = -Infinity;

function showSnapshot(now) {
  timeline.push(now);
  for (const sample of now.all("storage_filesystem_avail_bytes")) {
    const source = label(sample, "source");
    if (!freeSpace.has(source) && freeSpace.size < 64) freeSpace.set(source, new FreeSpace());
    freeSpace.get(source)?.push(now.time, sample.value);
  }
  const base = now.has("http_requests_total") ? "http" : "registry_http";
  show({ now, minute: timeline.minute, step: timeline.step, base, timeline, freeSpace });
  const build = now.own("build_info")[0];
  const revision = label(build, "revision").slice(0, 12);
  say(byId("build"), `version ${label(build, "version")}${revision ? `, revision ${revision}` : ""}`);
  say(byId("updated"), `${new Date().toLocaleTimeString()}, every 2 s`);
  byId("body").hidden = false;
}

// How the page is: `live`, `failed` or `paused`, also for whoever reads it by a program.
function setState(state, message = "") {
  root.dataset.state = state;
  root.dataset.scrapes = String(scrapes);
  root.classList.toggle("stale", state === "failed");
  const banner = byId("connection");
  banner.hidden = message === "";
  say(banner, message);
}

async function run() {
  running = true;
  lastStart = performance.now();
  const abort = new AbortController();
  const patience = setTimeout(() => abort.abort(), PATIENCE);
  try {
    const snapshot = await scrape(abort.signal);
    showSnapshot(snapshot);
    scrapes += 1;
    failures = 0;
    if (!paused) setState("live");
  } catch (error) {
    failures += 1;
    const isSlow = abort.signal.aborted;
    // Anything else is a fault of this page, which must be seen, too.
    if (!isSlow && !(error instanceof ScrapeError)) console.error(error);
    const reason = isSlow
      ? `octoserve has not responded within ${PATIENCE / 1000} s.`
      : error instanceof ScrapeError
        ? error.message
        : "This page cannot show the metrics: a fault of its own.";
    const old = scrapes > 0 ? " What is below is old." : "";
    stopped = error instanceof RefusedError;
    setState("failed", `${reason}${old} ${stopped ? "Load the page again." : "The page tries again."}`);
    if (scrapes === 0) say(byId("verdict"), "Not known: there are no metrics.");
  } finally {
    clearTimeout(patience);
    // Whatever is still arriving is not wanted.
    abort.abort();
    running = false;
    plan();
  }
}

// Plans the next scrape: never a second one at a time, and never two within a second.
function plan() {
  clearTimeout(timer);
  if (running || paused || stopped || document.hidden) return;
  const pause = Math.min(EVERY * 2 ** failures, SLOWEST);
  const next = Math.max(lastStart + pause - performance.now(), 1000);
  timer = setTimeout(run, scrapes === 0 && failures === 0 ? 0 : next);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (paused) setState("paused");
  plan();
});
document.addEventListener("visibilitychange", plan);
// Without this script there is nothing to wait for, and nothing to pause.
byId("pause").hidden = false;
say(byId("verdict"), "Waiting for the first metrics…");
plan();

// For the browser's console, and for tests.
globalThis.statusPage = Object.freeze({
  Exposition,
  Snapshot,
  Timeline,
  FreeSpace,
  quantile,
  problems,
  parseSample,
  asDuration,
  asBytes,
});
