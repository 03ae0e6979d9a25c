// Columns of score tables sort by a button in their head; without scripts the tables stand as they are.
for (const table of document.querySelectorAll("table.scores, table.published")) {
  const number = (cell) => {
    const found = (cell?.firstChild?.textContent ?? "").replaceAll("\u2212", "-").replaceAll(",", "").match(/-?\d+(\.\d+)?/);
    return found ? Number(found[0]) : -Infinity;
  };
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.textContent = "\u2195";
    button.setAttribute("aria-label", `sort by ${head.firstChild?.textContent.trim() ?? "this column"}`);
    button.addEventListener("click", () => {
      const downwards = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [row, row.cells[place]]);
      const byText = !head.classList.contains("number");
      rows.sort(([, one], [, other]) => {
        const order = byText ? (one?.textContent ?? "").localeCompare(other?.textContent ?? "") : number(one) - number(other);
        return downwards !== byText ? -order : order;
      });
      body.append(...rows.map(([row]) => row));
    });
    head.append(button);
  });
}

// Views of a brain: unpacked where they come into sight; without scripts, or in a browser that cannot unpack, they stay hidden.
for (const viewer of "DecompressionStream" in window ? document.querySelectorAll(".viewer") : []) {
  const keys = viewer.querySelectorAll(".key-of-layer"), opacity = viewer.querySelector("[type=range]");
  const place = viewer.querySelector(".frame"), start = {at: null, opacity: 1};
  let frame, unpacked;
  const unpack = () => {
    const packed = Uint8Array.from(atob(document.getElementById(viewer.dataset.packed).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const show = async () => {
    const number = Number(viewer.querySelector("[type=radio]:checked").value);
    keys.forEach((key, one) => { key.hidden = one !== number; });
    const {parts, layers} = await (unpacked ??= unpack());
    const state = ["<", "script>window.start = ", JSON.stringify(start), "</", "script>"].join("");
    frame?.remove();
    frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts");
    frame.title = `Interactive view: ${viewer.querySelector("[type=radio]:checked").parentElement.textContent.trim()}`;
    frame.srcdoc = layers[number].map((part) => part === null ? state : typeof part === "number" ? parts[part] : part).join("");
    place.append(frame);
  };
  viewer.addEventListener("change", (event) => { if (event.target.type === "radio") show(); });
  opacity.addEventListener("input", () => {
    start.opacity = opacity.value / 100;
    frame?.contentWindow.postMessage({opacity: start.opacity}, "*");
  });
  addEventListener("message", (event) => {
    if (!frame || event.source !== frame.contentWindow) return;
    if (event.data?.viewerAt) start.at = event.data.viewerAt;
    if (event.data?.viewerHeight > 40) frame.style.height = `${event.data.viewerHeight}px`;
  });
  viewer.hidden = false;
  new IntersectionObserver((seen, watch) => {
    if (seen.some((one) => one.isIntersecting)) { watch.disconnect(); show(); }
  }, {rootMargin: "600px"}).observe(viewer);
}
