// The page of `aftermap view`: a map of what was found, and under it the pictures of before and after, one clipped over the other so
// that they can be swiped; what is shown stands in the address. Everything comes from the machine that serves it.
import * as maplibregl from "./maplibre-gl.mjs";
import { correcting, WORDS as CORRECTED } from "./correct.mjs";
import { jobs } from "./jobs.mjs";

maplibregl.setWorkerUrl(new URL("maplibre-gl-worker.mjs", import.meta.url).href);
maplibregl.prewarm(); // its worker starts while the list of maps is asked for
const $ = (id) => document.getElementById(id);
const OUTLINE = { observed_event: "#00a6d6", not_analysed: "#6b7280", built_up: "#960020", priority: "#ff6000", area_of_interest: "#e61e5a", image_footprint: "#4b5560" };
const WORDS = { observed_event: "Mapped hazard", not_analysed: "Not analysed", built_up: "Buildings", priority: "Look here first", area_of_interest: "Area of interest", image_footprint: "Images", ...CORRECTED };
const NOTHING = { version: 8, transition: { duration: 0 }, sources: {}, layers: [] };
const KEYS = { e: "extent", l: "likelihood", x: "exclusion", a: "agreement", d: "density" };
const state = { map: "0", layers: ["extent"], vectors: ["area_of_interest"], threshold: null, swipe: 50 };
let maps = [], current = null, levels = null, map, correct, generation = 0, drawn = "";

const tiles = (layer, extra = "") => [`${location.origin}/api/maps/${current.id}/tiles/${layer}/{z}/{x}/{y}.png${extra}`];
const extent = () => (state.threshold === null ? tiles("extent") : tiles("likelihood", `?threshold=${state.threshold}`));
const say = (text) => { $("note").textContent = text; };
const number = (value, digits = 1) => Number(value).toLocaleString("en", { maximumFractionDigits: digits });
// A map across the antimeridian goes on past 180 degrees, and a view may be a whole turn beside it.
const beyond = () => current?.bounds[2] > 180;
const near = (lng) => lng + 360 * Math.round(((current.bounds[0] + current.bounds[2]) / 2 - lng) / 360);
const day = (stamp) => (stamp ? stamp.replace("T", " ").replace(/:\d\dZ$/, " UTC") : "");

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `${answer.status} ${answer.statusText}`);
  return answer.json();
}

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (said.has("map")) state.map = said.get("map");
  for (const key of ["layers", "vectors"]) if (said.has(key)) state[key] = said.get(key).split(",").filter(Boolean);
  for (const key of ["threshold", "swipe"]) if (said.has(key) && Number.isFinite(Number(said.get(key)))) state[key] = Number(said.get(key));
  const at = said.get("at")?.split(",").map(Number);
  return at?.length === 3 && at.every(Number.isFinite) ? at : null;
}

function writeAddress() {
  const { lng, lat } = map.getCenter();
  const said = new URLSearchParams({ map: state.map, layers: state.layers.join(","), vectors: state.vectors.join(","), swipe: Math.round(state.swipe), at: [lng.toFixed(5), lat.toFixed(5), map.getZoom().toFixed(2)].join(",") });
  if (state.threshold !== null) said.set("threshold", state.threshold);
  history.replaceState(null, "", `#${said}`);
}

function style() {
  const sources = {}, layers = [];
  for (const name of ["exclusion", "familiarity", "spread", "agreement", "likelihood", "extent"]) {
    if (!current.layers.some((one) => one.name === name)) continue;
    sources[name] = { type: "raster", tiles: name === "extent" ? extent() : tiles(name), tileSize: 512, bounds: beyond() ? [-180, current.bounds[1], 180, current.bounds[3]] : current.bounds, maxzoom: 22 };
    layers.push({ id: name, type: "raster", source: name, layout: { visibility: state.layers.includes(name) ? "visible" : "none" }, paint: { "raster-fade-duration": 0, "raster-resampling": "nearest" } });
  }
  for (const name of current.vectors) {
    sources[`v-${name}`] = { type: "geojson", data: { type: "FeatureCollection", features: [] } };
    const visibility = state.vectors.includes(name) ? "visible" : "none";
    layers.push({ id: `f-${name}`, type: "fill", source: `v-${name}`, layout: { visibility }, paint: { "fill-color": OUTLINE[name], "fill-opacity": name === "image_footprint" || name === "area_of_interest" ? 0 : 0.15 } });
    layers.push({ id: `l-${name}`, type: "line", source: `v-${name}`, layout: { visibility }, paint: { "line-color": OUTLINE[name], "line-width": 1.5 } });
  }
  return { ...NOTHING, sources: { ...sources, ...correct.sources() }, layers: [...layers, ...correct.layers()] };
}

