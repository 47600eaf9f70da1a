// An attribution graph, or two side by side: what leads to the model's answer.
import { useEffect, useMemo, useState } from "preact/hooks";
import { save, short, visible } from "../words.jsx";
import { draw, palette } from "./draw.js";
import { chosen, createGraph, named, saved } from "./model.js";
import { Pane } from "./pane.jsx";
import { createSvg } from "./svg.js";

const SHOWN = 40;
const KIND_NAMES = [["feature", "features"], ["error", "errors"], ["token", "tokens"], ["output", "outputs"]];

export function GraphView({ data, store, channel }) {
  const [graphs, setGraphs] = useState(null);
  useEffect(() => {
    Promise.all(data.graphs.map(({ shard }) => store.shard(shard))).then((found) => setGraphs(found.map(createGraph)));
  }, []);
  if (!graphs) return <div class="page"><p class="soft">reading the graph</p></div>;
  return <Graphs data={data} graphs={graphs} channel={channel} />;
}

function Graphs({ data, graphs, channel }) {
  const marks = graphs[0].json.qParams ?? {};
  const [selected, setSelected] = useState(marks.clickedId || null);
  const [pinned, setPinned] = useState(new Set(marks.pinnedIds ?? []));
  const [groups, setGroups] = useState((marks.supernodes ?? []).map(([name, ...ids]) => ({ name, ids })));
  const [labels, setLabels] = useState({});
  const [filter, setFilter] = useState({ kinds: new Set(KIND_NAMES.map(([kind]) => kind)), influence: 1, query: "", pinnedOnly: false });
  const [moved, setMoved] = useState(null);
  const [told, setTold] = useState("");
  const shown = useMemo(() => graphs.map((graph) => chosen(graph, filter, pinned, labels)), [graphs, filter, pinned, labels]);
  const only = useMemo(() => graphs.map((graph, i) => graphs.length < 2 ? null
    : new Set(graph.nodes.filter((node) => !graphs[1 - i].byId.has(node.id)).map((node) => node.id))), [graphs]);
  const views = graphs.map((graph, i) => ({
    shown: shown[i], selected: graph.byId.get(selected) ?? null, pinned, groups, labels, only: only[i],
  }));
  const node = views.find((view) => view.selected)?.selected ?? null;
  const graph = node && graphs.find((g) => g.byId.get(selected) === node);
  const pin = ({ id }) => {
    const next = new Set(pinned);
    if (!next.delete(id)) next.add(id);
    setPinned(next);
  };
  const state = { pinned, groups, labels, selected };
  const name = data.title.replace(/\W+/g, "-").slice(0, 40) || "graph";
  const picture = (kind) => exported(kind, graphs[0], views[0], name);
  async function keep() {
    try {
      await channel.ask({ kind: "save", graph: saved(graphs[0], state) }, ({ path }) => setTold(`saved in ${path}`));
    } catch (error) {
      setTold(error.message);
    }
  }
  return (
    <div class="page">
      <header class="head">
        <p class="brand">bitlens graph</p>
        <h1>{visible(data.title)}</h1>
        <p class="soft">{data.graphs.map(({ name: n, facts }) => `${n}: ${facts.join(" · ")}`).join(" — ")}</p>
      </header>
      <Filters filter={filter} setFilter={setFilter} />
      <div class="beside">
        <div class="graphs">
          {graphs.map((g, i) => (
            <Pane key={i} graph={g} view={views[i]} title={data.graphs[i].name} followed={moved && moved.by !== i ? moved.transform : null}
              onMove={(transform) => setMoved({ by: i, transform })}
              onSelect={(found) => setSelected(found?.id ?? null)} onPin={pin} />
          ))}
        </div>
        <aside class="panel side stack" aria-label="Nodes">
          <p class="hidden" role="status">{node ? `${named(node, labels)}, ${node.into.length} in, ${node.from.length} out` : ""}</p>
          {node
            ? <Node node={node} graph={graph} labels={labels} pinned={pinned} onPin={() => pin(node)}
                onLabel={(text) => setLabels({ ...labels, [node.id]: text })} onSelect={(found) => setSelected(found?.id ?? null)} />
            : <NodeList nodes={[...shown[0]]} labels={labels} onSelect={(found) => setSelected(found.id)} total={graphs[0].nodes.length} />}
          <Groups pinned={pinned} groups={groups} setGroups={setGroups} />
        </aside>
      </div>
      <div class="row">
        <button class="button" onClick={() => picture("png")}>PNG</button>
        <button class="button" onClick={() => picture("svg")}>SVG</button>
        <button class="button" onClick={() => save(`${name}.json`, JSON.stringify(saved(graphs[0], state)), "application/json")}>JSON</button>
        {channel && <button class="button main" onClick={keep}>Save</button>}
        <span class="soft" role="status">{told}</span>
      </div>
      {only[0] && <p class="soft">Ringed: {only[0].size} nodes of {data.graphs[0].name} alone, {only[1].size} of {data.graphs[1].name} alone.</p>}
    </div>
  );
}

