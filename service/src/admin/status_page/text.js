// Figures as people read them. Each takes whatever a metric can be.

const NONE = "–";

function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.01) return "<0.01";
  if (size < 10) return value.toFixed(2).replace(/\.?0+$/, "");
  return size < 100 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0);
}

function scaled(value, base, units) {
  if (!Number.isFinite(value)) return NONE;
  let unit = 0;
  while (Math.abs(value) >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return Math.abs(value) >= 1e6 ? value.toExponential(1) + units[unit] : digits(value) + units[unit];
}

const asCount = (value) =>
  Number.isFinite(value) && Math.abs(value) < 10_000
    ? digits(value)
    : scaled(value, 1000, ["", " k", " M", " G", " T"]);
const asBytes = (value) => scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]);
const asRate = (value) => (Number.isFinite(value) ? `${asCount(value)}/s` : NONE);
const asSpeed = (value) => (Number.isFinite(value) ? `${asBytes(value)}/s` : NONE);
const asShare = (value) => (Number.isFinite(value) ? `${digits(value * 100)} %` : NONE);

// The largest two units.
function asDuration(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 0) return `-${asDuration(-seconds)}`;
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${digits(seconds * 1000)} ms`;
  if (seconds < 60) return `${digits(seconds)} s`;
  const units = [
    ["year", 31_536_000],
    ["day", 86_400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  const at = units.findIndex(([, length]) => seconds >= length);
  const spell = (count, name) =>
    (name.length > 3 || name === "day") && count !== 1 ? `${count} ${name}s` : `${count} ${name}`;
  const [name, length] = units[at];
  const count = Math.floor(seconds / length);
  const [less, short] = units[at + 1];
  const rest = Math.floor((seconds - count * length) / short);
  return rest > 0 && count < 1000 ? `${spell(count, name)} ${spell(rest, less)}` : spell(count, name);
}

// Timestamps are of whole seconds, and clocks differ.
function asAgo(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  return seconds < 2 ? "just now" : `${asDuration(seconds)} ago`;
}

const plural = (count, one, many = `${one}s`) => `${asCount(count)} ${count === 1 ? one : many}`;
