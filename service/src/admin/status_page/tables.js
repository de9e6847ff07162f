// What clients do: endpoints, errors, repositories, clients, uploads.

function showEndpoints(view) {
  const { now, minute, base } = view;
  const requests = now.own(`${base}_requests_total`);
  const rows = sums(view, requests, "endpoint");
  const family = now.has("http_response_ttfb_seconds")
    ? "http_response_ttfb_seconds_bucket"
    : `${base}_request_duration_seconds_bucket`;
  const buckets = Map.groupBy(now.own(family), (sample) => label(sample, "endpoint"));
  const columns = ["Endpoint", "Requests", "Last minute", "4xx", "5xx", "50 % within", "95 %", "99 %"];
  table(
    "endpoints",
    {
      title: "Requests and latencies",
      caption: "By endpoint. 4xx, 5xx and the time to the response's headers are of the last minute.",
      columns,
      wide: true,
    },
    [...rows].sort(busiest((row) => row.total)).map(([endpoint, row]) => {
      const own = withLabel(requests, "endpoint", endpoint);
      const status = (digit) => own.filter((sample) => label(sample, "status").startsWith(digit));
      const bad = (column, samples) => {
        const grown = minute?.of(samples);
        const cell = count(column, grown);
        if (grown > 0 && column === "5xx") cell.className = "bad";
        return cell;
      };
      const within = (column, q) => {
        const value = minute?.quantile(q, buckets.get(endpoint) ?? []);
        return figure(column, value, asDuration(value ?? NaN));
      };
      return {
        key: endpoint,
        cells: [
          count("total", row.total),
          count("minute", row.minute),
          bad("4xx", status("4")),
          bad("5xx", status("5")),
          within("p50", 0.5),
          within("p95", 0.95),
          within("p99", 0.99),
        ],
      };
    }),
  );
}

function showErrors(view) {
  const rows = sums(view, view.now.own("oci_errors_total"), "code");
  table(
    "errors",
    {
      title: "Error codes",
      caption: "OCI errors that clients got, since the start and in the last minute.",
      columns: ["Code", "All", "Last minute"],
    },
    [...rows]
      .sort(busiest((row) => row.total))
      .slice(0, TOP)
      .map(([code, row]) => ({ key: code, cells: [count("total", row.total), count("minute", row.minute)] })),
  );
}

function showRepositories(view) {
  const { now } = view;
  const operations = now.own("repository_operations_total");
  const rows = sums(view, withLabel(operations, "operation", "pull"), "repository", new Map(), "pulls");
  sums(view, withLabel(operations, "operation", "push"), "repository", rows, "pushes");
  const others = { ...view, minute: null };
  const bytes = now.own("repository_bytes_total");
  sums(others, withLabel(bytes, "direction", "download"), "repository", rows, "sent");
  sums(others, withLabel(bytes, "direction", "upload"), "repository", rows, "received");
  sums(others, now.all("repository_stored_bytes"), "repository", rows, "stored");
  sums(others, now.own("repository_last_pull_timestamp_seconds"), "repository", rows, "pulled");
  const known = [...rows].filter(([repository]) => repository !== "_other");
  const [pulled, stored] = [(row) => (row.pulls ?? 0) + (row.pushes ?? 0), (row) => row.stored ?? 0];
  // What is stored comes from sources, which must not outdo what octoserve has seen itself.
  known.sort((a, b) => busiest(pulled)(a, b) || stored(b[1]) - stored(a[1]));
  const top = known.slice(0, TOP).concat(rows.has("_other") ? [["_other", rows.get("_other")]] : []);
  const size = (column, value) => figure(column, value, asBytes(value ?? NaN));
  table(
    "repositories",
    {
      title: "Repositories",
      caption: `The ${TOP} with the most pulls and pushes in the last minute, then in all. ${plural(known.length, "repository", "repositories")} in the metrics.`,
      columns: ["Repository", "Pulls", "Pushes", "Last minute", "Sent", "Received", "Stored", "Last pull"],
      wide: true,
    },
    top.map(([repository, row]) => ({
      key: repository,
      head: repository === "_other" ? "all others" : undefined,
      cells: [
        count("pulls", row.pulls),
        count("pushes", row.pushes),
        count("minute", row.minute),
        size("sent", row.sent),
        size("received", row.received),
        size("stored", row.stored),
        figure("pulled", row.pulled, row.pulled > 0 ? asAgo(now.clock - row.pulled) : NONE),
      ],
    })),
  );
}

function showClients(view) {
  const rows = new Map();
  const requests = view.now.own("client_requests_total");
  for (const operation of ["pull", "push", "other"])
    sums(view, withLabel(requests, "operation", operation), "client", rows, operation);
  const total = (row) => (row.pull ?? 0) + (row.push ?? 0) + (row.other ?? 0);
  table(
    "clients",
    {
      title: "Clients",
      caption: "Requests by the program that sent them, most in the last minute first.",
      columns: ["Client", "Reads", "Writes", "Others", "Last minute"],
    },
    [...rows]
      .filter(([, row]) => total(row) > 0)
      .sort(busiest(total))
      .slice(0, TOP)
      .map(([client, row]) => ({
        key: client,
        cells: [
          count("pull", row.pull),
          count("push", row.push),
          count("other", row.other),
          count("minute", row.minute),
        ],
      })),
  );
}

function showUploads(view) {
  const { now } = view;
  const events = sums(view, now.own("upload_sessions_total"), "event");
  const rows = [];
  const row = (key, column, value, show = asCount) =>
    value !== undefined && rows.push({ key, cells: [figure(column, value, show(value))] });
  row("in progress", "active", now.gauge("upload_sessions_active"));
  row("the oldest began before", "oldest", now.gauge("upload_session_oldest_age_seconds"), asDuration);
  for (const event of events.keys()) row(event, event, events.get(event).total);
  row("in the store", "stored", now.all("registry_upload_sessions")[0]?.value);
  row("their bytes", "bytes", now.all("registry_upload_bytes")[0]?.value, asBytes);
  row(
    "the oldest there",
    "stored_oldest",
    now.all("registry_upload_oldest_age_seconds")[0]?.value,
    asDuration,
  );
  table(
    "uploads",
    {
      title: "Uploads",
      caption: "Upload sessions that are open now, and what became of those since the start.",
      columns: ["Sessions", "Count"],
    },
    rows,
  );
}
