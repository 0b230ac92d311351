"use strict";
// Pages work from the server; this adds what needs no new page: live figures, keys, zooming, and orders to the API.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const kept = {
  get(name, other) { try { return JSON.parse(localStorage.getItem(name)) ?? other; } catch { return other; } },
  set(name, value) { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private windows keep nothing */ } },
};
const user = document.body.dataset.user;

const theme = kept.get("mdh.theme", "");
if (theme) document.documentElement.dataset.theme = theme;
$("[data-theme-switch]").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  kept.set("mdh.theme", root.dataset.theme);
});

function tell(text, bad = false) {
  const line = document.createElement("p");
  line.className = bad ? "notice bad" : "notice good";
  line.textContent = text;
  $("#news").replaceChildren(line);
  setTimeout(() => line.remove(), bad ? 12000 : 6000);
}

async function piece(address) {
  const answer = await fetch(address, { headers: { "X-Piece": "1" } });
  const text = await answer.text();
  if (!answer.ok && !text.includes("notice")) throw new Error(String(answer.status));
  return text;
}

function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(name + "="));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}

async function api(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (cookie("mdh_csrf")) headers["X-CSRF-Token"] = cookie("mdh_csrf");
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const said = text ? JSON.parse(text) : {};
  if (!answer.ok) throw Object.assign(new Error(said.detail || said.title || String(answer.status)), { status: answer.status, said });
  return said;
}

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// --- dashboard

const widgets = $(".widgets");
if (widgets) {
  const name = `mdh.dashboard.${user}`;
  const own = kept.get(name, { order: [], hidden: [] });
  for (const id of [...own.order].reverse()) {
    const card = $(`[data-widget="${CSS.escape(id)}"]`, widgets);
    if (card) widgets.prepend(card);
  }
  const save = () => kept.set(name, {
    order: $$(".widget", widgets).map((card) => card.dataset.widget),
    hidden: $$(".widget.put-away", widgets).map((card) => card.dataset.widget),
  });
  const arrange = $("[data-arrange]");
  let arranging = false;
  const lay = () => {
    for (const card of $$(".widget", widgets)) {
      card.hidden = !arranging && card.classList.contains("put-away");
      $(".arranging", card).hidden = !arranging;
      $("[data-hide]", card).setAttribute("aria-pressed", card.classList.contains("put-away"));
    }
  };
  for (const card of $$(".widget", widgets)) card.classList.toggle("put-away", own.hidden.includes(card.dataset.widget));
  const idle = arrange.textContent;
  arrange.addEventListener("click", () => {
    arranging = !arranging;
    arrange.textContent = arranging ? arrange.dataset.done : idle;
    lay();
    if (!arranging) refresh();
  });
  widgets.addEventListener("click", (event) => {
    const card = event.target.closest(".widget");
    if (event.target.matches("[data-move]")) {
      if (event.target.dataset.move === "-1" && card.previousElementSibling) card.previousElementSibling.before(card);
      if (event.target.dataset.move === "1" && card.nextElementSibling) card.nextElementSibling.after(card);
      event.target.focus();
      save();
    }
    if (event.target.matches("[data-hide]")) { card.classList.toggle("put-away"); lay(); save(); }
    if (event.target.matches("[data-retry]")) load(card);
  });
  async function load(card) {
    const body = $(".body", card);
    try {
      const text = await piece(`/console/widgets/${card.dataset.widget}?${widgets.dataset.query}`);
      if (card.contains(document.activeElement) && document.activeElement !== document.body) return;
      const open = $("details", body)?.open;
      body.innerHTML = text;
      if (open && $("details", body)) $("details", body).open = true;
    } catch {
      body.innerHTML = `<p class="notice bad">${body.dataset.error} <button type="button" data-retry>${body.dataset.retry}</button></p>`;
    }
  }
  async function refresh() {
    if (!document.hidden && !arranging) await Promise.all($$(".widget", widgets).filter((card) => !card.hidden).map(load));
    document.body.dataset.loaded = "1";
  }
  lay();
  refresh();
  setInterval(refresh, 20000);
}

// --- curves: reading a value, and zooming by dragging

const LEFT = 56, RIGHT = 12, WIDTH = 960;

