// A prompt: its tokens, the features of each, and what the layers make of it.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Card } from "../card.jsx";
import { createLabels } from "../labels.js";
import { Code, heat, short, visible, Words } from "../words.jsx";
import { Lens } from "./lens.jsx";
import { Steering } from "./steering.jsx";

export function PromptView({ data: first, store, channel }) {
  const [data, setData] = useState(first);
  const labels = useMemo(() => createLabels(first), []);
  const [token, setToken] = useState(null);
  const [coloured, setColoured] = useState(null);
  const [edits, setEdits] = useState([]);
  const [problem, setProblem] = useState("");
  useEffect(() => { setToken(null); setColoured(null); }, [data]);
  const steer = (dictionary, feature, largest) => {
    if (edits.some((e) => e.dictionary === dictionary && e.feature === feature)) return;
    const value = Number((largest || 10).toPrecision(2));
    setEdits([...edits, { dictionary, feature, op: "set", value, largest: largest || 10 }]);
  };
  async function ask(prompt) {
    setProblem("");
    try {
      await channel.ask({ kind: "prompt", prompt }, (event) => {
        store.replace(event.data, event.shards);
        setData(event.data);
      });
    } catch (error) {
      setProblem(error.message);
    }
  }
  const card = coloured ?? strongest(data, token);
  return (
    <div class="page">
      <header class="head">
        <p class="brand">bitlens features</p>
        <h1>{visible(data.prompt)}</h1>
        <p class="soft">{data.model}{data.against && `, beside ${data.against.name}`} · {data.facts.join(" · ")}</p>
      </header>
      {channel && <Prompt prompt={data.prompt} onAsk={ask} problem={problem} />}
      {data.layers.map((layer) => (
        <Strip key={layer.dictionary} data={data} layer={layer} token={token} coloured={coloured} onToken={(i) => setToken(i === token ? null : i)} />
      ))}
      {coloured && <button class="button" onClick={() => setColoured(null)}>Colour by all features again</button>}
      <div class="two">
        <div class="stack">
          {data.layers.map((layer) => (
            <Features key={layer.dictionary} data={data} layer={layer} token={token} coloured={card} labels={labels}
              onFeature={(feature) => setColoured({ dictionary: layer.dictionary, feature })} />
          ))}
        </div>
        {card && (
          <Card data={data} store={store} labels={labels} dictionary={card.dictionary} feature={card.feature}
            onFeature={(feature) => setColoured({ dictionary: card.dictionary, feature })} onSteer={steer} />
        )}
      </div>
      <Steering data={data} edits={edits} setEdits={setEdits} labels={labels} channel={channel} />
      {data.against && <Flips data={data} />}
      {data.lenses.map((lens) => <Lens key={lens.name} tokens={data.tokens} lens={lens} />)}
      <section class="panel"><Code text={data.code} /></section>
    </div>
  );
}

function Prompt({ prompt, onAsk, problem }) {
  const [text, setText] = useState(prompt);
  return (
    <form class="panel row" onSubmit={(event) => { event.preventDefault(); onAsk(text); }}>
      <textarea class="field" aria-label="Prompt" rows="2" value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <button class="button main">Show</button>
      {problem && <span class="bad" role="alert">{problem}</span>}
    </form>
  );
}

// Colours by one feature's activation, or by all activations of a token together.
function Strip({ data, layer, token, coloured, onToken }) {
  const one = coloured && coloured.dictionary === layer.dictionary ? coloured.feature : null;
  const values = layer.features.map((found, i) =>
    one !== null ? (found.find(([f]) => f === one)?.[1] ?? 0)
      : layer.outliers.includes(i) ? 0 : found.reduce((sum, [, a]) => sum + a, 0));
  const most = Math.max(...values, 1e-9);
  const { hook_name } = data.dictionaries[layer.dictionary];
  return (
    <section class="panel">
      <h3>{hook_name}, coloured by {one !== null ? `feature ${one}` : "all of a token's activations"}</h3>
      <div class="strip" role="group" aria-label={`Tokens at ${hook_name}`}>
        {data.tokens.map((text, i) => (
          <button
            key={i} aria-pressed={i === token} class={data.against?.flips.some((flip) => flip.position === i) ? "flipped" : ""}
            style={{ background: heat(values[i] / most) }} title={`${short(values[i])}`} onClick={() => onToken(i)}
            aria-label={`Token ${i}, ${visible(text)}: ${short(values[i])}`}
          >{visible(text)}</button>
        ))}
      </div>
    </section>
  );
}

