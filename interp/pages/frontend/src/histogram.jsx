// How strongly a feature fires where it fires, in bins that grow by a quarter of an octave.
import { short } from "./words.jsx";

const WIDTH = 260, HEIGHT = 96, FLOOR = 78;

export function Histogram({ low, ratio, counts }) {
  const most = Math.max(...counts);
  const step = WIDTH / counts.length;
  const total = counts.reduce((a, b) => a + b, 0);
  const edge = (i) => low * ratio ** i;
  return (
    <figure>
      <h3>How strongly it fires ({total.toLocaleString("en")} times)</h3>
      <svg class="plot" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Histogram of ${total} activations from ${short(edge(0))} to ${short(edge(counts.length))}`}>
        {counts.map((n, i) => n > 0 && (
          <rect key={i} class="mark" x={i * step} y={FLOOR - (n / most) * (FLOOR - 4)} width={Math.max(step - 1, 0.5)} height={(n / most) * (FLOOR - 4)}>
            <title>{`${short(edge(i))} to ${short(edge(i + 1))}: ${n}`}</title>
          </rect>
        ))}
        <line class="axis" x1="0" x2={WIDTH} y1={FLOOR} y2={FLOOR} />
        <text x="0" y={HEIGHT - 5}>{short(edge(0))}</text>
        <text x={WIDTH / 2} y={HEIGHT - 5} text-anchor="middle">activation, logarithmic</text>
        <text x={WIDTH} y={HEIGHT - 5} text-anchor="end">{short(edge(counts.length))}</text>
      </svg>
    </figure>
  );
}
