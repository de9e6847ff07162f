// What is wrong, in words, worst first. Names are kept apart from the words around them, because
// others choose them.

const DAY = 86_400;
const WAITS = 3; // seconds that this page gives a scrape
const SLOW_FOR = 20; // seconds since its last success in which a source is slow, and not gone
const name = (text) => ({ name: text });
const label = (sample, key) => sample.labels.get(key) ?? "";

// Sums the increases by a label: [value, increase], largest first.
function increasesBy(interval, samples, key) {
  const sums = new Map();
  for (const sample of samples) {
    const grown = interval.of([sample]);
    if (grown > 0) sums.set(label(sample, key), (sums.get(label(sample, key)) ?? 0) + grown);
  }
  return [...sums].sort(([, a], [, b]) => b - a);
}

const reasons = (pairs) =>
  pairs
    .slice(0, 4)
    .map(([reason, count]) => `${reason} ${asCount(count)}`)
    .join(", ");

function ofUpstreams({ now, minute }, found) {
  const healthy = new Map(now.own("upstream_replicas_healthy").map((s) => [label(s, "upstream"), s.value]));
  for (const sample of now.own("upstream_replicas")) {
    const upstream = label(sample, "upstream");
    const up = healthy.get(upstream) ?? 0;
    if (up <= 0) {
      const replicas =
        sample.value === 1
          ? "its only replica is unhealthy"
          : `none of its ${sample.value} replicas is healthy`;
      found("error", "The upstream ", name(upstream), ` does not serve: ${replicas}.`);
    } else if (up < sample.value) {
      const down = sample.value - up;
      found(
        "warning",
        `${down} of ${plural(sample.value, "replica")} of the upstream `,
        name(upstream),
        ` ${down === 1 ? "is" : "are"} unhealthy.`,
      );
    }
  }
  for (const sample of now.own("upstream_queue_length")) {
    if (sample.value > 0)
      found(
        "warning",
        `${plural(sample.value, "request")} to the upstream `,
        name(label(sample, "upstream")),
        " wait for a free connection (max_connections).",
      );
  }
  for (const sample of now.own("upstream_ratelimit_remaining")) {
    if (sample.value <= 0)
      found(
        "error",
        "The upstream ",
        name(label(sample, "upstream")),
        " allows no more requests for now (RateLimit-Remaining is 0).",
      );
  }
  if (!minute) return;
  const errors = Map.groupBy(now.own("upstream_errors_total"), (sample) => label(sample, "upstream"));
  for (const [upstream, samples] of errors) {
    const by = increasesBy(minute, samples, "reason");
    if (by.length > 0)
      found(
        "warning",
        `${plural(minute.of(samples), "attempt")} to reach the upstream `,
        name(upstream),
        ` failed in the last minute: ${reasons(by)}.`,
      );
  }
  const cut = now.own("transfers_aborted_total").filter((sample) => label(sample, "side") === "upstream");
  if (minute.of(cut) > 0)
    found("warning", `An upstream cut off ${plural(minute.of(cut), "transfer")} in the last minute.`);
}

function ofSources({ now, minute }, found) {
  const left = now.exposition.dropped;
  if (left > 0)
    found("warning", `The metrics have very many samples: this page leaves out ${asCount(left)} of them.`);
  const success = new Map(
    now.ofSources("aggregate_last_success_timestamp_seconds").map((s) => [label(s, "source"), s.value]),
  );
  const durations = new Map(
    now.ofSources("aggregate_duration_seconds").map((s) => [label(s, "source"), s.value]),
  );
  for (const sample of now.ofSources("aggregate_up")) {
    if (sample.value >= 1) continue;
    const last = success.get(label(sample, "source"));
    const took = durations.get(label(sample, "source")) ?? 0;
    // It responds to those who wait longer.
    if (now.clock - last < SLOW_FOR && took > WAITS / 2) {
      found(
        "warning",
        "The metrics of the source ",
        name(label(sample, "source")),
        ` take ${asDuration(took)}: slower than this page waits. Its figures are missing.`,
      );
      continue;
    }
    const since = last > 0 ? `; it last did ${asAgo(now.clock - last)}` : ", and it never did";
    found(
      "error",
      "The metrics of the source ",
      name(label(sample, "source")),
      ` cannot be scraped${since}.`,
    );
  }
  if (!minute) return;
  const dropped = Map.groupBy(now.ofSources("aggregate_dropped_samples_total"), (sample) =>
    label(sample, "source"),
  );
  for (const [source, samples] of dropped) {
    const by = increasesBy(minute, samples, "reason");
    if (by.length > 0)
      found(
        "warning",
        "Samples of the source ",
        name(source),
        ` were dropped in the last minute: ${reasons(by)}.`,
      );
  }
}

