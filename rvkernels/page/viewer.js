// Pictures of one place in a window of their own: zoomed and moved together, by wheel, drag, two fingers or keys.
const viewer = {
  dialog: document.querySelector("dialog"),
  box: [0, 0, 1, 1],
  whole: [0, 0, 1, 1],
  pictures: [],
  open(title, panels) {
    const place = viewer.dialog.querySelector(".panels");
    place.replaceChildren(...panels.map(({ svg, text }) => {
      const figure = document.createElement("figure");
      figure.className = "panel";
      const copy = figure.appendChild(svg.cloneNode(true));
      copy.querySelectorAll("[id]").forEach((element) => { if (element.localName === "image") element.removeAttribute("id"); });
      if (text) figure.appendChild(document.createElement("figcaption")).textContent = text;
      return figure;
    }));
    viewer.dialog.querySelector("strong").textContent = title;
    viewer.pictures = [...place.querySelectorAll("svg[viewBox]")];
    viewer.whole = viewer.pictures[0].getAttribute("viewBox").split(" ").map(Number);
    viewer.pictures.forEach(viewer.listen);
    viewer.show(viewer.whole);
    viewer.dialog.showModal();
  },
  show(box) {
    const [, , width, height] = viewer.whole;
    const w = Math.min(box[2], width);
    const h = (w * height) / width;
    viewer.box = [Math.min(Math.max(box[0], 0), width - w), Math.min(Math.max(box[1], 0), height - h), w, h];
    viewer.pictures.forEach((svg) => svg.setAttribute("viewBox", viewer.box.join(" ")));
  },
  // `factor` times as much of the scene, around a point given as shares of the picture.
  zoom(factor, u = 0.5, v = 0.5) {
    const [x, y, w, h] = viewer.box;
    const wide = Math.max(w * factor, viewer.whole[2] / 40);
    const high = (wide * h) / w;
    viewer.show([x + u * (w - wide), y + v * (h - high), wide, high]);
  },
  move(dx, dy) {
    const [x, y, w, h] = viewer.box;
    viewer.show([x + dx * w, y + dy * h, w, h]);
  },
  listen(svg) {
    const held = new Map();
    const share = (event) => {
      const { left, top, width, height } = svg.getBoundingClientRect();
      return [(event.clientX - left) / width, (event.clientY - top) / height];
    };
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      viewer.zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, ...share(event));
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      held.set(event.pointerId, share(event));
    });
    svg.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      const now = share(event);
      if (held.size === 2) {
        const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
        viewer.zoom(apart(before) / Math.max(apart(now), 0.01), ...other);
      } else {
        viewer.move(before[0] - now[0], before[1] - now[1]);
      }
      held.set(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, (event) => held.delete(event.pointerId));
  },
};
viewer.dialog.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  if (event.key in moves) viewer.move(...moves[event.key]);
  else if (event.key === "+" || event.key === "=") viewer.zoom(0.7);
  else if (event.key === "-") viewer.zoom(1 / 0.7);
  else if (event.key === "0") viewer.show(viewer.whole);
  else return;
  event.preventDefault();
});
for (const button of viewer.dialog.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => (button.dataset.zoom === "0" ? viewer.show(viewer.whole) : viewer.zoom(Number(button.dataset.zoom))));
}
viewer.dialog.querySelector(".close").addEventListener("click", () => viewer.dialog.close());
for (const place of document.querySelectorAll(".place")) {
  const panels = [...place.querySelectorAll(".panel")].map((figure) => ({
    svg: figure.querySelector("svg"),
    text: figure.querySelector("figcaption")?.textContent,
  }));
  const open = () => viewer.open(place.getAttribute("aria-label"), panels);
  const button = place.querySelector(".enlarge");
  button.hidden = false;
  button.addEventListener("click", open);
  panels.forEach(({ svg }) => svg.addEventListener("click", open));
}
