// A graph in circuit-tracer's and Neuronpedia's JSON, laid out on its two axes: a column a position, a
// row a layer. Nothing is optimised: where a node stands says what it is.
import { quadtree } from "d3-quadtree";

const ROW = 46, GAP = 15, COLUMN = 64, SHAPE = 1.3;
export const KINDS = {
  "cross layer transcoder": "feature",
  "mlp reconstruction error": "error",
  embedding: "token",
  logit: "output",
};

export function createGraph(json) {
  const positions = json.metadata.prompt_tokens.length;
  const nodes = json.nodes.map((raw, i) => ({
    raw, i, id: raw.node_id, position: raw.ctx_idx, kind: KINDS[raw.feature_type] ?? "feature",
    level: raw.layer === "E" ? -1 : Number(raw.layer), weight: Math.abs(raw.activation ?? 0),
    influence: raw.influence ?? null, into: [], from: [],
  }));
  const byId = new Map(nodes.map((node) => [node.id, node]));
  let heaviest = 0;
  const links = json.links.map(({ source, target, weight }) => {
    const link = { source: byId.get(source), target: byId.get(target), weight };
    link.source.from.push(link);
    link.target.into.push(link);
    heaviest = Math.max(heaviest, Math.abs(weight));
    return link;
  });
  const byWeight = (a, b) => Math.abs(b.weight) - Math.abs(a.weight);
  for (const node of nodes) {
    node.into.sort(byWeight);
    node.from.sort(byWeight);
  }
  return { json, nodes, byId, links: links.sort(byWeight), heaviest, positions, ...laidOut(nodes, positions) };
}

// Nodes of one layer and position stand in lines, as long as make the whole about 1.3 times as wide as
// high.
function laidOut(nodes, positions) {
  const levels = [...new Set(nodes.map((node) => node.level))].sort((a, b) => b - a);
  const cells = new Map();
  for (const node of nodes) {
    const key = `${node.level}/${node.position}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(node);
  }
  let best = null;
  for (let across = 2; across <= 64; across++) {
    const found = measured([...cells.values()], levels, positions, across);
    const off = Math.abs(Math.log(found.width / found.height / SHAPE));
    if (!best || off < best.off) best = { ...found, off, across };
  }
  const { lefts, widths, middle, across } = best;
  for (const cell of cells.values()) {
    const { position, level } = cell[0];
    const n = Math.ceil(cell.length / across);
    cell.forEach((node, i) => {
      const line = Math.floor(i / across);
      const here = Math.min(across, cell.length - line * across);
      node.x = lefts[position] + widths[position] / 2 + ((i % across) - (here - 1) / 2) * GAP;
      node.y = middle.get(level) + (line - (n - 1) / 2) * GAP;
    });
  }
  const tree = quadtree(nodes, (node) => node.x, (node) => node.y);
  return { ...best, levels: levels.toReversed(), tree };
}

function measured(cells, levels, positions, across) {
  const widths = new Array(positions).fill(COLUMN);
  const lines = new Map(levels.map((level) => [level, 1]));
  for (const cell of cells) {
    const { level, position } = cell[0];
    widths[position] = Math.max(widths[position], (Math.min(cell.length, across) + 1) * GAP);
    lines.set(level, Math.max(lines.get(level), Math.ceil(cell.length / across)));
  }
  const lefts = [0];
  for (const width of widths) lefts.push(lefts.at(-1) + width);
  const middle = new Map();
  let height = 0;
  for (const level of levels) {
    const tall = ROW + (lines.get(level) - 1) * GAP;
    middle.set(level, height + tall / 2);
    height += tall;
  }
  return { widths, lefts, middle, width: lefts.at(-1), height };
}

export const named = (node, labels) => labels[node.id] ?? (node.raw.clerp || node.id);

// Which nodes are shown: of the kinds, within the share of influence, and with the text in their name.
export function chosen(graph, { kinds, influence, query, pinnedOnly }, pinned, labels) {
  const wanted = query.trim().toLowerCase();
  return new Set(graph.nodes.filter((node) => {
    if (pinned.has(node.id)) return true;
    if (pinnedOnly || !kinds.has(node.kind)) return false;
    if (node.influence !== null && node.influence > influence && node.kind !== "output" && node.kind !== "token") return false;
    return !wanted || `${named(node, labels)} ${node.id}`.toLowerCase().includes(wanted);
  }));
}

// The node nearest in a direction of the keyboard; sideways within a row, up and down to other rows.
export function neighbour(node, nodes, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  let best = null, least = Infinity;
  for (const other of nodes) {
    const x = other.x - node.x, y = other.y - node.y;
    const ahead = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (other === node || ahead <= 0.5 || (dx && aside > 1)) continue;
    const distance = ahead + 2 * aside;
    if (distance < least) [best, least] = [other, distance];
  }
  return best;
}

// The graph with what was done to it: pins, groups and labels, where Neuronpedia keeps them.
export function saved(graph, { pinned, groups, labels, selected }) {
  const { json } = graph;
  return {
    ...json,
    qParams: {
      ...json.qParams,
      pinnedIds: [...pinned],
      supernodes: groups.map(({ name, ids }) => [name, ...ids]),
      clickedId: selected ?? "",
    },
    nodes: json.nodes.map((raw) => (labels[raw.node_id] === undefined ? raw : { ...raw, clerp: labels[raw.node_id] })),
  };
}
