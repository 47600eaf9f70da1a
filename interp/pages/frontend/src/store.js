// Cards of features: out of the page's compressed shards, each read when first needed, or from Python.

export async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

export function createStore(data, readShard, channel) {
  const shards = new Map();
  const asked = new Map();

  function replace(other, texts) {
    data = other;
    readShard = (n) => texts[n];
    shards.clear();
  }

  function shard(n) {
    if (!shards.has(n)) shards.set(n, unpack(readShard(n)));
    return shards.get(n);
  }

  async function card(dictionary, feature) {
    const { ids, first_shard: first, shard_size: size } = data.dictionaries[dictionary];
    const at = ids ? ids.indexOf(feature) : feature;
    if (at >= 0) return (await shard(first + Math.floor(at / size)))[at % size];
    if (!channel) return { id: feature, examples: [], promoted: [], suppressed: [] };
    const key = `${dictionary}/${feature}`;
    if (!asked.has(key)) asked.set(key, ask(channel, { kind: "card", dictionary, feature }));
    return asked.get(key);
  }

  return { shard, card, replace, index: (n) => shard(data.dictionaries[n].index_shard) };
}

async function ask(channel, request) {
  let found = null;
  await channel.ask(request, (event) => (found = event.card));
  return found;
}
