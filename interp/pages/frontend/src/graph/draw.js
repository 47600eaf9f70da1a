// Draws a graph on anything with a canvas's methods: the screen, a picture, or an SVG (svg.js).
import { named } from "./model.js";

const BACKGROUND_LINKS = 800, LINKS_IN_MOTION = 150, LABELLED_FROM = 0.9, R = 5, DOT = 3;

export function palette(element) {
  const probe = document.createElement("span");
  element.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const found = Object.fromEntries(["ink", "soft", "line", "a", "b", "good", "bad", "warn", "card", "heat"].map((n) => [n, colour(n)]));
  probe.remove();
  return found;
}

export function draw(c, graph, view, transform, size, colours) {
  const { shown, selected, hovered, pinned, groups, labels, only, inMotion } = view;
  const { k, x: tx, y: ty } = transform;
  c.fillStyle = colours.card;
  c.fillRect(0, 0, size.width, size.height);
  const sx = (x) => x * k + tx, sy = (y) => y * k + ty;
  const seen = (node) => sx(node.x) > -20 && sx(node.x) < size.width + 20 && sy(node.y) > -20 && sy(node.y) < size.height + 20;
  axes(c, graph, sx, sy, size, colours, k);
  const focus = hovered ?? selected;
  links(c, graph, shown, focus, sx, sy, colours, inMotion ? LINKS_IN_MOTION : BACKGROUND_LINKS);
  marks(c, [...shown].filter(seen), sx, sy, colours, { focus, k, only });
  for (const node of shown) {
    if (pinned.has(node.id)) ring(c, sx(node.x), sy(node.y), R + 3, colours.b, 2);
  }
  for (const group of groups) outline(c, graph, group, shown, sx, sy, colours);
  if (focus && shown.has(focus)) {
    ring(c, sx(focus.x), sy(focus.y), R + 5, colours.ink, 2);
    label(c, named(focus, labels), sx(focus.x), sy(focus.y) - 14, colours, size);
  }
  if (k >= LABELLED_FROM && shown.size < 400) {
    for (const node of shown) {
      if (seen(node) && pinned.has(node.id) && node !== focus) label(c, named(node, labels), sx(node.x), sy(node.y) - 14, colours, size);
    }
  }
}

function axes(c, graph, sx, sy, size, colours, k) {
  const { lefts, levels, middle, json } = graph;
  c.strokeStyle = colours.line;
  c.lineWidth = 1;
  c.beginPath();
  for (const left of lefts) {
    c.moveTo(sx(left), Math.max(0, sy(0)));
    c.lineTo(sx(left), Math.min(size.height, sy(graph.height)));
  }
  c.stroke();
  c.fillStyle = colours.soft;
  c.font = "12px system-ui, sans-serif";
  c.textAlign = "center";
  const bottom = Math.min(size.height - 8, sy(graph.height) + 16);
  json.metadata.prompt_tokens.forEach((token, i) => {
    const width = (lefts[i + 1] - lefts[i]) * k;
    if (width > 18) c.fillText(clipped(token.replaceAll("\n", "⏎").trim() || "␣", width), sx((lefts[i] + lefts[i + 1]) / 2), bottom);
  });
  c.textAlign = "left";
  let above = Infinity;
  levels.forEach((level, i) => {
    const y = sy(middle.get(level));
    if (above - y < 15) return;
    above = y;
    const words = level === -1 ? "tokens" : i === levels.length - 1 ? "output" : `layer ${level}`;
    c.fillText(words, 6, y + 4);
  });
}

const clipped = (text, width) => (text.length * 7 <= width ? text : `${text.slice(0, Math.max(1, Math.floor(width / 7) - 1))}…`);

