// Reads the Prometheus text format as it arrives, and keeps only what the page shows, so that an
// exposition of any size takes little memory.

const OWN = "octoserve_";
// The sample names that are kept, without the prefix. All others are skipped by their name alone.
const KEPT = new Set(
  [
    ...["_requests_total", "_request_duration_seconds_bucket"].flatMap((end) => [
      "http" + end,
      "registry_http" + end,
    ]),
    "http_response_ttfb_seconds_bucket",
    "http_requests_in_flight",
    "http_rejected_total",
    "http_request_body_bytes_total",
    "http_response_body_bytes_total",
    "oci_errors_total",
    "transfers_aborted_total",
    "client_requests_total",
    "auth_total",
    "connections_active",
    "connections_rejected_total",
    "repository_operations_total",
    "repository_bytes_total",
    "repository_last_pull_timestamp_seconds",
    "repository_label_overflow_total",
    "repository_stored_bytes",
    "upload_sessions_active",
    "upload_session_oldest_age_seconds",
    "upload_sessions_total",
    "registry_upload_sessions",
    "registry_upload_bytes",
    "registry_upload_oldest_age_seconds",
    "upstream_replicas",
    "upstream_replicas_healthy",
    "upstream_queue_length",
    "upstream_errors_total",
    "upstream_ratelimit_remaining",
    "upstream_request_duration_seconds_bucket",
    "upstream_request_duration_seconds_count",
    "aggregate_up",
    "aggregate_samples",
    "aggregate_duration_seconds",
    "aggregate_last_success_timestamp_seconds",
    "aggregate_dropped_samples_total",
    "tls_certificate_expiry_timestamp_seconds",
    "panics_total",
    "config_last_reload_successful",
    "build_info",
    "storage_filesystem_size_bytes",
    "storage_filesystem_avail_bytes",
    "storage_filesystem_files_free",
    "storage_disk_usage_bytes",
    "storage_errors_total",
    "repositories",
    "tags",
    "blobs",
    "manifests",
    "stats_errors_total",
  ]
    .map((name) => OWN + name)
    .concat([
      "process_start_time_seconds",
      "process_resident_memory_bytes",
      "process_cpu_seconds_total",
      "process_open_fds",
      "process_max_fds",
    ]),
);
// What a hostile source can make the page keep is bounded apart from octoserve's own samples.
const MOST_OWN = 150_000;
const MOST_OF_SOURCES = 20_000;
const LONGEST_LINE = 65_536;

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

// A value of the text format; undefined if it is none.
function parseValue(text) {
  if (NUMBER.test(text)) return Number(text);
  const infinite = /^([+-]?)inf(inity)?$/i.exec(text);
  if (infinite) return infinite[1] === "-" ? -Infinity : Infinity;
  return /^nan$/i.test(text) ? NaN : undefined;
}

// The labels that begin after `{`, and where the text goes on; null if they are malformed.
function parseLabels(line, at) {
  const labels = new Map();
  for (;;) {
    while (line[at] === " " || line[at] === "\t" || line[at] === ",") at += 1;
    if (line[at] === "}") return { labels, at: at + 1 };
    const name = /[a-zA-Z_][a-zA-Z0-9_]*/y;
    name.lastIndex = at;
    const found = name.exec(line);
    if (!found) return null;
    const open = /[ \t]*=[ \t]*"/y;
    open.lastIndex = name.lastIndex;
    if (!open.exec(line)) return null;
    const value = /(?:[^"\\]|\\.)*"/y;
    value.lastIndex = open.lastIndex;
    const quoted = value.exec(line);
    if (!quoted) return null;
    const unescape = (all, one) => (one === "n" ? "\n" : one);
    labels.set(found[0], quoted[0].slice(0, -1).replace(/\\(.)/g, unescape));
    at = value.lastIndex;
  }
}

// A sample; null if the line is none.
function parseSample(line) {
  const name = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(line);
  if (!name) return null;
  let at = name[0].length;
  let labels = new Map();
  if (line[at] === "{") {
    const parsed = parseLabels(line, at + 1);
    if (!parsed) return null;
    ({ labels, at } = parsed);
  }
  // A timestamp may follow, which the page has no use for.
  const [text, , rest] = line
    .slice(at)
    .trim()
    .split(/[ \t]+/);
  const value = parseValue(text ?? "");
  if (value === undefined || rest !== undefined) return null;
  return { key: line.slice(0, at), name: name[0], labels, value };
}

class Exposition {
  samples = new Map();
  types = new Set();
  malformed = 0;
  dropped = 0;
  #own = 0;
  #ofSources = 0;
  #rest = "";

  // Takes a piece of the text, which may end anywhere.
  push(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    if (this.#rest.length > LONGEST_LINE) {
      this.malformed += 1;
      this.#rest = "";
    }
    for (const line of lines) this.#take(line);
  }

  // Whether the text ended with a line.
  get isWhole() {
    return this.#rest === "";
  }

  #take(line) {
    if (line.startsWith("# TYPE ")) {
      const name = line.slice(7).split(" ", 1)[0];
      if (name.startsWith(OWN) && this.types.size < 1000) this.types.add(name);
      return;
    }
    if (line === "" || line[0] === "#") return;
    const end = line.search(/[{ \t]/);
    if (end > 0 && !KEPT.has(line.slice(0, end))) return;
    if (this.#ofSources >= MOST_OF_SOURCES && line.includes('source="')) {
      // Without reading it, which would take long for very many.
      this.dropped += 1;
      return;
    }
    const sample = parseSample(line);
    if (!sample) {
      this.malformed += 1;
      return;
    }
    if (sample.labels.has("source")) {
      this.#ofSources += 1;
    } else if (this.#own < MOST_OWN) {
      this.#own += 1;
    } else {
      this.dropped += 1;
      return;
    }
    const all = this.samples.get(sample.name);
    if (all) all.push(sample);
    else this.samples.set(sample.name, [sample]);
  }
}