function curves(root = document) {
  for (const figure of $$("figure.chart", root)) {
    if (figure.dataset.ready) continue;
    figure.dataset.ready = "1";
    const svg = $("svg.curve", figure), tip = $(".tip", figure), cursor = $(".cursor", svg), select = $(".select", svg);
    const points = JSON.parse($("script", figure).textContent);
    const begin = Number(figure.dataset.begin), end = Number(figure.dataset.end);
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      const x = Math.min(Math.max((event.clientX - box.left) / box.width * WIDTH, LEFT), WIDTH - RIGHT);
      return [x, begin + (x - LEFT) / (WIDTH - LEFT - RIGHT) * (end - begin)];
    };
    let from = null;
    svg.addEventListener("pointermove", (event) => {
      const [x, time] = at(event);
      cursor.setAttribute("x1", x); cursor.setAttribute("x2", x);
      if (from) { select.setAttribute("x", Math.min(x, from[0])); select.setAttribute("width", Math.abs(x - from[0])); }
      let low = 0, high = points.start.length - 1;
      while (low < high) { const middle = (low + high + 1) >> 1; if (points.start[middle] <= time) low = middle; else high = middle - 1; }
      tip.hidden = !points.start.length;
      tip.textContent = points.told[low] ?? "";
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("pointerdown", (event) => { from = at(event); svg.setPointerCapture(event.pointerId); event.preventDefault(); });
    svg.addEventListener("pointerup", (event) => {
      const [x, time] = at(event), [x0, first] = from ?? [x, time];
      from = null; select.setAttribute("width", 0);
      if (Math.abs(x - x0) < 8) return;
      const step = points.seconds || 60;
      const iso = (second) => new Date(Math.round(second / step) * step * 1000).toISOString().replace(".000Z", "Z");
      show(new URLSearchParams([["from", iso(Math.min(first, time))], ["to", iso(Math.max(first, time))]]), true);
    });
  }
}

// A span of the curve: beside a To-Do only its detail is loaded anew, elsewhere the page is
async function show(query, merge = false) {
  const detail = $("[data-detail]"), card = $("[data-card]");
  const whole = new URLSearchParams(location.search);
  if (merge) for (const [name, value] of query) whole.set(name, value);
  const wanted = merge ? whole : query;
  if (detail && card) {
    for (const name of ["from", "to"]) if (query.get(name)) whole.set(name, query.get(name));
    await open(card.dataset.card, whole);
  } else location.search = wanted.toString();
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-span]");
  if (link && $("[data-card]")) { event.preventDefault(); show(new URLSearchParams(link.getAttribute("href").slice(1))); }
});
curves();

// --- To-Dos

const myName = $("[data-my-name]");
if (myName) {
  myName.value = kept.get("mdh.name", "");
  myName.addEventListener("change", () => kept.set("mdh.name", myName.value.trim()));
}
function me() {
  const name = user || myName?.value.trim() || kept.get("mdh.name", "");
  if (!name) { myName?.focus(); throw new Error(myName ? myName.parentElement.textContent.trim() + "?" : "?"); }
  return name;
}

async function open(id, query) {
  const detail = $("[data-detail]");
  for (const row of $$("[data-todo]")) row.toggleAttribute("aria-current", false);
  const row = $(`[data-todo="${CSS.escape(id)}"]`);
  row?.setAttribute("aria-current", "true");
  row?.scrollIntoView({ block: "nearest" });
  const asked = new URLSearchParams(query ?? location.search);
  if (!query) { asked.delete("from"); asked.delete("to"); }
  asked.set("open", id);
  history.replaceState(null, "", "?" + asked);
  detail.setAttribute("aria-busy", "true");
  try {
    detail.innerHTML = await piece(`/console/todos/${encodeURIComponent(id)}/card?${asked}`);
    curves(detail);
  } catch (error) { tell(error.message, true); }
  detail.removeAttribute("aria-busy");
}

