// Interactive figures start when they come near: the page opens without them, prints without them, and shows the drawn
// figure where there is no script. Their numbers are the figure's own table.
const charts = {
  started: new Map(),
  load() {
    if (window.vegaEmbed) return;
    const script = document.createElement("script");
    script.textContent = `(() => {${document.getElementById("vega").textContent}})();`;
    document.head.append(script);
  },
  options() {
    const [ink, axis, grid] = ["ink", "axis", "grid"].map(theme.color);
    const font = getComputedStyle(document.body).fontFamily;
    return {
      actions: false,
      renderer: "canvas",
      tooltip: { theme: theme.dark ? "dark" : "light" },
      config: {
        background: null, font, aria: false,
        view: { stroke: null },
        axis: { labelColor: axis, titleColor: axis, domainColor: axis, tickColor: axis, gridColor: grid, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12, labelLimit: 200 },
        legend: { symbolFillColor: axis, symbolStrokeColor: axis, labelColor: axis, titleColor: axis, labelFontSize: 12, titleFontSize: 12 },
        rule: { color: ink },
      },
    };
  },
  async draw(figure) {
    const state = charts.started.get(figure);
    state.views.forEach((view) => view.finalize());
    const options = charts.options();
    state.views = await Promise.all(state.places.map(async (place, i) => {
      const spec = { ...state.specs[i].spec, data: { values: state.rows, format: { type: "csv", parse: state.types } } };
      return (await vegaEmbed(place, spec, options)).view;
    }));
    charts.hide(state);
  },
  hide(state) {
    state.views.forEach((view) => view.signal("hidden", [...state.hidden]).runAsync());
  },
  async start(figure) {
    const box = figure.querySelector(".live");
    const { charts: specs, types } = JSON.parse(figure.querySelector("script.specs").textContent);
    charts.load();
    const rows = figure.querySelector("script.rows").textContent;
    const state = { specs, types, rows, hidden: new Set(), views: [], places: [] };
    charts.started.set(figure, state);
    box.append(...charts.legend(state));
    const grid = box.appendChild(document.createElement("div"));
    grid.className = "charts";
    for (const { title } of specs) {
      const cell = grid.appendChild(document.createElement("div"));
      const head = cell.appendChild(document.createElement("p"));
      head.textContent = title;
      state.places.push(cell.appendChild(document.createElement("div")));
    }
    figure.classList.add("started");
    await charts.draw(figure);
  },
  legend(state) {
    const scale = state.specs[0].spec.layer[0].encoding.color.scale;
    if (scale.domain.length < 2) return [];
    const group = document.createElement("div");
    group.className = "legend";
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Shown");
    for (const name of scale.domain) {
      const button = group.appendChild(document.createElement("button"));
      button.type = "button";
      button.className = "plain";
      button.setAttribute("aria-pressed", "true");
      const swatch = button.appendChild(document.createElement("i"));
      swatch.style.setProperty("--c", scale.range[scale.domain.indexOf(name)]);
      button.append(name);
      button.addEventListener("click", () => {
        if (!state.hidden.delete(name)) state.hidden.add(name);
        button.setAttribute("aria-pressed", String(!state.hidden.has(name)));
        charts.hide(state);
      });
    }
    return [group];
  },
};
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    charts.start(target);
  }
}, { rootMargin: "300px 0px" });
for (const script of document.querySelectorAll("script.specs")) near.observe(script.closest("figure"));
document.addEventListener("theme", () => charts.started.forEach((_, figure) => charts.draw(figure)));
