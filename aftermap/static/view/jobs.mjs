// The part of the page that takes images, shows what the doctor says of them, and follows the jobs. Words from files and people are
// only ever set as text.
const ROLES = { after: ["After the event", "needed"], before: ["Before the event", "optional, and better"], dem: ["Elevation model", "optional"] };
const FIELDS = { bands: ["Bands in file order (--bands)", "VV,VH"], sensor: ["Sensor (--sensor)", "sentinel-2-l2a"], unit: ["Unit (--unit)", "dB"], nodata: ["Value without data (--nodata)", "-9999"], after_date: ["Date after (--after-date)", "2024-05-13"], before_date: ["Date before (--before-date)", "2024-05-01"] };
const STAGES = { "": "Starting", prepare: "Getting ready", map: "Mapping", deliver: "Writing the products" };
const STATES = { uploaded: "not checked yet", checked: "ready to run", queued: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };
const MINE = { "X-Aftermap": "1" };
let box, open, draft = null, listed = [], limits = {}, coming = 0, timer = null, beginning = null, looked = null, again = false, notes = [];

function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

const find = (part) => box.querySelector(`[data-part="${part}"]`);
const say = (text) => { find("said").textContent = text; };
const size = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`);
const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
const told = (fault) => [fault.error ?? fault.what ?? "the viewer does not answer", fault.repair ?? (fault.error ? "" : "look whether it still runs, then try again")].filter(Boolean);

async function ask(path, method = "GET", body = null) {
  const options = { method, headers: method === "GET" ? {} : { ...MINE, ...(body ? { "Content-Type": "application/json" } : {}) } };
  const answer = await fetch(path, body ? { ...options, body: JSON.stringify(body) } : options);
  const said = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) throw said;
  return said;
}

// fetch does not tell how much it has sent.
function send(path, file, moved) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    request.setRequestHeader("X-Aftermap", "1");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => moved(event.loaded, event.total));
    request.addEventListener("load", () => (request.status === 201 ? done(request.response) : fail(request.response ?? { error: `${request.status}` })));
    request.addEventListener("error", () => fail({ error: "the upload broke off", repair: "try again" }));
    request.send(file);
  });
}

function note(fault, about = "") {
  const [what, repair] = told(fault);
  notes.push({ severity: "refuse", what: about ? `${about}: ${what}` : what, repair: repair ?? "", code: fault.code ?? "" });
  findings();
}

// Files for two roles may be dropped at once, and are of one job.
async function begin() {
  if (draft) return;
  beginning ??= ask("api/jobs", "POST").then((job) => { draft = job; }).finally(() => { beginning = null; });
  await beginning;
}

async function bring(role, files) {
  notes = [];
  try {
    await begin();
  } catch (fault) { note(fault); return; }
  for (const file of files) {
    if (file.size > limits.file_mb * 2 ** 20) { note({ error: `it is larger than ${limits.file_mb} MB`, repair: "cut it to the event" }, file.name); continue; }
    const bar = element("progress", { max: 100, value: 0, "aria-label": `Upload of ${file.name}` });
    const line = element("li", {}, element("span", { class: "name" }, file.name), bar);
    find(`files-${role}`).append(line);
    coming += 1;
    buttons();
    try {
      draft = (await send(`api/jobs/${draft.id}/files/${role}?name=${encodeURIComponent(file.name)}`, file, (some, all) => { bar.value = 100 * some / all; })).job;
      say(`${file.name} is here`);
    } catch (fault) { note(fault, file.name); }
    coming -= 1;
    line.remove();
    files_();
  }
  if (!coming) check();
}

// One look at a time; what changed meanwhile is looked at after it.
function check() {
  files_();
  again = true;
  looked ??= (async () => {
    while (again) {
      again = false;
      await look();
    }
    looked = null;
  })();
}

// Answers to uploads may come in another order than the server gave them: what the job holds is asked for.
async function look() {
  const asked = draft?.id, said = { hazard: find("hazard").value, name: find("name").value.trim() }, stale = () => again || draft?.id !== asked;
  if (!draft || coming) { findings(); return; }
  for (const name of Object.keys(FIELDS)) if (find(name).value.trim()) said[name] = find(name).value.trim();
  if (find("coregister").checked) said.coregister = "yes";
  try {
    const held = await ask(`api/jobs/${asked}`);
    if (stale()) return;
    draft = held;
    files_();
    if (draft.files.some((one) => one.role === "after")) {
      find("found").replaceChildren(element("li", { class: "busy" }, "The doctor is looking at the images …"));
      find("understood").replaceChildren();
      const job = await ask(`api/jobs/${asked}/check`, "POST", said);
      if (stale()) return;
      draft = job;
      const refused = job.findings.find((one) => one.severity === "refuse"), count = job.findings.length;
      say(refused ? `Refused: ${refused.what}` : `Ready to run${count ? `, with ${count} warning${count === 1 ? "" : "s"}` : ""}`);
    }
  } catch (fault) {
    if (draft?.id === asked) note(fault);
  }
  findings();
}

function files_() {
  for (const role of Object.keys(ROLES)) {
    const mine = (draft?.files ?? []).filter((one) => one.role === role);
    const going = [...find(`files-${role}`).children].filter((line) => line.querySelector("progress"));
    find(`files-${role}`).replaceChildren(...mine.map((one) => element("li", {},
      element("span", { class: "name" }, one.label),
      element("span", { class: "soft" }, `${one.width.toLocaleString("en")} × ${one.height.toLocaleString("en")}, ${one.bands} band${one.bands === 1 ? "" : "s"}, ${size(one.bytes)}`),
      element("button", { type: "button", "aria-label": `Remove ${one.label}, ${ROLES[role][0].toLowerCase()}`, onclick: async () => {
        notes = [];
        try { draft = await ask(`api/jobs/${draft.id}/files/${role}/${one.number}`, "DELETE"); } catch (fault) { note(fault); }
        check();
      } }, "×"))), ...going);
  }
  buttons();
}

function findings() {
  const all = [...notes, ...(draft?.findings ?? [])].sort((a, b) => (a.severity > b.severity) - (a.severity < b.severity));
  find("found").replaceChildren(...all.map((one) => element("li", { class: one.severity },
    element("strong", {}, one.severity === "refuse" ? "Refused: " : "Warning: "), sentence(one.what), one.repair ? ` What to do: ${sentence(one.repair)} ` : " ", one.code ? element("code", {}, one.code) : "")));
  find("understood").replaceChildren(...(draft?.understood ?? []).map((words) => element("li", {}, words)));
  buttons();
}

function buttons() {
  find("run").disabled = !draft || coming > 0 || draft.state !== "checked" || draft.refused;
  find("clear").hidden = !draft;
}

async function run() {
  find("run").disabled = true;
  await looked; // a click on Run may be what ends the typing of a last word
  if (!draft || draft.state !== "checked" || draft.refused) { buttons(); return; }
  try {
    await ask(`api/jobs/${draft.id}/run`, "POST");
    draft = null;
    notes = [];
    find("form").reset();
    find("new").open = false;
    say("The job is in the queue");
    files_();
  } catch (fault) { note(fault); }
  findings();
  follow();
}

async function clear() {
  const gone = draft;
  draft = null;
  notes = [];
  find("form").reset();
  files_();
  findings();
  await ask(`api/jobs/${gone.id}`, "DELETE").catch(() => {});
  follow();
}

const title = (job) => job.name || job.files.find((one) => one.role === "after")?.label || "no image";

function entry(job) {
  const act = (words, method, path) => element("button", { type: "button", "aria-label": `${words}: ${title(job)}`, onclick: () => ask(`api/jobs/${job.id}${path}`, method).catch((fault) => say(told(fault).join("; "))).then(follow) }, words);
  const line = element("li", { "data-job": job.id, "data-state": job.state }, element("strong", {}, title(job)), element("span", { class: "soft" }, ` ${job.hazard}, ${job.state === "queued" ? `number ${job.position} in the queue` : STATES[job.state]}`));
  if (job.state === "running") {
    const { stage = "", done = 0, whole = 0 } = job.progress;
    line.append(element("progress", { "aria-label": `Progress of ${title(job)}`, ...(whole ? { max: whole, value: done } : {}) }), element("span", { class: "soft" }, `${STAGES[stage] ?? stage}${whole > 1 ? `: ${done.toLocaleString("en")} of ${whole.toLocaleString("en")}` : ""}`));
  }
  if (job.error.what) line.append(element("p", { class: "refuse" }, `${sentence(job.error.what)} What to do: ${sentence(job.error.repair)} `, element("code", {}, job.error.code)));
  const row = element("p", { class: "row" });
  if (job.state === "done") {
    row.append(element("button", { type: "button", "aria-label": `Open: ${title(job)}`, onclick: () => open(job.map) }, "Open"), element("a", { href: `api/jobs/${job.id}/products.zip`, download: true }, "All files (zip)"));
    const files = element("ul", { class: "products" }, ...Object.entries(job.products).map(([name, bytes]) => element("li", {}, element("a", { href: `api/jobs/${job.id}/products/${name}`, download: true }, name), element("span", { class: "soft" }, ` ${size(bytes)}`))));
    line.append(row, element("details", {}, element("summary", {}, "Files"), files));
  } else line.append(row);
  if (job.state === "failed" || job.state === "cancelled") {
    row.append(act("Run again", "POST", "/run"), element("button", { type: "button", "aria-label": `Change: ${title(job)}`, onclick: () => edit(job) }, "Change"));
  }
  row.append(job.state === "queued" || job.state === "running" ? act("Cancel", "POST", "/cancel") : act("Delete", "DELETE", ""));
  return line;
}

function edit(job) {
  draft = job;
  notes = [];
  find("hazard").value = job.hazard;
  find("name").value = job.name;
  for (const name of Object.keys(FIELDS)) find(name).value = job.declared[name] ?? "";
  find("coregister").checked = Boolean(job.declared.coregister);
  find("new").open = true;
  files_();
  findings();
  list();
}

function list() {
  const opened = new Set([...find("list").querySelectorAll("li > details[open]")].map((one) => one.parentElement.dataset.job));
  const focused = document.activeElement?.closest?.("[data-part=list]") ? document.activeElement.getAttribute("aria-label") : null;
  const rows = listed.filter((job) => job.id !== draft?.id && job.files.length).map((job) => {
    const facts = JSON.stringify(job), same = [...find("list").children].find((line) => line.dataset.facts === facts);
    const line = same ?? entry(job); // what has not changed stays, for whoever is about to press it
    line.dataset.facts = facts;
    return line;
  });
  rows.filter((row) => opened.has(row.dataset.job)).forEach((row) => { const inner = row.querySelector("details"); if (inner) inner.open = true; });
  find("list").replaceChildren(...rows);
  find("jobs").hidden = rows.length === 0;
  if (focused) find("list").querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}

async function follow() {
  clearTimeout(timer);
  const before = new Map(listed.map((job) => [job.id, job.state]));
  try {
    ({ jobs: listed, limits } = await ask("api/jobs"));
  } catch { timer = setTimeout(follow, 5000); return; }
  const changed = listed.filter((job) => before.has(job.id) && before.get(job.id) !== job.state);
  for (const job of changed.filter((one) => ["done", "failed", "running", "cancelled"].includes(one.state))) say(`${title(job)}: ${STATES[job.state]}`);
  const made = changed.find((job) => job.state === "done");
  if (made) open(made.map, true);
  if ([...before].some(([id, state]) => state === "done" && !listed.some((job) => job.id === id))) open(null);
  list();
  timer = setTimeout(follow, listed.some((job) => job.state === "queued" || job.state === "running") ? 1000 : 10_000);
}

function role(name) {
  const [words, remark] = ROLES[name];
  const input = element("input", { type: "file", multiple: true, accept: ".tif,.tiff,image/tiff", id: `pick-${name}`, class: "pick", onchange: (event) => { const files = [...event.target.files]; event.target.value = ""; bring(name, files); } });
  const zone = element("div", { class: "zone", "data-role": name },
    element("label", { for: `pick-${name}` }, element("strong", {}, words), element("span", { class: "soft" }, ` ${remark}`), input, element("span", { class: "hint" }, "Drop GeoTIFFs here, or choose files")),
    element("ul", { "data-part": `files-${name}`, "aria-label": words }));
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => { event.preventDefault(); bring(name, [...event.dataTransfer.files]); });
  return zone;
}

function form(hazards) {
  const field = (name, [words, example]) => element("label", {}, words, element("input", { type: "text", "data-part": name, placeholder: example, maxlength: 200, autocomplete: "off", onchange: check }));
  const hazard = element("select", { "data-part": "hazard", onchange: check }, ...hazards.map((one) => element("option", { value: one }, one)));
  return element("form", { "data-part": "form", onsubmit: (event) => { event.preventDefault(); run(); } },
    ...Object.keys(ROLES).map(role),
    element("label", {}, "Hazard ", hazard),
    element("details", {}, element("summary", {}, "What the files do not say"), field("name", ["Name of the map", "Passau"]), ...Object.entries(FIELDS).map(([name, words]) => field(name, words)),
      element("label", { class: "tick" }, element("input", { type: "checkbox", "data-part": "coregister", onchange: check }), " Take a shift between before and after out (--coregister)")),
    element("ul", { "data-part": "found", "aria-label": "Findings" }),
    element("ul", { "data-part": "understood", class: "soft", "aria-label": "Understood" }),
    element("p", { class: "row" }, element("button", { type: "submit", "data-part": "run", disabled: true }, "Run"), element("button", { type: "button", "data-part": "clear", hidden: true, onclick: clear }, "Discard")));
}

// Fills the place with all of it; `show(id, quietly)` brings the maps of the page up to date, and shows one.
export async function jobs(place, show) {
  [box, open] = [place, show];
  const first = await ask("api/jobs");
  ({ jobs: listed, limits } = first);
  box.replaceChildren(
    element("details", { "data-part": "new", open: !listed.some((job) => job.state === "done") }, element("summary", {}, "New map"), form(first.hazards)),
    element("div", { "data-part": "jobs" }, element("h2", {}, "Jobs"), element("ul", { "data-part": "list" })),
    element("p", { "data-part": "said", role: "status", "aria-live": "polite", class: "soft" }));
  box.hidden = false;
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  const begun = listed.find((job) => job.files.length && (job.state === "uploaded" || job.state === "checked"));
  if (begun) { edit(begun); if (begun.state === "uploaded") check(); }
  list();
  follow();
}