// The first view is drawn at once: a map that begins empty draws twice.
function open(at = null) {
  const placed = at ? { center: [at[0], at[1]], zoom: at[2] } : current ? { bounds: current.bounds, fitBoundsOptions: { padding: 20 } } : {};
  map = new maplibregl.Map({
    container: "map", style: current ? style() : NOTHING, ...placed, validateStyle: false, fadeDuration: 0, attributionControl: false,
    dragRotate: false, pitchWithRotate: false, touchPitch: false, maxZoom: 20, renderWorldCopies: beyond(),
  });
  map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
  map.addControl(new maplibregl.ScaleControl({ maxWidth: 120 }), "bottom-right");
  map.on("click", popup);
  map.on("render", place);
  map.on("moveend", () => { writeAddress(); outlines(); });
  for (const picture of document.querySelectorAll(".photo img")) picture.addEventListener("load", place);
  correct.start();
  drawing();
}

function redraw() {
  map.setStyle(style(), { diff: map.isStyleLoaded(), validate: false });
  drawing();
}

function drawing() {
  if (!current) return;
  [drawn] = extent();
  map.once("styledata", outlines);
  const photo = (date) => `${location.origin}/api/maps/${current.id}/photo/${date}`;
  const left = current.photos.includes("before") ? "before" : "after";
  for (const [id, date] of [["left", left], ["right", "after"]]) {
    const picture = $(id).firstElementChild, there = current.photos.includes(date);
    picture.hidden = !there;
    if (there && picture.src !== photo(date)) picture.src = photo(date);
  }
  place();
}

// The pictures fill the bounds, in the projection of the tiles.
function place() {
  if (!current?.photos.length) return;
  const [west, south, east, north] = current.bounds, turns = map.getCenter().lng - near(map.getCenter().lng);
  const a = map.project([west + turns, north]), c = map.project([east + turns, south]);
  for (const picture of document.querySelectorAll(".photo img")) {
    if (!picture.naturalWidth) continue;
    picture.style.transform = `translate(${a.x}px, ${a.y}px) scale(${(c.x - a.x) / picture.naturalWidth}, ${(c.y - a.y) / picture.naturalHeight})`;
  }
}

async function outlines() {
  if (!current) return;
  const turn = ++generation, bounds = map.getBounds();
  const box = [bounds.getWest(), Math.max(bounds.getSouth(), -90), bounds.getEast(), Math.min(bounds.getNorth(), 90)];
  for (const name of state.vectors.filter((one) => current.vectors.includes(one))) {
    const found = await ask(`api/maps/${current.id}/outlines/${name}?bbox=${box.join(",")}`).catch((error) => say(error.message));
    if (!found || turn !== generation) return;
    map.getSource(`v-${name}`)?.setData(found);
    if (found.more) say(`${WORDS[name]}: the first ${found.features.length} of this view; zoom in for all`);
  }
}

function checks(box, names, chosen, words, change) {
  box.replaceChildren(...names.map((name) => {
    const label = element("label"), input = element("input", "", { type: "checkbox", value: name });
    input.checked = chosen.includes(name);
    input.addEventListener("change", () => change(name, input.checked));
    label.append(input, ` ${words(name)}`);
    return label;
  }));
}

function toggle(key, name, on) {
  state[key] = on ? [...new Set([...state[key], name])] : state[key].filter((one) => one !== name);
  const ids = key === "layers" ? [name] : [`f-${name}`, `l-${name}`];
  ids.filter((id) => map.getLayer(id)).forEach((id) => map.setLayoutProperty(id, "visibility", on ? "visible" : "none"));
  for (const input of document.querySelectorAll(`#${key} input`)) input.checked = state[key].includes(input.value);
  if (key === "vectors" && on) outlines();
  legend();
  writeAddress();
}

function legend() {
  const shown = current.layers.filter((one) => state.layers.includes(one.name));
  $("legend").replaceChildren(...shown.flatMap((layer) => {
    const list = element("ul");
    list.append(...layer.legend.map((row) => {
      const line = element("li"), patch = element("i");
      patch.style.background = row.colour;
      line.append(patch, row.label);
      return line;
    }));
    return [element("h3", layer.title), list];
  }));
}

