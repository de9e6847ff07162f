// Elements of the page. Text gets into it as text only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Sets a text only where it differs, so that a screen reader hears of changes alone.
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// A name that others chose: it cannot change the direction of the text around it, and is cut where
// it is absurd.
function named(text) {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return element("bdi", {}, shown.replace(/\p{Cc}/gu, "\uFFFD"));
}

// A figure with its exact value. `column` names it for whoever reads the page by a program.
function figure(column, value, text) {
  const exact = Number.isFinite(value) ? String(value) : "";
  return element("data", { value: exact, "data-figure": column }, text);
}

// A plot of points over time, oldest first; gaps are left out.
function plot(points, title, show) {
  const svg = document.createElementNS(SVG, "svg");
  const known = points.filter((point) => Number.isFinite(point.value));
  const top = Math.max(...known.map((point) => point.value), 0) || 1;
  const [begin, end] = [points[0]?.time ?? 0, points.at(-1)?.time ?? 1];
  const x = (point) => (300 * (point.time - begin)) / Math.max(end - begin, 1);
  const y = (point) => 31 - (29 * Math.max(point.value, 0)) / top;
  const line = known.map((p, at) => `${at ? "L" : "M"}${x(p).toFixed(1)} ${y(p).toFixed(1)}`).join("");
  const area =
    known.length > 1 ? `${line}L${x(known.at(-1)).toFixed(1)} 32L${x(known[0]).toFixed(1)} 32Z` : "";
  svg.setAttribute("class", "plot");
  svg.setAttribute("viewBox", "0 0 300 32");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const span = asDuration(Math.round(end - begin));
  svg.setAttribute(
    "aria-label",
    known.length > 1 ? `${title} in the last ${span}: at most ${show(top)}` : `${title}: nothing to plot yet`,
  );
  for (const [kind, path] of [
    ["area", area],
    ["line", line],
  ]) {
    const drawn = document.createElementNS(SVG, "path");
    drawn.setAttribute("class", kind);
    drawn.setAttribute("d", path);
    svg.append(drawn);
  }
  return svg;
}

const tables = new Map();

// A section with a table, made once and filled at each scrape. A row is `{ key, cells }`; a cell is
// a node or a text. Without rows the section is hidden.
function table(id, { title, caption, columns, wide }, rows) {
  let made = tables.get(id);
  if (!made) {
    const heading = element("h2", { id: `${id}-title` }, title);
    const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)));
    const body = element("tbody");
    const about = element("caption");
    const whole = element("table", { id }, about, element("thead", {}, head), body);
    // By keyboard it can be scrolled only if it has the focus.
    const scroll = element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": `${id}-title` },
      whole,
    );
    const section = element(
      "section",
      { "aria-labelledby": `${id}-title`, class: wide ? "wide" : undefined },
      heading,
      scroll,
    );
    byId("sections").append(section);
    made = { section, about, body };
    tables.set(id, made);
  }
  made.section.hidden = rows.length === 0;
  say(made.about, caption);
  made.body.replaceChildren(
    ...rows.map(({ key, head, cells }) => {
      const first = element("th", { scope: "row" }, head ?? named(key));
      return element("tr", { "data-key": key }, first, ...cells.map((cell) => element("td", {}, cell)));
    }),
  );
}

const cards = new Map();

// A figure of its own, with a plot.
function card(id, title, { value, text, bad, note = "", points, show }) {
  let made = cards.get(id);
  if (!made) {
    made = {
      value: element("span", { class: "value" }),
      plot: element("div"),
      note: element("p", { class: "note" }),
    };
    byId("figures").append(element("li", {}, element("h3", {}, title), made.value, made.plot, made.note));
    cards.set(id, made);
  }
  made.value.replaceChildren(figure(id, value, text));
  made.value.firstChild.className = bad ? "bad" : "";
  made.plot.replaceChildren(...(points ? [plot(points, title, show)] : []));
  made.note.replaceChildren(...[note].flat());
}
