// Follows the notebook's theme where there is one; elsewhere the browser's preference holds.
export function followTheme(element) {
  const body = document.body;
  const read = () => {
    const light = body.dataset.jpThemeLight;
    const code = body.dataset.vscodeThemeKind;
    const dark = light ? light === "false" : code ? !code.includes("light") : null;
    if (dark === null) delete element.dataset.theme;
    else element.dataset.theme = dark ? "dark" : "light";
  };
  read();
  const observer = new MutationObserver(read);
  observer.observe(body, { attributes: true });
  return () => observer.disconnect();
}