function threshold(value) {
  state.threshold = value === current.threshold ? null : value;
  $("threshold").value = value;
  $("threshold-said").textContent = `${number(value, 0)} %`;
  if (extent()[0] !== drawn) map.getSource("extent")?.setTiles(extent());  // tiles that are set are asked for anew
  [drawn] = extent();
  const whole = levels ? `${number(levels[Math.min(Math.round(value), 100)])} ${current.unit}` : "";
  $("threshold-area").textContent = state.threshold === null
    ? "As delivered: with the minimum mapping unit."
    : `About ${whole} above it, before small patches are left out.`;
  writeAddress();
}

function table() {
  const head = element("tr");
  for (const [name, kind] of [["What", ""], ["", ""], ["Amount", "number"], ["% of area", "number"]]) head.append(element("th", name, kind ? { class: kind } : {}));
  const rows = current.summary.map((row) => {
    const line = element("tr");
    const what = [row.quantity.replaceAll("_", " "), row.reason].filter(Boolean).join(": ");
    const cells = [[what], [row.class ?? ""], [row.value === "" ? "" : `${number(row.value)} ${row.unit}`, "number"], [row.percent_of_aoi === "" ? "" : number(row.percent_of_aoi), "number"]];
    line.append(...cells.map(([text, kind]) => element("td", text, kind ? { class: kind } : {})));
    return line;
  });
  $("summary").replaceChildren(head, ...rows);
}

function answer() {
  if (current.answer === "not analysed") return "Could not be analysed";
  if (current.answer === "nothing found") return `No ${current.maps.split(",")[0]} found`;
  const affected = current.summary.find((row) => row.quantity === "affected_area" && !row.reason);
  return `${number(affected.value)} ${affected.unit} of ${current.maps}`;
}

async function choose(id) {
  const before = current;
  current = maps.find((one) => one.id === id) ?? maps[0];
  state.map = current.id;
  levels = null;
  $("scene").value = current.id;
  $("time").value = maps.findIndex((one) => one.id === current?.id);
  $("time-said").textContent = called(current);
  document.title = `${current.name} – aftermap`;
  $("title").textContent = current.name;
  $("subtitle").textContent = [current.hazard, day(current.before), day(current.after)].filter(Boolean).join(" · ");
  $("answer").textContent = answer();
  $("left-date").textContent = current.photos.includes("before") ? `Before ${day(current.before)}` : "";
  $("right-date").textContent = current.photos.includes("after") ? `After ${day(current.after)}` : "";
  $("divider").hidden = !current.photos.includes("before");
  document.body.dataset.placed = current.placed ? "yes" : "no";
  $("made").textContent = `${current.made_with}. A machine made this map; nobody has checked it on the ground.${current.placed ? "" : " The image has no place on this page's globe: shown in pixels."}`;
  const facts = { "Made by": current.methods["made by"], Why: current.methods.why, Likelihood: current.calibration };
  $("how").querySelector("dl").replaceChildren(...Object.entries(facts).flatMap(([key, value]) => [element("dt", key), element("dd", value)]));
  $("warnings").replaceChildren(...current.warnings.map((one) => element("p", `${one.what} What to do: ${one.repair}`, { class: "warning" })));
  checks($("layers"), current.layers.map((one) => one.name), state.layers, (name) => current.layers.find((one) => one.name === name).title, (name, on) => toggle("layers", name, on));
  checks($("vectors"), current.vectors, state.vectors, (name) => WORDS[name], (name, on) => toggle("vectors", name, on));
  table();
  legend();
  if (before !== current) redraw();
  correct.opened();
  map.setRenderWorldCopies(beyond());
  if (before?.bounds.join() !== current.bounds.join()) map.fitBounds(current.bounds, { padding: 20, animate: false });
  threshold(state.threshold ?? current.threshold);
  levels = await ask(`api/maps/${current.id}/levels`).catch(() => null);
  threshold(state.threshold ?? current.threshold);
}

function swipe(percent) {
  state.swipe = Math.min(100, Math.max(0, percent));
  $("stage").style.setProperty("--swipe", `${state.swipe}%`);
  $("divider").setAttribute("aria-valuenow", Math.round(state.swipe));
}