function Features({ data, layer, token, coloured, labels, onFeature }) {
  const dictionary = data.dictionaries[layer.dictionary];
  const found = useMemo(() => listed(layer, token), [layer, token]);
  const [all, setAll] = useState(false);
  const shown = all ? found : found.slice(0, 12);
  const most = Math.max(...found.map(({ value }) => value), 1e-9);
  const outlier = token !== null && layer.outliers.includes(token);
  return (
    <section class="panel" aria-label={`Features at ${dictionary.hook_name}`}>
      <h2>{token === null ? "Strongest features of the prompt" : <>Features of <code>{visible(data.tokens[token])}</code></>}</h2>
      <p class="soft">{dictionary.hook_name}{outlier && ": this row's norm is too large for a dictionary to mean anything"}</p>
      <ul class="list">
        {shown.map(({ feature, value, change }) => (
          <li key={feature}>
            <button class="entry" aria-label={`Feature ${feature}: ${short(value)}`} onClick={() => onFeature(feature)}
              aria-pressed={coloured?.dictionary === layer.dictionary && coloured.feature === feature}>
              <span class="id">{feature}</span>
              <span>
                <Words label={labels.of(layer.dictionary, feature)} about={data.words[layer.dictionary][feature]} />
                <span class="bar" style={{ width: `${(100 * value) / most}%` }} />
              </span>
              <span class="number">{short(value)}{change && <span class="bad"> {change}</span>}</span>
            </button>
          </li>
        ))}
      </ul>
      {found.length > 12 && <button class="button" onClick={() => setAll(!all)}>{all ? "Fewer" : `All ${found.length}`}</button>}
    </section>
  );
}

// The features of a token, or of the prompt by their largest activation; outlier rows left out of it.
function listed(layer, token) {
  const best = new Map();
  layer.features.forEach((found, i) => {
    if (token === null ? layer.outliers.includes(i) : i !== token) return;
    for (const [feature, value] of found) best.set(feature, Math.max(best.get(feature) ?? 0, value));
  });
  const changes = token === null || !layer.changes ? new Map() : new Map([
    ...layer.changes[token].gained.map((f) => [f, "gained"]), ...layer.changes[token].lost.map((f) => [f, "lost"]),
  ]);
  for (const feature of changes.keys()) if (!best.has(feature)) best.set(feature, 0);
  return [...best].map(([feature, value]) => ({ feature, value, change: changes.get(feature) }))
    .sort((a, b) => b.value - a.value || a.feature - b.feature);
}

function strongest(data, token) {
  for (const layer of data.layers) {
    const found = listed(layer, token);
    if (found.length) return { dictionary: layer.dictionary, feature: found[0].feature };
  }
  return null;
}

function Flips({ data }) {
  const { name, flips } = data.against;
  const changed = data.layers.map((layer) => layer.changes.reduce((sum, c) => sum + c.gained.length + c.lost.length, 0));
  const total = data.layers.reduce((sum, layer) => sum + layer.features.reduce((n, found) => n + found.length, 0), 0);
  return (
    <section class="panel" aria-label="What flipped">
      <h2>What flipped under {name}</h2>
      <p class="soft">
        {changed.reduce((a, b) => a + b, 0)} of {total} active features were gained or lost; {flips.length} of {data.tokens.length} next tokens changed.
      </p>
      {flips.length > 0 && (
        <div class="scroll"><table class="lens">
          <thead><tr><th>after</th><th>{data.policy}</th><th>{name}</th></tr></thead>
          <tbody>{flips.map((flip) => (
            <tr key={flip.position}><th>{visible(data.tokens[flip.position])}</th><td>{visible(flip.a)}</td><td>{visible(flip.b)}</td></tr>
          ))}</tbody>
        </table></div>
      )}
    </section>
  );
}
