// The figures at the top, and what all sections count with.

const TOP = 10;

// Sums samples by a label, and their increases in the last minute: a map to `{ total, minute }`.
function sums({ minute }, samples, key, into = new Map(), as = "total") {
  for (const sample of samples) {
    const of = label(sample, key);
    const row = into.get(of) ?? { minute: 0 };
    row[as] = (row[as] ?? 0) + (Number.isFinite(sample.value) ? sample.value : 0);
    row.minute += minute ? minute.of([sample]) : 0;
    into.set(of, row);
  }
  return into;
}

const busiest =
  (total) =>
  ([, a], [, b]) =>
    b.minute - a.minute || total(b) - total(a);
const withLabel = (samples, key, ...values) =>
  samples.filter((sample) => values.includes(label(sample, key)));
const count = (column, value) => figure(column, value, asCount(value ?? NaN));

function showFigures(view) {
  const { now, minute, step, base, timeline } = view;
  const rated = (id, title, samples, show, total, isBad = false) => {
    const value = minute?.rate(samples);
    const points = timeline.plot(id, step?.rate(samples));
    const all = samples.reduce(add, 0);
    card(id, title, {
      value,
      text: value === undefined ? NONE : show(value),
      bad: isBad && value > 0,
      points,
      show,
      note: [figure(`${id}_total`, all, total(all)), " in all"],
    });
  };
  const requests = now.own(`${base}_requests_total`);
  rated("requests", "Requests", requests, asRate, asCount);
  const failed = requests.filter((sample) => label(sample, "status").startsWith("5"));
  rated("failures", "Failures (5xx)", failed, asRate, asCount, true);
  const latency = now.has("http_response_ttfb_seconds")
    ? "http_response_ttfb_seconds_bucket"
    : `${base}_request_duration_seconds_bucket`;
  const buckets = now.own(latency);
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((q) => minute?.quantile(q, buckets));
  card("latency", "95 % respond within", {
    value: p95,
    text: asDuration(p95 ?? NaN),
    points: timeline.plot("latency", step?.quantile(0.95, buckets)),
    show: asDuration,
    note: [
      "50 %: ",
      figure("latency_p50", p50, asDuration(p50 ?? NaN)),
      ", 99 %: ",
      figure("latency_p99", p99, asDuration(p99 ?? NaN)),
    ],
  });
  const operations = now.own("repository_operations_total");
  if (now.has("repository_operations_total")) {
    rated("pulls", "Image pulls", withLabel(operations, "operation", "pull"), asRate, asCount);
    rated("pushes", "Image pushes", withLabel(operations, "operation", "push"), asRate, asCount);
  }
  if (now.has("http_response_body_bytes_total")) {
    rated("sent", "Sent to clients", now.own("http_response_body_bytes_total"), asSpeed, asBytes);
    rated("received", "Received from clients", now.own("http_request_body_bytes_total"), asSpeed, asBytes);
  }
  if (now.has("http_requests_in_flight")) {
    // The page's own connection may be among them, its request is not.
    const [flight, open] = [now.sum("http_requests_in_flight"), now.gauge("connections_active")];
    card("in_flight", "Requests in flight", {
      value: flight,
      text: asCount(flight),
      points: timeline.plot("in_flight", flight),
      show: asCount,
      note: [figure("connections", open, plural(open ?? NaN, "open connection"))],
    });
  }
}