function popup(event) {
  if (correct.clicked(event)) return;
  const names = [...Object.keys(CORRECTED), ...current.vectors.filter((name) => state.vectors.includes(name))].map((name) => `f-${name}`).filter((id) => map.getLayer(id));
  const [hit] = map.queryRenderedFeatures(event.point, { layers: names });
  if (!hit) return;
  const list = element("dl");
  for (const [key, value] of Object.entries(hit.properties)) if (value !== null && value !== "") list.append(element("dt", key), element("dd", String(value)));
  const box = element("div");
  box.append(element("strong", WORDS[hit.layer.id.slice(2)]), list);
  new maplibregl.Popup({ maxWidth: "20em" }).setLngLat(event.lngLat).setDOMContent(box).addTo(map);
}

function wire() {
  const divider = $("divider");
  const drag = (event) => { const box = $("stage").getBoundingClientRect(); swipe(100 * (event.clientX - box.left) / box.width); };
  divider.addEventListener("pointerdown", (event) => { divider.setPointerCapture(event.pointerId); divider.addEventListener("pointermove", drag); });
  divider.addEventListener("pointerup", () => { divider.removeEventListener("pointermove", drag); writeAddress(); });
  divider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (step) { swipe(state.swipe + step); writeAddress(); event.preventDefault(); }
  });
  $("scene").addEventListener("change", () => choose($("scene").value));
  $("time").addEventListener("input", () => choose(maps[Number($("time").value)].id));
  $("threshold").addEventListener("input", () => { if (!state.layers.includes("extent")) toggle("layers", "extent", true); threshold(Number($("threshold").value)); });
  $("print").addEventListener("click", () => window.print());
  $("link").addEventListener("click", async () => {
    writeAddress();
    await navigator.clipboard?.writeText(location.href).then(() => say("The link is copied"), () => say(location.href));
  });
  $("theme").addEventListener("click", () => {
    const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    $("theme").textContent = dark ? "Dark" : "Light";
  });
  document.addEventListener("keydown", (event) => {
    if (!current || event.target.closest("select, input[type=text]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const layer = KEYS[event.key], at = maps.findIndex((one) => one.id === current?.id);
    if (layer && current.layers.some((one) => one.name === layer)) toggle("layers", layer, !state.layers.includes(layer));
    else if (event.key === "[" || event.key === "]") threshold(Math.min(99, Math.max(0, Number($("threshold").value) + (event.key === "]" ? 1 : -1))));
    else if (event.key === "," || event.key === ".") { swipe(state.swipe + (event.key === "." ? 5 : -5)); writeAddress(); }
    else if (event.key === "n" && at < maps.length - 1) choose(maps[at + 1].id);
    else if (event.key === "p" && at > 0) choose(maps[at - 1].id);
  });
}

// Maps of one image are told apart by their folder and by what made them.
function called(one) {
  const words = (own) => [own.name, day(own.after)].filter(Boolean).join(", ");
  return maps.filter((other) => words(other) === words(one)).length > 1 ? `${one.folder}: ${words(one)}, by ${one.methods["made by"]}` : words(one);
}

async function list() {
  maps = await ask("api/maps");
  document.body.dataset.empty = maps.length ? "no" : "yes";
  say(maps.length ? "" : "There is no map yet: bring images to make one.");
  $("scene").replaceChildren(...maps.map((one) => element("option", called(one), { value: one.id })));
  $("times").hidden = maps.length < 2;
  $("time").max = maps.length - 1;
}

// Maps have come or gone: shows one by its id, quietly only where none is shown yet.
async function refresh(id, quietly = false) {
  await list();
  if (!maps.length) {
    current = null;
    document.title = $("title").textContent = "aftermap";
    $("subtitle").textContent = $("made").textContent = $("left-date").textContent = $("right-date").textContent = "";
    map.setStyle(NOTHING);
    for (const picture of document.querySelectorAll(".photo img")) picture.hidden = true;
    return;
  }
  const still = maps.some((one) => one.id === current?.id);
  if (id && !(quietly && still)) await choose(id);
  else if (!still) await choose(maps[0].id);
  else { $("scene").value = current.id; $("time").value = maps.findIndex((one) => one.id === current.id); }
}

async function start() {
  const at = readAddress();
  await list();
  correct = correcting({ map: () => map, ask, element, near, current: () => current });
  current = maps.find((one) => one.id === state.map) ?? maps[0] ?? null;
  open(at);
  const seen = map.once("idle");
  swipe(state.swipe);
  wire();
  if (current) await choose(current.id);
  if ((await ask("api/offers")).jobs) await jobs($("jobs"), refresh);
  await seen;
  performance.mark("drawn");
  document.body.dataset.ready = "yes";
}

start().catch((error) => say(`The maps could not be shown: ${error.message}`));
