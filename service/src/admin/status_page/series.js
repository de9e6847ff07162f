// What follows from several scrapes: increases, rates, quantiles, and when a disk is full.

const WINDOW = 60; // seconds
const CHECKPOINT = 10; // seconds
const PLOTTED = 150; // scrapes

const add = (sum, sample) => sum + (Number.isFinite(sample.value) ? sample.value : 0);

// One scrape. Names are without the prefix.
class Snapshot {
  #values;

  constructor(exposition, time, clock) {
    this.exposition = exposition;
    this.time = time; // seconds, of a clock that never jumps
    this.clock = clock; // seconds since 1970, as the server says
  }

  // Whether octoserve has such a family, with samples or without.
  has(family) {
    return this.exposition.types.has(OWN + family);
  }

  // All samples of a name, those of sources included.
  all(name) {
    return this.exposition.samples.get(OWN + name) ?? [];
  }

  // octoserve's own samples alone: no source can add to them.
  own(name) {
    return this.all(name).filter((sample) => !sample.labels.has("source"));
  }

  // octoserve's own samples about its sources. One that a source sent has its label renamed.
  ofSources(name) {
    return this.all(name).filter(
      (sample) => sample.labels.has("source") && !sample.labels.has("exported_source"),
    );
  }

  sum(name) {
    return this.own(name).reduce(add, 0);
  }

  // The one own sample of a gauge without labels.
  gauge(name) {
    return this.own(name)[0]?.value;
  }

  process(name) {
    const all = this.exposition.samples.get("process_" + name) ?? [];
    return all.find((sample) => !sample.labels.has("source"))?.value;
  }

  // The value of a series by its text.
  value(key) {
    if (!this.#values) {
      this.#values = new Map();
      for (const all of this.exposition.samples.values()) {
        for (const sample of all) this.#values.set(sample.key, sample.value);
      }
    }
    return this.#values.get(key);
  }
}

// How much a counter grew. One that fell was reset, and one that is new began at 0.
function increase(before, now) {
  if (!Number.isFinite(now)) return 0;
  if (!Number.isFinite(before) || now < before) return Math.max(now, 0);
  return now - before;
}

// The increases from one scrape to another.
class Interval {
  constructor(before, now) {
    this.before = before;
    this.now = now;
    this.seconds = Math.max(now.time - before.time, 0.001);
  }

  of(samples) {
    return samples.reduce((sum, sample) => sum + increase(this.before.value(sample.key), sample.value), 0);
  }

  rate(samples) {
    return this.of(samples) / this.seconds;
  }

  // The quantile of a histogram's observations, over all of these series of its buckets.
  quantile(q, buckets) {
    const counts = new Map();
    for (const sample of buckets) {
      const bound = parseValue(sample.labels.get("le") ?? "");
      if (bound === undefined || Number.isNaN(bound)) continue;
      const grown = increase(this.before.value(sample.key), sample.value);
      counts.set(bound, (counts.get(bound) ?? 0) + grown);
    }
    return quantile(q, [...counts]);
  }
}

// The quantile of [bound, cumulative count] pairs, as histogram_quantile has it; undefined without
// observations. Beyond the last bound nothing is known but that bound.
function quantile(q, pairs) {
  const sorted = pairs.slice().sort(([a], [b]) => a - b);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (!(total > 0) || sorted.at(-1)[0] !== Infinity) return undefined;
  const rank = q * total;
  let [lower, below] = [0, 0];
  for (const [bound, count] of sorted) {
    if (count >= rank && count > below) {
      if (bound === Infinity) return lower;
      if (bound <= 0) return bound;
      return lower + (bound - lower) * ((rank - below) / (count - below));
    }
    if (bound !== Infinity) lower = bound;
    below = Math.max(below, count);
  }
  return undefined;
}

// The last minute, and the plots.
class Timeline {
  #checkpoints = [];
  last = null;
  plots = new Map();

  push(snapshot) {
    const started = this.last?.process("start_time_seconds");
    if (this.last && started !== snapshot.process("start_time_seconds")) {
      // Another process: nothing of the old one can be compared with it.
      this.#checkpoints = [];
      this.last = null;
    }
    const previous = this.last;
    this.last = snapshot;
    while (this.#checkpoints.length > 1 && snapshot.time - this.#checkpoints[1].time >= WINDOW) {
      this.#checkpoints.shift();
    }
    this.minute = this.#checkpoints.length > 0 ? new Interval(this.#checkpoints[0], snapshot) : null;
    this.step = previous ? new Interval(previous, snapshot) : null;
    const newest = this.#checkpoints.at(-1);
    if (!newest || snapshot.time - newest.time >= CHECKPOINT) this.#checkpoints.push(snapshot);
  }

  // Adds a point to a plot, and returns the whole of it; undefined is a gap.
  plot(name, value) {
    const points = this.plots.get(name) ?? [];
    points.push({ time: this.last.time, value });
    if (points.length > PLOTTED) points.shift();
    this.plots.set(name, points);
    return points;
  }
}

// The free space of one file system over the last hour, and when it is used up.
class FreeSpace {
  #points = [];

  push(time, free) {
    const newest = this.#points.at(-1);
    if (!Number.isFinite(free) || (newest && time - newest.time < 4)) return;
    this.#points.push({ time, free });
    if (this.#points.length > 900) this.#points.shift();
  }

  // How long it has been measured, in seconds.
  get span() {
    return this.#points.length > 0 ? this.#points.at(-1).time - this.#points[0].time : 0;
  }

  // Bytes per second, by least squares; undefined before there is enough to measure.
  get slope() {
    const points = this.#points;
    if (points.length < 4 || this.span < 20) return undefined;
    const mean = (pick) => points.reduce((sum, point) => sum + pick(point), 0) / points.length;
    const [time, free] = [mean((p) => p.time), mean((p) => p.free)];
    const covariance = mean((p) => (p.time - time) * (p.free - free));
    return covariance / mean((p) => (p.time - time) ** 2);
  }

  // Seconds; Infinity if it does not fill, undefined if that is not known yet.
  get timeToFull() {
    const slope = this.slope;
    if (slope === undefined) return undefined;
    // Less than a byte a second is noise.
    return slope < -1 ? Math.max(this.#points.at(-1).free, 0) / -slope : Infinity;
  }
}
