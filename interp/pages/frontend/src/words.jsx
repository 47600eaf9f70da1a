// Tokens, features and numbers as they are written.

export const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥");

export const short = (x) => (x === 0 ? "0" : Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) >= 1 ? x.toFixed(1) : x.toPrecision(2));

export const percent = (x) => (x === 0 ? "0%" : x < 0.0001 ? `${(x * 100).toPrecision(1)}%` : `${(x * 100).toPrecision(3)}%`);

export const heat = (share, colour = "var(--heat)") =>
  share > 0 ? `color-mix(in srgb, ${colour} ${Math.round(8 + 72 * Math.min(1, share))}%, transparent)` : "";

export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = content instanceof Blob ? URL.createObjectURL(content) : URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function Code({ text, name = "Python" }) {
  return (
    <details class="code">
      <summary>{name} that gives this</summary>
      <button class="button" onClick={() => navigator.clipboard.writeText(text)}>Copy</button>
      <pre><code>{text}</code></pre>
    </details>
  );
}

// What a feature is about in few words: its label, or the tokens that it fires on and those it promotes.
export function Words({ label, about }) {
  if (label) return <span class="words"><b>{label}</b></span>;
  const [fires, promotes] = about ?? [[], []];
  return (
    <span class="words">
      {fires.length > 0 && <code>{fires.join(" ")}</code>}{fires.length > 0 && promotes.length > 0 && " → "}{promotes.join(" · ")}
    </span>
  );
}
