// How a live page asks Python: `ask(request, onEvent)` resolves when the last event has come.

export function serverChannel() {
  const token = new URLSearchParams(location.search).get("token");
  return {
    async ask(request, onEvent, signal) {
      const headers = { "Content-Type": "application/json", "X-Bitlens-Token": token };
      const answer = await fetch("/ask", { method: "POST", headers, body: JSON.stringify(request), signal });
      if (!answer.ok) throw new Error(await answer.text());
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) deliver(JSON.parse(line), onEvent);
      }
    },
  };
}

export function widgetChannel(model) {
  let last = 0;
  return {
    ask(request, onEvent, signal) {
      const id = ++last;
      return new Promise((resolve, reject) => {
        const listen = (message) => {
          if (message.id !== id) return;
          try {
            if (message.kind === "end") finish(resolve);
            else deliver(message, onEvent);
          } catch (error) {
            finish(() => reject(error));
          }
        };
        const finish = (settle) => {
          model.off("msg:custom", listen);
          settle();
        };
        signal?.addEventListener("abort", () => {
          model.send({ kind: "stop", id });
          finish(() => reject(new DOMException("stopped", "AbortError")));
        });
        model.on("msg:custom", listen);
        model.send({ ...request, id });
      });
    },
  };
}

function deliver(event, onEvent) {
  if (event.kind === "error") throw new Error(event.message);
  onEvent(event);
}
