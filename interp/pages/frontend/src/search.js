// Finds features by number, token or text: a scan of every feature's texts, so that whatever is typed
// is found, inside a word too. Matches in labels come first, then tokens, then texts.

const fold = (text) => text.toLowerCase().normalize("NFC");

export function createSearch(index) {
  const n = index.density.length;
  const texts = index.texts.map(fold);
  const tokens = index.about.map((found) => found.flat().map(fold));

  return function search(query, labelOf) {
    const wanted = fold(query);
    if (!wanted.trim()) return [...index.by_density];
    const score = new Float64Array(n);
    for (let f = 0; f < n; f++) {
      const label = fold(labelOf(f));
      if (label && label.includes(wanted.trim())) score[f] += 100;
      const found = tokens[f];
      const at = found.indexOf(wanted.trim());
      if (at >= 0) score[f] += 40 - at;
      if (texts[f].includes(wanted)) score[f] += 1;
    }
    if (/^\d+$/.test(query.trim()) && Number(query) < n) score[Number(query)] += 1000;
    const hits = [];
    for (let f = 0; f < n; f++) if (score[f] > 0) hits.push(f);
    return hits.sort((a, b) => score[b] - score[a] || index.density[b] - index.density[a] || a - b);
  };
}
