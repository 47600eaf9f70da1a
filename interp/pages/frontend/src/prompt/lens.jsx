// What each layer would say next: a row a layer, a column a token, the last layer on top.
import { heat, percent, visible } from "../words.jsx";

export function Lens({ tokens, lens }) {
  const last = lens.rows.length - 1;
  return (
    <section class="panel" aria-label={lens.name}>
      <h2>{lens.name}</h2>
      <p class="soft">{lens.about}</p>
      <div class="scroll">
        <table class="lens">
          <thead><tr><th />{tokens.map((token, i) => <th key={i} scope="col">{visible(token)}</th>)}</tr></thead>
          <tbody>
            {lens.rows.map((_, at) => {
              const row = lens.rows[last - at];
              return (
                <tr key={row.name}>
                  <th scope="row">{row.name}</th>
                  {row.top.map(([token, p], i) => (
                    <td key={i} class={token === lens.rows[last].top[i][0] ? "same" : ""} title={`${visible(token)} ${percent(p)}`}
                      style={{ background: heat(p * 0.6, "var(--a)") }}>{visible(token)}</td>
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}