function Filters({ filter, setFilter }) {
  const toggle = (kind) => {
    const kinds = new Set(filter.kinds);
    if (!kinds.delete(kind)) kinds.add(kind);
    setFilter({ ...filter, kinds });
  };
  return (
    <div class="row" role="group" aria-label="Filter">
      <input class="field" type="search" aria-label="Search nodes" placeholder="Search nodes" value={filter.query}
        onInput={(event) => setFilter({ ...filter, query: event.currentTarget.value })} />
      {KIND_NAMES.map(([kind, words]) => (
        <button key={kind} class="button" aria-pressed={filter.kinds.has(kind)} onClick={() => toggle(kind)}>{words}</button>
      ))}
      <label>influence to {Math.round(filter.influence * 100)}% <input type="range" min="0" max="1" step="0.01" value={filter.influence}
        onInput={(event) => setFilter({ ...filter, influence: Number(event.currentTarget.value) })} /></label>
      <button class="button" aria-pressed={filter.pinnedOnly} onClick={() => setFilter({ ...filter, pinnedOnly: !filter.pinnedOnly })}>pinned only</button>
    </div>
  );
}

function NodeList({ nodes, labels, onSelect, total }) {
  const order = nodes.sort((a, b) => (a.influence ?? 2) - (b.influence ?? 2) || b.weight - a.weight || a.i - b.i);
  return (
    <div>
      <h2>{nodes.length.toLocaleString("en")} of {total.toLocaleString("en")} nodes</h2>
      <ul class="list">
        {order.slice(0, SHOWN).map((node) => (
          <li key={node.id}><NodeButton node={node} labels={labels} onSelect={onSelect} /></li>
        ))}
      </ul>
    </div>
  );
}

const place = (node) => (node.level === -1 ? `token ${node.position}` : `${node.level} @ ${node.position}`);

function NodeButton({ node, labels, value, onSelect }) {
  return (
    <button class="entry" onClick={() => onSelect(node)} aria-label={`${named(node, labels)}, ${place(node)}`}>
      <span class="soft">{place(node)}</span>
      <span class="words"><b>{visible(named(node, labels))}</b></span>
      <span class={`number ${value < 0 ? "bad" : ""}`}>{short(value ?? node.raw.activation ?? 0)}</span>
    </button>
  );
}

function Node({ node, graph, labels, pinned, onPin, onLabel, onSelect }) {
  const { token_prob: probability, activation } = node.raw;
  return (
    <div class="stack">
      <div class="row spread">
        <h2>{node.kind} {place(node)}</h2>
        <button class="button" onClick={() => onSelect(null)}>All nodes</button>
      </div>
      <div class="row">
        <input class="field" aria-label="Label of the node" value={named(node, labels)} onChange={(event) => onLabel(event.currentTarget.value)} />
        <button class="button" aria-pressed={pinned.has(node.id)} onClick={onPin}>Pin</button>
      </div>
      <dl class="facts">
        {activation != null && <div><dt>activation</dt><dd>{short(activation)}</dd></div>}
        {node.influence !== null && <div><dt>influence to</dt><dd>{short(node.influence)}</dd></div>}
        {probability > 0 && <div><dt>probability</dt><dd>{short(probability)}</dd></div>}
        <div><dt>node</dt><dd>{node.id}</dd></div>
      </dl>
      <Edges title="From" links={node.into} end="source" labels={labels} onSelect={onSelect} />
      <Edges title="To" links={node.from} end="target" labels={labels} onSelect={onSelect} />
    </div>
  );
}

function Edges({ title, links, end, labels, onSelect }) {
  if (!links.length) return null;
  return (
    <div>
      <h3>{title} ({links.length})</h3>
      <ul class="list">
        {links.slice(0, 15).map((link) => (
          <li key={link[end].id}><NodeButton node={link[end]} labels={labels} value={link.weight} onSelect={onSelect} /></li>
        ))}
      </ul>
    </div>
  );
}

function Groups({ pinned, groups, setGroups }) {
  const [name, setName] = useState("");
  const taken = new Set(groups.flatMap(({ ids }) => ids));
  const free = [...pinned].filter((id) => !taken.has(id));
  return (
    <div>
      <h3>Groups</h3>
      {groups.map((group, i) => (
        <p key={i}><span class="chip">{group.name} ({group.ids.length})
          <button aria-label={`Dissolve ${group.name}`} onClick={() => setGroups(groups.filter((_, at) => at !== i))}>✕</button></span></p>
      ))}
      <form class="row" onSubmit={(event) => {
        event.preventDefault();
        if (!free.length || !name.trim()) return;
        setGroups([...groups, { name: name.trim(), ids: free }]);
        setName("");
      }}>
        <input class="field" aria-label="Name of the group" placeholder="Name" value={name} onInput={(event) => setName(event.currentTarget.value)} />
        <button class="button" disabled={!free.length}>Group {free.length} pinned</button>
      </form>
    </div>
  );
}

function exported(kind, graph, view, name) {
  const size = { width: Math.ceil(Math.max(graph.width, 400)) + 80, height: Math.ceil(graph.height) + 48 };
  const transform = { k: 1, x: 60, y: 10 };
  const colours = palette(document.querySelector(".bitlens"));
  if (kind === "svg") {
    const svg = createSvg(size);
    draw(svg, graph, view, transform, size, colours);
    save(`${name}.svg`, svg.document(), "image/svg+xml");
    return;
  }
  const scale = Math.min(2, 16000 / size.width, 16000 / size.height);
  const canvas = document.createElement("canvas");
  canvas.width = size.width * scale;
  canvas.height = size.height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  draw(context, graph, view, transform, size, colours);
  canvas.toBlob((blob) => save(`${name}.png`, blob), "image/png");
}
