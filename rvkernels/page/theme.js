// Follows the system, or what the reader chose; runs before the page is drawn, so that it does not flash.
const theme = {
  // A page within another one, as in Snakemake's report, may be refused what the browser keeps: the choice ends with it.
  kept(call) { try { return call(localStorage); } catch { return null; } },
  get chosen() { return document.documentElement.dataset.theme ?? "system"; },
  set chosen(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.kept((storage) => storage.setItem("rvkernels-theme", name));
    theme.tell();
  },
  get dark() { return theme.chosen === "system" ? theme.system.matches : theme.chosen === "dark"; },
  system: matchMedia("(prefers-color-scheme: dark)"),
  tell() { document.dispatchEvent(new Event("theme")); },
  // A colour of the page's style, as the browser computes it.
  color(name) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(--${name})`;
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  },
};
theme.chosen = theme.kept((storage) => storage.getItem("rvkernels-theme")) ?? "system";
theme.system.addEventListener("change", theme.tell);
document.addEventListener("DOMContentLoaded", () => {
  const choice = document.querySelector(".theme select");
  choice.closest("label").hidden = false;
  choice.value = theme.chosen;
  choice.addEventListener("change", () => { theme.chosen = choice.value; });
});
