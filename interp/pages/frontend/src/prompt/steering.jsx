// Edits of features, and what the model writes with them beside what it writes without.
import { useRef, useState } from "preact/hooks";
import { Code } from "../words.jsx";

const OPS = [["set", "clamp to"], ["scale", "scale by"], ["add", "add"], ["ablate", "ablate"]];

export function Steering({ data, edits, setEdits, labels, channel }) {
  const [options, setOptions] = useState({ max_new_tokens: 32, temperature: 0, seed: 0 });
  const [said, setSaid] = useState(null);
  const running = useRef(null);
  if (!edits.length) return null;
  const change = (i, part) => setEdits(edits.map((edit, at) => (at === i ? { ...edit, ...part } : edit)));
  async function run() {
    running.current?.abort();
    const mine = (running.current = new AbortController());
    const found = { plain: "", steered: "", tokens: null, problem: "", busy: true };
    const show = () => running.current === mine && setSaid({ ...found });
    show();
    try {
      const request = { kind: "steer", prompt: data.prompt, edits: edits.map(asked(data)), ...options };
      await channel.ask(request, (event) => {
        if (event.kind === "text") found[event.which] += event.text;
        if (event.kind === "done") found.tokens = { ...found.tokens, [event.which]: event.tokens };
        show();
      }, mine.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      found.problem = error.message;
    }
    found.busy = false;
    show();
  }
  return (
    <section class="panel steering" aria-label="Steering">
      <h2>Steering</h2>
      {edits.map((edit, i) => (
        <Edit key={`${edit.dictionary}/${edit.feature}`} edit={edit} label={labels.of(edit.dictionary, edit.feature)}
          onChange={(part) => change(i, part)} onRemove={() => setEdits(edits.filter((_, at) => at !== i))} />
      ))}
      <div class="row">
        {[["max_new_tokens", "new tokens", 1, 1], ["temperature", "temperature", 0, 0.1], ["seed", "seed", 0, 1]].map(([name, words, min, step]) => (
          <label key={name}>{words} <input class="field" type="number" min={min} step={step} size="6" value={options[name]}
            onInput={number((value) => setOptions({ ...options, [name]: value }))} /></label>
        ))}
        {channel
          ? <button class="button main" onClick={run}>Write</button>
          : <span class="soft">This page has no model behind it: the code below runs the edits; `bitlens explore` serves a page that does.</span>}
      </div>
      {said && <Said said={said} />}
      <Code text={python(data, edits, options)} />
    </section>
  );
}

// Takes what is typed at once, so that a click on "Write" has it; what is no number yet is waited for.
const number = (take) => ({ currentTarget: { valueAsNumber: value } }) => Number.isFinite(value) && take(value);

function Edit({ edit, label, onChange, onRemove }) {
  const most = edit.op === "scale" ? 10 : Math.ceil(edit.largest * 3);
  const name = `feature ${edit.feature}`;
  return (
    <div class="edit">
      <span title={label}><b>{edit.feature}</b></span>
      <select class="field" aria-label={`What to do with ${name}`} value={edit.op}
        onChange={(event) => {
          const op = event.currentTarget.value;
          onChange({ op, value: op === "scale" ? 2 : Number(edit.largest.toPrecision(2)) });
        }}>
        {OPS.map(([op, words]) => <option key={op} value={op}>{words}</option>)}
      </select>
      {edit.op === "ablate" ? <span class="soft">to 0</span> : (
        <input type="range" min={edit.op === "set" ? 0 : -most} max={most} step={most / 100} value={edit.value} aria-label={`Value of ${name}`}
          onInput={(event) => onChange({ value: Number(event.currentTarget.value) })} />
      )}
      {edit.op === "ablate" ? <span /> : (
        <input class="field" type="number" step="any" value={edit.value} aria-label={`Value of ${name} as a number`}
          onInput={number((value) => onChange({ value }))} />
      )}
      <button class="button" aria-label={`Remove the edit of ${name}`} onClick={onRemove}>Remove</button>
    </div>
  );
}

function Said({ said: { plain, steered, tokens, problem, busy } }) {
  const same = commonLength(plain, steered);
  return (
    <div aria-busy={busy} data-tokens={tokens ? JSON.stringify(tokens) : undefined}>
      <div class="texts">
        <div><h3>As it is</h3><p class="said plain">{plain}</p></div>
        <div><h3>Steered</h3><p class="said steered">{steered.slice(0, same)}<mark>{steered.slice(same)}</mark></p></div>
      </div>
      {problem && <p class="bad" role="alert">{problem}</p>}
    </div>
  );
}

function commonLength(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}

const asked = (data) => ({ dictionary, feature, op, value }) => ({
  hook_name: data.dictionaries[dictionary].hook_name_out, feature, op, value: op === "ablate" ? null : value,
});

function python(data, edits, { max_new_tokens, temperature, seed }) {
  const lines = edits.map(asked(data)).map(({ hook_name, feature, op, value }) =>
    `    Edit(${feature}, "${op}"${value === null ? "" : `, ${value}`}, hook_name=${JSON.stringify(hook_name)}),`);
  return `${data.setup}
from bitlens.interp import Edit, splice

edits = [
${lines.join("\n")}
]
prompt = ${JSON.stringify(data.prompt)}
options = dict(max_new_tokens=${max_new_tokens}, temperature=${temperature}, seed=${seed})
print(model.generate(prompt, **options).text[0])
with splice(model, dictionaries, edits=edits):
    print(model.generate(prompt, **options).text[0])
`;
}
