// In the frame of a brain viewer, around nilearn's own scripts. The page sets window.start = {at, opacity} before this.
(() => {
  const start = window.start ?? {};
  const tell = (at) => parent.postMessage({viewerAt: at}, "*");
  let setOpacity = () => {};
  const context = HTMLCanvasElement.prototype.getContext; // both libraries read pixels back; told so, browsers do not warn
  HTMLCanvasElement.prototype.getContext = function (kind, settings) {
    return context.call(this, kind, kind === "2d" ? {willReadFrequently: true, ...settings} : settings);
  };
  addEventListener("message", (event) => { if (event.data && "opacity" in event.data) setOpacity(event.data.opacity); });

  const volume = () => { // brainsprite(settings) draws slices
    const draw = window.brainsprite;
    window.brainsprite = (settings) => {
      if (start.at) settings.numSlice = start.at;
      settings.colorCrosshair = "#5b6068";
      settings.overlay.opacity = start.opacity ?? 1;
      const brain = draw(settings);
      setOpacity = (value) => { brain.overlay.opacity = value; brain.init(); brain.drawAll(); };
      const measure = () => parent.postMessage({viewerHeight: brain.canvas.getBoundingClientRect().bottom + 4}, "*");
      new ResizeObserver(measure).observe(brain.canvas); // also when the window gets wider or narrower
      for (const kind of ["click", "touchend", "mouseup"]) addEventListener(kind, () => tell({...brain.numSlice}));
      return brain;
    };
  };

  const surface = () => { // plotly draws surfaceMapInfo into #surface-plot
    const plot = document.getElementById("surface-plot");
    const info = window.surfaceMapInfo.inflated_both;
    const over = window.surfaceMapInfo.vertexcolor_both;
    const mixed = (share) => over.map((colour, place) => {
      const [a, b] = [window.underlay[place], colour].map((text) => parseInt(text.slice(1, 7), 16));
      const mix = (shift) => Math.round(((a >> shift) & 255) * (1 - share) + ((b >> shift) & 255) * share);
      return `rgb(${mix(16)},${mix(8)},${mix(0)})`;
    });
    setOpacity = (value) => Plotly.restyle(plot, {vertexcolor: [mixed(value)]}, [0]);
    const range = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    const [left, right] = range(info.x), [behind, front] = range(info.y), [low, high] = range(info.z);
    const letter = (text, x) => ({text, x, y: (behind + front) / 2, z: low - 0.08 * (high - low), showarrow: false, font: {size: 18, color: "#1f2428"}});
    const letters = [letter("L", left), letter("R", right)];
    const fromTheSide = () => { // where L and R would lie behind each other
      const {x, y, z} = plot.layout.scene.camera?.eye ?? {x: 0, y: 1, z: 0};
      return Math.abs(x) > 0.8 * Math.hypot(x, y, z);
    };
    const keep = () => {
      const wanted = fromTheSide() ? [] : letters;
      if ((plot.layout.scene.annotations ?? []).length !== wanted.length) Plotly.relayout(plot, {"scene.annotations": wanted});
    };
    plot.on("plotly_relayout", () => { keep(); tell(plot.layout.scene.camera); });
    const view = document.getElementById("select-view");
    if (start.at) { view.value = "custom"; Plotly.relayout(plot, {"scene.camera": start.at}); }
    else { view.value = "back"; view.dispatchEvent(new Event("change")); }
    keep();
    if ((start.opacity ?? 1) < 1) setOpacity(start.opacity);
  };

  window.wrapBrainsprite = volume; // called where brainsprite is there and has not drawn yet
  const wait = () => (document.querySelector("#surface-plot .main-svg") && window.surfaceMapInfo.inflated_both.x ? surface() : setTimeout(wait, 40));
  addEventListener("load", () => { if (document.getElementById("surface-plot")) wait(); });
})();
