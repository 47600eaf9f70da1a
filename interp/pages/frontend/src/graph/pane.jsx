// One graph on a canvas: zoomed and moved by wheel, fingers and keys.
import { select } from "d3-selection";
import { zoom, zoomIdentity } from "d3-zoom";
import { useEffect, useRef } from "preact/hooks";
import { draw, palette } from "./draw.js";
import { named, neighbour } from "./model.js";

const REACH = 14, MARGIN = 56, REST = 150;

export function Pane({ graph, view, title, followed, onMove, onSelect, onPin }) {
  const canvas = useRef(null);
  const latest = useRef({});
  Object.assign(latest.current, { graph, view, onMove });

  useEffect(() => {
    const element = canvas.current;
    const state = latest.current;
    const context = element.getContext("2d");
    let asked = 0;
    state.paint = () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        const begun = performance.now();
        const size = { width: element.clientWidth, height: element.clientHeight };
        const ratio = devicePixelRatio || 1;
        if (element.width !== size.width * ratio || element.height !== size.height * ratio) {
          element.width = size.width * ratio;
          element.height = size.height * ratio;
        }
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        draw(context, state.graph, { ...state.view, hovered: state.hovered, inMotion: state.inMotion }, state.moved, size, palette(element.parentElement));
        element.dataset.frames = Number(element.dataset.frames ?? 0) + 1;
        element.dataset.milliseconds = performance.now() - begun;
      });
    };
    const zooming = zoom().scaleExtent([0.05, 6]).on("zoom", ({ transform, sourceEvent }) => {
      state.moved = transform;
      if (sourceEvent && !state.follows) {
        state.onMove(transform);
        state.inMotion = true;
        clearTimeout(state.rests);
        state.rests = setTimeout(() => { state.inMotion = false; state.paint(); }, REST);
      }
      state.paint();
    });
    const selection = select(element).call(zooming).on("dblclick.zoom", null);
    state.zooming = (change) => {
      state.follows = true; // in the middle of a gesture, d3 reports this as part of it
      selection.call(zooming.transform, change);
      state.follows = false;
    };
    const fit = () => {
      const scale = Math.min((element.clientWidth - MARGIN - 12) / graph.width, (element.clientHeight - 40) / graph.height, 2);
      const left = MARGIN + (element.clientWidth - MARGIN - graph.width * scale) / 2, top = (element.clientHeight - 20 - graph.height * scale) / 2;
      return zoomIdentity.translate(left, Math.max(8, top)).scale(scale);
    };
    state.fit = () => { state.zooming(fit()); state.onMove(state.moved); };
    state.zooming(followed ?? fit());
    const resized = new ResizeObserver(() => state.paint());
    resized.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", state.paint);
    return () => {
      clearTimeout(state.rests);
      resized.disconnect();
      scheme.removeEventListener("change", state.paint);
      cancelAnimationFrame(asked);
    };
  }, [graph]);

  useEffect(() => {
    const state = latest.current;
    if (followed && followed !== state.moved) state.zooming(followed);
    state.paint();
  });

  const under = (event) => {
    const { moved: t } = latest.current;
    const box = canvas.current.getBoundingClientRect();
    const x = (event.clientX - box.left - t.x) / t.k, y = (event.clientY - box.top - t.y) / t.k;
    const shown = view.shown;
    const found = graph.tree.find(x, y, REACH / t.k);
    return found && shown.has(found) ? found : null;
  };
  const keyed = (event) => {
    if (event.key === "Escape") return onSelect(null);
    if (event.key === "0") return latest.current.fit();
    if (event.key === "Enter" && view.selected) return onPin(view.selected);
    if (!event.key.startsWith("Arrow")) return undefined;
    event.preventDefault();
    const from = view.selected ?? graph.nodes.findLast((node) => view.shown.has(node));
    const to = view.selected ? neighbour(from, view.shown, event.key) : from;
    return to && onSelect(to);
  };
  return (
    <figure class="graph">
      <canvas
        ref={canvas} tabIndex="0" role="application" onKeyDown={keyed}
        aria-label={`${title}: ${graph.nodes.length} nodes. Arrow keys go from node to node, Enter pins, 0 shows all.`}
        onMouseMove={(event) => {
          const found = under(event);
          if (found === latest.current.hovered) return;
          latest.current.hovered = found;
          canvas.current.title = found ? named(found, view.labels) : "";
          latest.current.paint();
        }}
        onMouseLeave={() => { latest.current.hovered = null; latest.current.paint(); }}
        onClick={(event) => onSelect(under(event))}
      />
      
    </figure>
  );
}