let lastAct = null;
const queue = $("[data-queue]");
if (queue) {
  const rows = () => $$("[data-todo]", queue);
  const here = () => rows().findIndex((row) => row.getAttribute("aria-current") === "true");
  const move = (by) => {
    const all = rows(), next = all[Math.min(Math.max(here() + by, 0), all.length - 1)];
    if (next) open(next.dataset.todo);
  };
  const picked = () => rows().filter((row) => $("input", row).checked);
  const count = () => { $("[data-bulk]").hidden = !picked().length; $("[data-count]").textContent = picked().length; };
  queue.addEventListener("change", count);
  queue.addEventListener("click", (event) => {
    if (event.target.closest("input") || event.ctrlKey || event.metaKey) return;
    const row = event.target.closest("[data-todo]");
    if (row) { event.preventDefault(); open(row.dataset.todo); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input:not([type=checkbox]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = rows()[here()];
    const keys = {
      j: () => move(1), k: () => move(-1),
      Enter: () => { if (!event.target.closest("a, button, summary")) { $("#todo-title a, [data-card]")?.focus(); $("[data-detail]").scrollIntoView(); } else return true; },
      x: () => { if (row) { $("input", row).checked = !$("input", row).checked; count(); } },
      t: () => $('[data-act="assign"]')?.click(),
      r: () => $('[data-resolve] [name="preview"]')?.click(),
      c: () => $("[data-note]")?.focus(),
      u: undo,
      "?": () => $("[data-keys]").showModal(),
    };
    if (keys[event.key] && keys[event.key]() !== true) event.preventDefault();
  });
  for (const button of $$("[data-bulk-act]")) button.addEventListener("click", async () => {
    const all = picked(), action = button.dataset.bulkAct;
    try {
      const body = { action, ids: all.map((row) => row.dataset.todo), versions: all.map((row) => Number(row.dataset.version)), user: me() };
      if (action === "assign") body.to = me();
      const seen = await api("POST", "/v1/todos/bulk", { ...body, dry_run: true });
      if (!confirm(`${button.textContent}: ${seen.count}${seen.needs_approval ? " (4 eyes)" : ""}?`)) return;
      const done = await api("POST", "/v1/todos/bulk", body);
      lastAct = done.id;
      tell(`${button.textContent}: ${(done.done ?? []).length || done.count} · ${done.state}${done.conflicts?.length ? ` · ${done.conflicts.length} conflicts` : ""}`);
      setTimeout(() => location.reload(), 1200);
    } catch (error) { tell(error.message, true); }
  });
}

async function undo() {
  if (!lastAct) return;
  try { await api("POST", "/v1/todos/undo", { act: lastAct, user: me() }); tell("✓ undo"); lastAct = null; setTimeout(() => location.reload(), 800); }
  catch (error) { tell(error.message, true); }
}

async function act(button, action, more) {
  const card = $("[data-card]");
  try {
    const body = { user: me(), version: Number(card.dataset.version), ...more };
    if (action === "comment") delete body.version;
    const done = await api("POST", `/v1/todos/${encodeURIComponent(card.dataset.card)}/${action}`, body);
    lastAct = done.id ?? done.act ?? null;
    tell(`${button} ✓`);
    await pause(0.7);
    await open(card.dataset.card, location.search);
  } catch (error) {
    tell(error.message, true);
    if (error.status === 409) open(card.dataset.card, location.search);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const note = $("[data-note]")?.value.trim() ?? "";
  if (button.dataset.act === "comment" && !note) { $("[data-note]").focus(); return; }
  act(button.textContent, button.dataset.act, note ? { text: note } : {});
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-role]") && event.target.value) act(event.target.value, "forward", { role: event.target.value });
  const form = event.target.closest("[data-resolve]");
  if (form) {
    for (const field of $$("[data-for]", form)) field.hidden = field.dataset.for !== form.elements.action.value;
    $("[data-apply]", form).disabled = true;
  }
});

function order(form, dry) {
  const action = form.elements.action.value;
  const body = { action, user: me(), reason: form.elements.reason.value, version: Number(form.dataset.version), dry_run: dry };
  if (action === "estimate") body.method = form.elements.method.value;
  if (action === "edit") body.values = form.elements.values.value.split(",").map((text) => /^\s*[-–]?\s*$/.test(text) ? null : text.trim());
  return api("POST", `/v1/todos/${encodeURIComponent(form.dataset.resolve)}/resolve`, body);
}

function table(heads, rows) {
  const made = document.createElement("table"), head = made.createTHead().insertRow();
  for (const text of heads) { const cell = document.createElement("th"); cell.scope = "col"; cell.textContent = text; head.append(cell); }
  const body = made.createTBody();
  for (const row of rows) { const line = body.insertRow(); for (const text of row) line.insertCell().textContent = text ?? "–"; }
  return made;
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-resolve]");
  if (!form) return;
  event.preventDefault();
  const out = $("[data-preview]", form), said = out.dataset;
  out.textContent = "…";
  try {
    const told = await order(form, true);
    const changes = told.changes ?? [];
    const local = (at) => new Date(typeof at === "number" ? at * 1000 : at).toLocaleString("sv-SE", { timeZone: said.zone }).slice(0, 16);
    const parts = [];
    if (changes.length) parts.push(table(said.columns.split("|"), changes.slice(0, 48).map((one) => [local(one.start), one.from.value, one.to.value])));
    else parts.push(Object.assign(document.createElement("p"), { textContent: (told.outcomes ?? []).map((one) => one.detail).filter(Boolean).join("; ") || said.none }));
    if (changes.length > 48) parts.push(Object.assign(document.createElement("p"), { textContent: said.more.replace("{n}", changes.length - 48) }));
    const bills = (told.determinants ?? []).filter((one) => Number(one.difference));
    if (bills.length) {
      parts.push(Object.assign(document.createElement("h3"), { textContent: said.bill }));
      parts.push(table(["", "", ...said.columns.split("|").slice(1), "Δ"], bills.map((one) => [one.day, one.tou, `${one.before} ${one.unit}`, `${one.after} ${one.unit}`, one.difference])));
    }
    out.replaceChildren(...parts);
    $("[data-apply]", form).disabled = false;
  } catch (error) { out.textContent = error.message; }
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-apply]");
  if (!button) return;
  const form = button.form;
  button.disabled = true;
  try {
    const told = await order(form, false);
    lastAct = told.act ?? null;
    tell(`${button.textContent} ✓ ${(told.outcomes ?? []).map((one) => one.outcome).join(", ")}`);
    await pause(1);
    open(form.dataset.resolve, location.search);
  } catch (error) { tell(error.message, true); button.disabled = false; }
});

