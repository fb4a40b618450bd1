// Follows the system, or what the reader chose; runs before the page is drawn, so that it does not flash.
const theme = {
  get chosen() { return localStorage.getItem("rvkernels-theme") ?? "system"; },
  set chosen(name) { localStorage.setItem("rvkernels-theme", name); theme.apply(); },
  apply() {
    if (theme.chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.chosen;
    document.dispatchEvent(new Event("theme"));
  },
  // A colour of the page's style, as the browser computes it.
  color(name) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(--${name})`;
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  },
};
theme.apply();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme.apply);
document.addEventListener("DOMContentLoaded", () => {
  const choice = document.querySelector(".theme select");
  choice.closest("label").hidden = false;
  choice.value = theme.chosen;
  choice.addEventListener("change", () => { theme.chosen = choice.value; });
});