function links(c, graph, shown, focus, sx, sy, colours, most) {
  const line = ({ source, target }) => {
    c.moveTo(sx(source.x), sy(source.y));
    c.lineTo(sx(target.x), sy(target.y));
  };
  const visible = (link) => shown.has(link.source) && shown.has(link.target);
  c.globalAlpha = focus ? 0.2 : 0.4;
  c.lineWidth = 0.7;
  for (const sign of [1, -1]) {
    c.strokeStyle = sign > 0 ? colours.a : colours.bad;
    c.beginPath();
    let n = 0;
    for (const link of graph.links) {
      if (Math.sign(link.weight) !== sign || !visible(link)) continue;
      line(link);
      if (++n === most) break;
    }
    c.stroke();
  }
  c.globalAlpha = 1;
  if (!focus) return;
  for (const link of [...focus.into.slice(0, 60), ...focus.from.slice(0, 60)]) {
    if (!visible(link)) continue;
    c.strokeStyle = link.weight > 0 ? colours.a : colours.bad;
    c.lineWidth = 0.8 + (3.2 * Math.abs(link.weight)) / graph.heaviest;
    c.beginPath();
    line(link);
    c.stroke();
  }
}

// One path a kind: four thousand nodes are four fills.
function marks(c, nodes, sx, sy, colours, { focus, k, only }) {
  const r = Math.max(1.6, Math.min(R, 7 * k));
  const near = focus && new Set([focus, ...focus.into.map((l) => l.source), ...focus.from.map((l) => l.target)]);
  for (const [kind, colour] of [["error", colours.soft], ["feature", colours.a], ["token", colours.good], ["output", colours.heat]]) {
    for (const bright of [false, true]) {
      c.globalAlpha = !near || bright ? 1 : 0.35;
      c.fillStyle = colour;
      c.beginPath();
      for (const node of nodes) {
        if (node.kind !== kind || (near ? near.has(node) : false) !== bright) continue;
        shape(c, kind, sx(node.x), sy(node.y), r);
      }
      c.fill();
    }
  }
  c.globalAlpha = 1;
  if (only) {
    for (const node of nodes) if (only.has(node.id)) ring(c, sx(node.x), sy(node.y), r + 1.5, colours.warn, 1.5);
  }
}

function shape(c, kind, x, y, r) {
  if (r < DOT) c.rect(x - r, y - r, 2 * r, 2 * r); // as good as round, and drawn faster
  else if (kind === "feature") {
    c.moveTo(x + r, y);
    c.arc(x, y, r, 0, 2 * Math.PI);
  } else if (kind === "error") {
    c.moveTo(x, y - r);
    c.lineTo(x + r, y);
    c.lineTo(x, y + r);
    c.lineTo(x - r, y);
    c.closePath();
  } else c.rect(x - r, y - r, 2 * r, 2 * r);
}

function ring(c, x, y, r, colour, width) {
  c.strokeStyle = colour;
  c.lineWidth = width;
  c.beginPath();
  c.arc(x, y, r, 0, 2 * Math.PI);
  c.stroke();
}

function outline(c, graph, { name, ids }, shown, sx, sy, colours) {
  const nodes = ids.map((id) => graph.byId.get(id)).filter((node) => node && shown.has(node));
  if (!nodes.length) return;
  const xs = nodes.map((node) => sx(node.x)), ys = nodes.map((node) => sy(node.y));
  const left = Math.min(...xs) - 12, top = Math.min(...ys) - 12;
  c.strokeStyle = colours.b;
  c.lineWidth = 1.2;
  c.beginPath();
  c.rect(left, top, Math.max(...xs) + 12 - left, Math.max(...ys) + 12 - top);
  c.stroke();
  c.fillStyle = colours.b;
  c.font = "600 12px system-ui, sans-serif";
  c.textAlign = "left";
  c.fillText(name, left, top - 4);
}

function label(c, text, x, y, colours, size) {
  c.font = "600 12px system-ui, sans-serif";
  c.textAlign = "center";
  const words = text.length > 48 ? `${text.slice(0, 47)}…` : text;
  const half = words.length * 3.6 + 6;
  const at = Math.max(half, Math.min(size.width - half, x));
  c.fillStyle = colours.card;
  c.globalAlpha = 0.85;
  c.fillRect(at - half, y - 12, 2 * half, 17);
  c.globalAlpha = 1;
  c.fillStyle = colours.ink;
  c.fillText(words, at, y);
}
