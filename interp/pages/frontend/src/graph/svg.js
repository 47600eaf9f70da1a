// The part of a canvas's methods that draw.js uses, as an SVG document.
const escape = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const at = (x) => +x.toFixed(2);

export function createSvg({ width, height }) {
  const parts = [];
  let path = "";
  const opacity = (c) => (c.globalAlpha === 1 ? "" : ` opacity="${c.globalAlpha}"`);
  return {
    globalAlpha: 1,
    fillRect(x, y, w, h) {
      parts.push(`<rect x="${at(x)}" y="${at(y)}" width="${at(w)}" height="${at(h)}" fill="${this.fillStyle}"${opacity(this)}/>`);
    },
    fillText(text, x, y) {
      const anchor = { left: "start", center: "middle" }[this.textAlign];
      const bold = this.font.startsWith("600") ? ' font-weight="600"' : "";
      parts.push(`<text x="${at(x)}" y="${at(y)}" fill="${this.fillStyle}" text-anchor="${anchor}" font-family="sans-serif" font-size="12"${bold}>${escape(text)}</text>`);
    },
    beginPath: () => (path = ""),
    moveTo: (x, y) => (path += `M${at(x)} ${at(y)}`),
    lineTo: (x, y) => (path += `L${at(x)} ${at(y)}`),
    rect: (x, y, w, h) => (path += `M${at(x)} ${at(y)}h${at(w)}v${at(h)}h${at(-w)}z`),
    arc: (x, y, r) => (path += `M${at(x + r)} ${at(y)}A${r} ${r} 0 1 1 ${at(x - r)} ${at(y)}A${r} ${r} 0 1 1 ${at(x + r)} ${at(y)}`),
    closePath: () => (path += "Z"),
    fill() {
      if (path) parts.push(`<path d="${path}" fill="${this.fillStyle}"${opacity(this)}/>`);
    },
    stroke() {
      if (path) parts.push(`<path d="${path}" fill="none" stroke="${this.strokeStyle}" stroke-width="${at(this.lineWidth)}"${opacity(this)}/>`);
    },
    document: () => `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${parts.join("")}</svg>`,
  };
}
