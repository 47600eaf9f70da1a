// What the user calls features: kept by the browser where it keeps anything, and saved as a file.
import { signal } from "@preact/signals";

export function createLabels(data) {
  const key = `bitlens labels ${data.model} ${data.dictionaries.map((d) => d.hook_name).join(" ")}`;
  const written = signal(read(key));

  const name = (dictionary, feature) => `${data.dictionaries[dictionary].hook_name}/${feature}`;
  const imported = (dictionary, feature) => data.dictionaries[dictionary].labels?.[feature];
  return {
    of: (dictionary, feature) => written.value[name(dictionary, feature)] ?? imported(dictionary, feature)?.text ?? "",
    source: (dictionary, feature) =>
      written.value[name(dictionary, feature)] !== undefined ? "written here" : imported(dictionary, feature)?.source,
    set(dictionary, feature, text) {
      written.value = { ...written.value, [name(dictionary, feature)]: text };
      keep(key, written.value);
    },
    count: () => Object.keys(written.value).length,
    file() {
      const found = data.dictionaries.map(({ hook_name }) => {
        const mine = Object.entries(written.value).filter(([k]) => k.startsWith(`${hook_name}/`));
        return [hook_name, Object.fromEntries(mine.map(([k, text]) => [k.slice(hook_name.length + 1), text]))];
      });
      return JSON.stringify(Object.fromEntries(found), null, 1);
    },
  };
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {}; // a sandboxed frame has no storage
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // as above; "Save labels" keeps them
  }
}
