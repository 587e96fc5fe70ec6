// Corrections on the page of `aftermap view`: drawn, marked, deleted and undone; each is saved at once, with name and time, and
// nothing is ever lost. All that can be done with a pointer can be done with keys: a cross marks the middle of the map, Space clicks
// there.
const $ = (id) => document.getElementById(id);
const LABELS = { hazard: "hazard", not_hazard: "not hazard" };
const TOOLS = {
  hazard: "Click the corners of what is hazard; Enter or a double click closes the polygon, Backspace takes a corner back, Escape ends.",
  not_hazard: "Click the corners of what is not hazard; Enter or a double click closes the polygon, Backspace takes a corner back, Escape ends.",
  delete: "Click a correction to delete it, or a polygon of the map to mark it as not hazard. Escape ends.",
};
const COLOUR = ["match", ["get", "kind"], "hazard", "#ffd400", "#ffffff"];
const UNSIGNED = "First say your name: every correction is signed.";
const EVERY_MS = 5000;
const NOTHING = { type: "FeatureCollection", features: [] };
export const WORDS = { hazard: "Corrected: hazard", not_hazard: "Corrected: not hazard" };

/** What the page is told of what stands, and what is being drawn; `page` is {map, ask, element, near, current}, its map once it is there. */
export function correcting(page) {
  let known = { revision: 0, standing: NOTHING, open: [] }, tool = null, corners = [], pointer = null, busy = false, turn = 0;

  const sources = () => ({ correction: { type: "geojson", data: known.standing }, drawing: { type: "geojson", data: drawing() } });

  function layers() {
    const only = (key) => ["==", ["get", "kind"], LABELS[key]];
    const line = (id, filter, paint, source = "correction") => ({ id, type: "line", source, ...(filter ? { filter } : {}), layout: { "line-join": "round" }, paint });
    return [
      { id: "f-hazard", type: "fill", source: "correction", filter: only("hazard"), paint: { "fill-color": "#ffd400", "fill-opacity": 0.3 } },
      { id: "f-not_hazard", type: "fill", source: "correction", filter: only("not_hazard"), paint: { "fill-pattern": "hatch" } },
      line("c-correction", null, { "line-color": "#111111", "line-width": 5 }),
      line("l-hazard", only("hazard"), { "line-color": "#ffd400", "line-width": 2.5 }),
      line("l-not_hazard", only("not_hazard"), { "line-color": "#ffffff", "line-width": 2.5, "line-dasharray": [2, 1.5] }),
      line("lit-correction", ["==", ["get", "id"], ""], { "line-color": "#ff00c8", "line-width": 5 }),
      line("c-drawing", null, { "line-color": "#111111", "line-width": 5 }, "drawing"),
      line("l-drawing", null, { "line-color": COLOUR, "line-width": 2 }, "drawing"),
      { id: "p-drawing", type: "circle", source: "drawing", filter: ["==", ["geometry-type"], "Point"], paint: { "circle-radius": 5, "circle-color": COLOUR, "circle-stroke-color": "#111111", "circle-stroke-width": 2 } },
    ];
  }

  function drawing() {
    const line = pointer && corners.length ? [...corners, pointer, corners[0]] : corners;
    const of = (type, coordinates) => ({ type: "Feature", properties: { kind: LABELS[tool] }, geometry: { type, coordinates } });
    const features = corners.map((place) => of("Point", place));
    if (line.length > 1) features.push(of("LineString", line));
    return { type: "FeatureCollection", features };
  }

  function redraw() {
    page.map().getSource("correction")?.setData(known.standing);
    page.map().getSource("drawing")?.setData(drawing());
  }

  function list() {
    const rows = known.standing.features.map(({ properties: one, geometry }) => {
      const line = page.element("li"), gone = page.element("button", "Delete", { type: "button" }), there = page.element("button", "", { type: "button", class: "there" });
      const patch = page.element("i", "", { class: one.kind === "hazard" ? "yes" : "no" });
      const lit = (id) => () => page.map().getLayer("lit-correction") && page.map().setFilter("lit-correction", ["==", ["get", "id"], id]);
      for (const name of ["pointerenter", "focusin"]) line.addEventListener(name, lit(one.id));
      for (const name of ["pointerleave", "focusout"]) line.addEventListener(name, lit(""));
      there.append(patch, `${one.revision}: ${one.kind}, ${one.size}, ${one.author}, ${one.time.slice(0, 16).replace("T", " ")} UTC`);
      gone.setAttribute("aria-label", `Delete ${one.revision}: ${one.kind}, ${one.size}, ${one.author}, ${one.time}`);
      gone.addEventListener("click", () => { lit("")(); save({ kind: "deleted", takes_back: one.id }); });
      there.addEventListener("click", () => page.map().fitBounds(bounds(geometry), { padding: 80, maxZoom: 16, animate: false }));
      line.append(there, gone);
      return line;
    });
    $("corrections").replaceChildren(...rows);
    $("corrections-none").hidden = rows.length > 0;
    $("contested").replaceChildren(...known.open.map((one) => page.element("p", `Two people disagree, so neither counts until one is deleted. ${one.words}.`, { class: "warning" })));
  }

  function bounds(geometry) {
    const places = geometry.coordinates.flat(Infinity), x = places.filter((_, k) => k % 2 === 0), y = places.filter((_, k) => k % 2);
    return [[Math.min(...x), Math.min(...y)], [Math.max(...x), Math.max(...y)]];
  }

  function take(told) {
    known = told;
    redraw();
    list();
  }

  async function load() {
    const asked = ++turn, id = page.current().id;
    const told = await page.ask(`api/maps/${id}/corrections`).catch((error) => hint(error.message));
    if (told && asked === turn && id === page.current().id && !busy && told.revision !== known.revision) take(told);
  }

  const hint = (text) => { $("correct-said").textContent = text; };

  async function save(what) {
    const author = $("author").value.trim();
    if (!author) { hint(UNSIGNED); $("author").focus(); return false; }
    if (busy) return false;
    busy = true;
    turn += 1;
    try {
      const answer = await fetch(`api/maps/${page.current().id}/corrections`, {
        method: "POST", headers: { "Content-Type": "application/json", "X-Aftermap": "1" }, body: JSON.stringify({ ...what, author, seen: known.revision }),
      });
      const told = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
      if (!answer.ok) { hint([told.error, told.repair].filter(Boolean).join("; ")); return false; }
      take(told);
      const said = { hazard: "Saved: hazard.", "not hazard": "Saved: not hazard.", deleted: "Deleted; Undo brings it back.", undone: "Undone." }[told.kind];
      hint([said, ...told.conflicts.map((words) => `Conflict: ${words}.`)].join(" "));
      return true;
    } catch { // nobody answers
      hint("Not saved: the viewer does not answer. What you drew is still here.");
      return false;
    } finally {
      busy = false;
    }
  }

  function choose(next) {
    tool = tool === next ? null : next;
    corners = [];
    pointer = null;
    for (const button of document.querySelectorAll("#tools [data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    document.body.dataset.tool = tool ?? "";
    if (tool) page.map().doubleClickZoom.disable();
    else page.map().doubleClickZoom.enable();
    hint(tool ? `${TOOLS[tool]} With keys: arrows move the map under the cross, Space is a click at the cross.` : "The tool is off.");
    redraw();
  }

  const same = (one, other) => one && Math.hypot(...["x", "y"].map((k) => page.map().project(one)[k] - page.map().project(other)[k])) < 3;

  async function close() {
    const ring = corners.filter((place, k) => !same(corners[k - 1], place));
    if (ring.length < 3) { hint("A polygon needs three corners."); return; }
    pointer = null;
    if (await save({ kind: LABELS[tool], ring })) corners = [];
    redraw();
  }

  /** A click at a place of the page; true where a tool takes it. */
  function clicked({ lngLat, point }) {
    if (!tool) return false;
    if (tool !== "delete") {
      corners.push([page.near(lngLat.lng), lngLat.lat]);
      redraw();
      return true;
    }
    const [hit] = page.map().queryRenderedFeatures(point, { layers: ["f-hazard", "f-not_hazard"] });
    save(hit ? { kind: "deleted", takes_back: hit.properties.id } : { kind: "not hazard", at: [page.near(lngLat.lng), lngLat.lat] });
    return true;
  }

  function middle() {
    const lngLat = page.map().getCenter();
    clicked({ lngLat, point: page.map().project(lngLat) });
  }

  function key(event) {
    const typing = event.target.closest("input[type=text], select, textarea");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !event.shiftKey && !typing && $("correct").open) {
      if (corners.length) { corners.pop(); redraw(); } else save({ kind: "undone" });
      event.preventDefault();
    }
    if (!tool || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = event.target.closest("button, summary, a, input");
    if (event.key === "Escape") { if (corners.length) { corners = []; redraw(); hint("The polygon is gone; the tool is still on."); } else choose(tool); }
    else if (event.key === "Backspace" && corners.length) { corners.pop(); redraw(); }
    else if (event.key === "Enter" && !button && tool !== "delete") close();
    else if (event.key === " " && !button) { document.body.dataset.cross = "yes"; middle(); event.preventDefault(); }
    else if (event.key.startsWith("Arrow")) document.body.dataset.cross = "yes";
  }

  function hatch() {
    const side = 12, pixels = new Uint8Array(side * side * 4);
    for (let y = 0; y < side; y += 1) for (let x = 0; x < side; x += 1) {
      const k = (x + y) % side;
      if (k < 4) pixels.set(k < 2 ? [255, 255, 255, 230] : [17, 17, 17, 230], 4 * (y * side + x));
    }
    if (!page.map().hasImage("hatch")) page.map().addImage("hatch", { width: side, height: side, data: pixels }, { pixelRatio: 1 });
  }

  function start() {
    try { $("author").value = localStorage.getItem("aftermap-author") ?? ""; } catch { /* a page without storage asks again */ }
    $("author").addEventListener("change", () => { try { localStorage.setItem("aftermap-author", $("author").value.trim()); } catch { /* as above */ } });
    $("author").addEventListener("input", () => { if ($("correct-said").textContent === UNSIGNED) hint(""); });
    for (const button of document.querySelectorAll("#tools [data-tool]")) button.addEventListener("click", () => {
      if (corners.length) hint("Finish the polygon first: Enter or a double click. Escape drops it.");
      else choose(button.dataset.tool);
      if (tool) page.map().getCanvas().focus();
    });
    $("undo").addEventListener("click", () => save({ kind: "undone" }));
    $("correct").addEventListener("toggle", () => { if ($("correct").open) load(); else if (tool) choose(tool); });
    document.addEventListener("keydown", key);
    page.map().on("styledata", hatch); // before any tile asks for it: one that did draws without
    page.map().on("mousemove", ({ lngLat }) => {
      delete document.body.dataset.cross;
      if (!tool || !corners.length) return;
      pointer = [page.near(lngLat.lng), lngLat.lat];
      redraw();
    });
    page.map().on("dblclick", (event) => { if (tool && tool !== "delete") { event.preventDefault(); close(); } });
    setInterval(() => { if ($("correct").open && !document.hidden) load(); }, EVERY_MS);
  }

  /** Another map is shown. */
  function opened() {
    if (tool) choose(tool);
    known = { revision: -1, standing: NOTHING, open: [] };
    list();
    return load();
  }

  return { sources, layers, clicked, opened, start };
}
