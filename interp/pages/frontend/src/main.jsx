// Starts a view: by itself in a page that carries its data, or as an anywidget in a notebook.
import { render as draw } from "preact";
import { createStore } from "./store.js";
import { FeaturesView } from "./features.jsx";
import { GraphView } from "./graph/view.jsx";
import { PromptView } from "./prompt/view.jsx";
import { serverChannel, widgetChannel } from "./channel.js";
import { followTheme } from "./theme.js";

const VIEWS = { prompt: PromptView, features: FeaturesView, graph: GraphView };

function start(element, data, readShard, channel) {
  const View = VIEWS[data.view];
  element.classList.add("bitlens");
  element.replaceChildren();
  const unfollow = followTheme(element);
  draw(<View data={data} store={createStore(data, readShard, channel)} channel={channel} />, element);
  return () => {
    unfollow();
    draw(null, element);
  };
}

const root = document.getElementById("bitlens-page");
if (root) {
  const data = JSON.parse(document.getElementById("bitlens-data").textContent);
  const readShard = (n) => document.getElementById(`bitlens-shard-${n}`).textContent;
  start(root, data, readShard, data.live ? serverChannel() : null);
}

export default {
  render({ model, el }) {
    const shards = model.get("shards");
    const style = document.createElement("style");
    style.textContent = model.get("style");
    const element = document.createElement("div");
    el.append(style, element);
    return start(element, JSON.parse(model.get("data")), (n) => shards[n], widgetChannel(model));
  },
};
