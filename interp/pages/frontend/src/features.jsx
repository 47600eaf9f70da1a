// A whole dictionary: search, and the page of each feature.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Card } from "./card.jsx";
import { createLabels } from "./labels.js";
import { createSearch } from "./search.js";
import { percent, save, Words } from "./words.jsx";

const SHOWN = 60;

const fromAddress = () => {
  const found = /feature=(\d+)/.exec(location.hash);
  return found ? Number(found[1]) : null;
};

export function FeaturesView({ data, store }) {
  const dictionary = data.dictionaries[0];
  const labels = useMemo(() => createLabels(data), []);
  const [index, setIndex] = useState(null);
  const [query, setQuery] = useState("");
  const [shown, setShown] = useState(SHOWN);
  const [feature, setFeature] = useState(fromAddress);
  useEffect(() => {
    store.index(0).then(setIndex);
    const follow = () => setFeature(fromAddress());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const search = useMemo(() => index && createSearch(index), [index]);
  const [hits, took] = useMemo(() => {
    if (!search) return [[], 0];
    const begun = performance.now();
    const found = search(query, (f) => labels.of(0, f));
    return [found, performance.now() - begun];
  }, [search, query]);
  const open = (f) => {
    setFeature(f);
    history.replaceState(null, "", `#feature=${f}`);
  };
  const chosen = feature !== null && feature < dictionary.d_sae ? feature : hits[0];
  return (
    <div class="page">
      <header class="head">
        <p class="brand">bitlens features</p>
        <h1>{dictionary.hook_name}</h1>
        <p class="soft">
          {data.model} · {dictionary.d_sae.toLocaleString("en")} features · {data.facts.join(" · ")}
        </p>
      </header>
      <div class="two">
        <section class="panel" aria-label="Search">
          <input
            class="field wide" type="search" aria-label="Search features" placeholder="A text, a token or a number"
            value={query} onInput={(event) => { setQuery(event.currentTarget.value); setShown(SHOWN); }}
          />
          <p class="soft" role="status" data-milliseconds={took}>
            {!index ? "reading" : query.trim() ? `${hits.length.toLocaleString("en")} features` : "the most frequent first"}
          </p>
          <ul class="list hits">
            {hits.slice(0, shown).map((f) => (
              <li key={f}>
                <button class="entry" aria-pressed={f === chosen} aria-label={`Feature ${f}`} onClick={() => open(f)}>
                  <span class="id">{f}</span>
                  <Words label={labels.of(0, f)} about={index.about[f]} />
                  <span class="number">{percent(index.density[f])}</span>
                </button>
              </li>
            ))}
          </ul>
          {hits.length > shown && <button class="button" onClick={() => setShown(shown + SHOWN)}>More</button>}
          {labels.count() > 0 && <button class="button" onClick={() => save("labels.json", labels.file(), "application/json")}>Save labels</button>}
        </section>
        {chosen !== undefined && <Card data={data} store={store} labels={labels} dictionary={0} feature={chosen} onFeature={open} />}
      </div>
    </div>
  );
}