function ofRequests({ now, minute, base }, found) {
  const panics = now.sum("panics_total");
  if (panics > 0)
    found(
      "error",
      `${plural(panics, "panic")} since the start: a bug in octoserve, whose cause the log has.`,
    );
  if (!minute) return;
  const requests = now.own(`${base}_requests_total`);
  const failed = requests.filter((sample) => label(sample, "status").startsWith("5"));
  const [all, bad] = [minute.of(requests), minute.of(failed)];
  if (bad > 0) {
    const by = reasons(increasesBy(minute, failed, "status"));
    found(
      bad / all >= 0.1 ? "error" : "warning",
      `${asCount(bad)} of ${plural(all, "request")} of the last minute failed (${asShare(bad / all)}): status ${by}.`,
    );
  }
  const auth = now
    .own("auth_total")
    .filter((sample) => ["unauthorized", "forbidden"].includes(label(sample, "result")));
  if (minute.of(auth) >= 5)
    found(
      "warning",
      `${plural(minute.of(auth), "request")} of the last minute had wrong credentials or too few rights.`,
    );
  const closed = increasesBy(minute, now.own("connections_rejected_total"), "reason");
  if (closed.length > 0)
    found("warning", `Connections were closed before a response in the last minute: ${reasons(closed)}.`);
  const rejected = minute.of(now.own("http_rejected_total"));
  if (rejected > 0)
    found(
      "warning",
      `${plural(rejected, "request")} of the last minute could not be parsed: some client does not speak HTTP.`,
    );
  const overflow = minute.of(now.own("repository_label_overflow_total"));
  if (overflow > 0)
    found(
      "warning",
      `All names of repositories are in use: ${plural(overflow, "operation")} of the last minute count as _other (metrics.repositories.limit).`,
    );
}

function ofStorage({ now, minute, freeSpace }, found) {
  const sizes = new Map(now.all("storage_filesystem_size_bytes").map((s) => [label(s, "source"), s.value]));
  for (const sample of now.all("storage_filesystem_avail_bytes")) {
    const source = label(sample, "source");
    const store = source === "" ? [] : [" of ", name(source)];
    const share = sample.value / sizes.get(source);
    const space = freeSpace.get(source);
    // A push or two are no trend.
    const left = space?.span >= 60 ? space.timeToFull : undefined;
    if (share < 0.1)
      found(
        share < 0.05 ? "error" : "warning",
        "The disk",
        ...store,
        ` is nearly full: ${asBytes(sample.value)} (${asShare(share)}) are free.`,
      );
    if (left < DAY)
      found(
        left < 3600 ? "error" : "warning",
        "The disk",
        ...store,
        ` will be full in ${asDuration(left)} if it goes on as now.`,
      );
  }
  for (const sample of now.all("storage_filesystem_files_free")) {
    if (sample.value > 0 && sample.value < 10_000)
      found("warning", `The disk has only ${plural(sample.value, "free inode")}.`);
  }
  const oldest = Math.max(
    0,
    ...["upload_session_oldest_age_seconds", "registry_upload_oldest_age_seconds"]
      .flatMap((of) => now.all(of).map((s) => s.value))
      .filter(Number.isFinite),
  );
  if (oldest > DAY / 4)
    found("warning", `An upload has been open for ${asDuration(oldest)}: its client may have left it.`);
  if (!minute) return;
  const serious = now
    .all("storage_errors_total")
    .filter((sample) => label(sample, "error_type") !== "not_found");
  const errors = increasesBy(minute, serious, "error_type");
  if (errors.length > 0) found("error", `The store failed in the last minute: ${reasons(errors)}.`);
  if (minute.of(now.all("stats_errors_total")) > 0)
    found("warning", "Parts of the store could not be counted in the last minute: old figures stay.");
}

function ofOperation({ now }, found) {
  if (now.gauge("config_last_reload_successful") === 0)
    found(
      "error",
      "The last reload of the configuration was refused: the old configuration is in use. The log says why.",
    );
  for (const sample of now.own("tls_certificate_expiry_timestamp_seconds")) {
    const left = sample.value - now.clock;
    if (left <= 0)
      found("error", "The certificate ", name(label(sample, "name")), ` expired ${asAgo(-left)}.`);
    else if (left < 14 * DAY)
      found(
        left < 3 * DAY ? "error" : "warning",
        "The certificate ",
        name(label(sample, "name")),
        ` expires in ${asDuration(left)}.`,
      );
  }
  const [open, most] = [now.process("open_fds"), now.process("max_fds")];
  if (open / most > 0.9)
    found("warning", `${asCount(open)} of ${plural(most, "file descriptor")} are in use.`);
}

// All that is wrong: `{ level, parts }`.
function problems(view) {
  const all = [];
  const found = (level, ...parts) => all.push({ level, parts });
  for (const find of [ofUpstreams, ofRequests, ofStorage, ofOperation, ofSources]) find(view, found);
  // A stable sort: within a level they stay in the order of this file.
  return all.sort((a, b) => (a.level === "error" ? 0 : 1) - (b.level === "error" ? 0 : 1));
}
