// What octoserve depends on, what is wrong, and all sections in their order.

function showStorage({ now, freeSpace }) {
  const of = (name) => new Map(now.all(name).map((sample) => [label(sample, "source"), sample.value]));
  const [avail, size, used] = [
    "storage_filesystem_avail_bytes",
    "storage_filesystem_size_bytes",
    "storage_disk_usage_bytes",
  ].map(of);
  const full = (source) => {
    const seconds = freeSpace.get(source)?.timeToFull;
    const text =
      seconds === undefined
        ? "measuring…"
        : seconds === Infinity
          ? "not filling"
          : `in ${asDuration(seconds)}`;
    return figure("full", seconds, text);
  };
  const rows = [...avail].map(([source, free]) => {
    const meter = element("meter", {
      min: "0",
      max: "1",
      low: "0.05",
      high: "0.1",
      optimum: "1",
      value: String(free / size.get(source) || 0),
      "aria-label": "share of free space",
    });
    const counts = ["repositories", "tags", "blobs"].map((name) => count(name, of(name).get(source)));
    const sized = (column, value) => figure(column, value, asBytes(value ?? NaN));
    return {
      key: source || "this registry",
      cells: [
        sized("avail", free),
        sized("size", size.get(source)),
        meter,
        full(source),
        sized("used", used.get(source)),
        ...counts,
      ],
    };
  });
  table(
    "storage",
    {
      title: "Storage",
      caption:
        "The file system of each store. When it is full follows from its free space while this page is open.",
      columns: [
        "Store",
        "Free",
        "Of",
        "Free share",
        "Full",
        "Used by the store",
        "Repositories",
        "Tags",
        "Blobs",
      ],
      wide: true,
    },
    rows,
  );
}

function showUpstreams(view) {
  const { now, minute } = view;
  const of = (name) => new Map(now.own(name).map((sample) => [label(sample, "upstream"), sample.value]));
  const [replicas, healthy, queue, limit] = [
    "upstream_replicas",
    "upstream_replicas_healthy",
    "upstream_queue_length",
    "upstream_ratelimit_remaining",
  ].map(of);
  const rows = sums(view, now.own("upstream_request_duration_seconds_count"), "upstream");
  const errors = sums(view, now.own("upstream_errors_total"), "upstream");
  const buckets = Map.groupBy(now.own("upstream_request_duration_seconds_bucket"), (sample) =>
    label(sample, "upstream"),
  );
  for (const upstream of replicas.keys()) rows.set(upstream, rows.get(upstream) ?? { total: 0, minute: 0 });
  table(
    "upstreams",
    {
      title: "Upstreams and replicas",
      caption: "Where requests go. Errors count failed attempts to reach a replica.",
      columns: [
        "Upstream",
        "Healthy",
        "Replicas",
        "Requests",
        "Last minute",
        "95 % within",
        "Errors",
        "Last minute",
        "Waiting",
        "Rate limit left",
      ],
      wide: true,
    },
    [...rows].map(([upstream, row]) => {
      const up = healthy.get(upstream);
      const cell = count("healthy", up);
      if (up < replicas.get(upstream)) cell.className = "bad";
      const p95 = minute?.quantile(0.95, buckets.get(upstream) ?? []);
      const failed = errors.get(upstream) ?? { total: 0, minute: 0 };
      return {
        key: upstream,
        cells: [
          cell,
          count("replicas", replicas.get(upstream)),
          count("total", row.total),
          count("minute", row.minute),
          figure("p95", p95, asDuration(p95 ?? NaN)),
          count("errors", failed.total),
          count("errors_minute", failed.minute),
          count("queue", queue.get(upstream)),
          count("limit", limit.get(upstream)),
        ],
      };
    }),
  );
}

function showSources({ now }) {
  const of = (name) => new Map(now.ofSources(name).map((sample) => [label(sample, "source"), sample.value]));
  const [up, samples, took, success] = [
    "aggregate_up",
    "aggregate_samples",
    "aggregate_duration_seconds",
    "aggregate_last_success_timestamp_seconds",
  ].map(of);
  table(
    "sources",
    {
      title: "Sources",
      caption: "The metrics endpoints that are merged into these metrics.",
      columns: ["Source", "Scraped", "Samples", "Took", "Last success"],
    },
    [...up].slice(0, 64).map(([source, value]) => {
      const state = figure("up", value, value >= 1 ? "yes" : "no");
      if (!(value >= 1)) state.className = "bad";
      const last = success.get(source);
      return {
        key: source,
        cells: [
          state,
          count("samples", samples.get(source)),
          figure("took", took.get(source), asDuration(took.get(source) ?? NaN)),
          figure("success", last, last > 0 ? asAgo(now.clock - last) : NONE),
        ],
      };
    }),
  );
}

function showProcess({ now, minute }) {
  const rows = [];
  const row = (key, column, value, show) =>
    value !== undefined && rows.push({ key, cells: [figure(column, value, show(value))] });
  row("running for", "uptime", now.clock - now.process("start_time_seconds"), asDuration);
  row("memory", "memory", now.process("resident_memory_bytes"), asBytes);
  const before = minute?.before.process("cpu_seconds_total");
  const cpu = increase(before, now.process("cpu_seconds_total")) / minute?.seconds;
  if (before !== undefined) row("processors in use", "cpu", cpu, digits);
  row("file descriptors", "fds", now.process("open_fds"), asCount);
  for (const sample of now.own("tls_certificate_expiry_timestamp_seconds").slice(0, 64)) {
    const left = sample.value - now.clock;
    rows.push({
      key: label(sample, "name"),
      cells: [
        figure(
          "expiry",
          sample.value,
          left > 0 ? `expires in ${asDuration(left)}` : `expired ${asAgo(-left)}`,
        ),
      ],
    });
  }
  table(
    "process",
    { title: "The process and its certificates", caption: "octoserve itself.", columns: ["What", "Now"] },
    rows,
  );
}

function showProblems(view) {
  const all = problems(view);
  const errors = all.filter(({ level }) => level === "error").length;
  const verdict =
    all.length === 0
      ? "Nothing is wrong, as far as the metrics show."
      : errors > 0
        ? `${plural(errors, "error")}, ${plural(all.length - errors, "warning")}.`
        : `${plural(all.length, "warning")}.`;
  say(byId("verdict"), verdict);
  byId("verdict").className = all.length === 0 ? "good" : "";
  byId("problems").replaceChildren(
    ...all.slice(0, 50).map(({ level, parts }) => {
      const words = parts.map((part) => (typeof part === "string" ? part : named(part.name)));
      return element(
        "li",
        { class: level },
        element("strong", {}, level === "error" ? "Error" : "Warning"),
        ...words,
      );
    }),
  );
  document.title = all.length === 0 ? "octoserve" : `(${all.length}) octoserve`;
}

const show = (view) => {
  for (const part of [
    showProblems,
    showFigures,
    showEndpoints,
    showRepositories,
    showClients,
    showErrors,
    showUploads,
    showUpstreams,
    showStorage,
    showSources,
    showProcess,
  ])
    part(view);
};
