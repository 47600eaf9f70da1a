// One feature: what it promotes, how strongly and how often it fires, and where.
import { useEffect, useState } from "preact/hooks";
import { Histogram } from "./histogram.jsx";
import { heat, percent, short, visible, Words } from "./words.jsx";

export function useCard(store, dictionary, feature) {
  const [card, setCard] = useState(null);
  useEffect(() => {
    let current = true;
    setCard(null);
    store.card(dictionary, feature).then((found) => current && setCard(found));
    return () => (current = false);
  }, [dictionary, feature]);
  return card;
}

export function Card({ data, store, labels, dictionary, feature, onFeature, onSteer }) {
  const card = useCard(store, dictionary, feature);
  if (!card) return <section class="panel card" aria-busy="true"><p class="soft">feature {feature}</p></section>;
  return (
    <section class="panel card" aria-label={`Feature ${feature}`}>
      <div class="row spread">
        <h2>Feature {feature} <span class="soft">of {data.dictionaries[dictionary].hook_name}</span></h2>
        {onSteer && <button class="button" onClick={() => onSteer(dictionary, feature, card.largest)}>Steer with it</button>}
      </div>
      <Label labels={labels} dictionary={dictionary} feature={feature} />
      <Facts card={card} />
      <div class="columns">
        <Logits title="Raises the logits of" pairs={card.promoted} />
        <Logits title="Lowers the logits of" pairs={card.suppressed} />
        {card.histogram && <Histogram {...card.histogram} />}
        {card.neighbours?.length > 0 && (
          <div>
            <h3>Fires together with</h3>
            <ul class="list">
              {card.neighbours.map(([other, share, about]) => (
                <li key={other}>
                  <button class="entry" onClick={() => onFeature(other)} aria-label={`Feature ${other}`}>
                    <span class="id">{other}</span>
                    <Words label={labels.of(dictionary, other)} about={about} />
                    <span class="number">{percent(share)}</span>
                  </button>
                </li>
              ))}
            </ul>
          </div>
        )}
      </div>
      <Examples key={feature} card={card} />
    </section>
  );
}

function Label({ labels, dictionary, feature }) {
  return (
    <div class="row">
      <input
        class="field label-field" aria-label={`Label of feature ${feature}`} placeholder="Give it a label"
        value={labels.of(dictionary, feature)}
        onChange={(event) => labels.set(dictionary, feature, event.currentTarget.value)}
      />
      <span class="soft">{labels.of(dictionary, feature) && labels.source(dictionary, feature)}</span>
    </div>
  );
}

function Facts({ card }) {
  const facts = [];
  if (card.density !== undefined) facts.push(["fires at", card.density ? `${percent(card.density)} of tokens` : "no token seen"]);
  if (card.largest) facts.push(["largest activation", short(card.largest)]);
  if (card.mean) facts.push(["mean where it fires", short(card.mean)]);
  if (card.stability) {
    const { fired, kept, gained, name } = card.stability;
    facts.push([`also fires under ${name}`, fired ? `${kept} of ${fired}` : "it did not fire"]);
    facts.push([`fires under ${name} alone`, `${gained}`]);
  }
  return <dl class="facts">{facts.map(([what, value]) => <div key={what}><dt>{what}</dt><dd>{value}</dd></div>)}</dl>;
}

function Logits({ title, pairs }) {
  if (!pairs?.length) return null;
  return (
    <div class="logits">
      <h3>{title}</h3>
      <ul>
        {pairs.map(([token, value], i) => (
          <li key={i}><code>{visible(token)}</code><span class="number soft">{value === null ? "" : short(value)}</span></li>
        ))}
      </ul>
    </div>
  );
}

function Examples({ card }) {
  const bands = card.bands ?? [["top", card.examples.length]];
  const [band, setBand] = useState(0);
  if (!card.examples.length) return <p class="soft">No example of it was kept.</p>;
  const begin = bands.slice(0, band).reduce((sum, [, n]) => sum + n, 0);
  const shown = card.examples.slice(begin, begin + bands[band][1]);
  return (
    <div>
      <div class="tabs" role="group" aria-label="Which examples">
        {bands.map(([name, n], i) => n > 0 && (
          <button key={name} class="button" aria-pressed={i === band} onClick={() => setBand(i)}>{name}</button>
        ))}
      </div>
      <ol class="examples">
        {shown.map((example, i) => <Example key={begin + i} example={example} largest={card.largest} />)}
      </ol>
    </div>
  );
}

export function Example({ example: { t: tokens, a: steps, p: peak }, largest }) {
  return (
    <li class="example">
      <span class="value">{short((steps[peak] / 255) * largest)}</span>
      <span>
        {tokens.map((token, i) => (
          <span
            key={i} class={i === peak ? "tok peak" : "tok"} style={{ background: heat(steps[i] / 255) }}
            title={steps[i] ? `${visible(token)}: ${short((steps[i] / 255) * largest)}` : undefined}
          >{visible(token)}</span>
        ))}
      </span>
    </li>
  );
}