// --- orders of other pages: a button that says what it asks the API for

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-api]");
  if (!button) return;
  if (button.dataset.sure && !confirm(button.dataset.sure)) return;
  button.disabled = true;
  try {
    await api(button.dataset.method ?? "POST", button.dataset.api, button.dataset.body ? JSON.parse(button.dataset.body) : undefined);
    tell(`${button.textContent} ✓`);
    setTimeout(() => location.reload(), 800);
  } catch (error) { tell(error.message, true); button.disabled = false; }
});

// --- rules: a proposal is checked on the server and never kept

document.addEventListener("change", async (event) => {
  const file = event.target.dataset?.file && event.target.files[0];
  if (file) document.getElementById(event.target.dataset.file).value = await file.text();
});
document.addEventListener("submit", async (event) => {
  if (!event.target.matches("[data-check]")) return;
  event.preventDefault();
  const headers = { "Content-Type": "text/plain", "X-Piece": "1" };
  if (cookie("mdh_csrf")) headers["X-CSRF-Token"] = cookie("mdh_csrf");
  const answer = await fetch("/console/rules/check", { method: "POST", headers, body: event.target.elements.proposal.value });
  $("[data-checked]").innerHTML = await answer.text();
});

// --- users: asked from the API, which decides who may see them

const people = $("[data-users]");
if (people) api("GET", "/v1/users").then((found) => {
  const rows = (found.items ?? found).map((one) => [one.name, one.full_name, (one.grants ?? []).map((grant) => grant.role ?? grant).join(", "), one.status ?? (one.active === false ? "–" : "")]);
  people.replaceChildren(table(["", "", "", ""], rows));
}).catch((error) => { people.firstElementChild.textContent = error.message; });

// --- signing in and out

document.addEventListener("submit", async (event) => {
  if (!event.target.matches("[data-login]")) return;
  event.preventDefault();
  try {
    await api("POST", "/v1/session", { user: event.target.elements.user.value, password: event.target.elements.password.value });
    location.assign("/console/");
  } catch (error) { tell(error.message, true); }
});
$("[data-sign-out]")?.addEventListener("click", async () => { await api("DELETE", "/v1/session"); location.assign("/console/login"); });
