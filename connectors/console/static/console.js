"use strict";
// Pages work from the server; this adds what needs no new page: live figures, keys, zooming, and orders to the API.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const kept = {
  get(name, other) { try { return JSON.parse(localStorage.getItem(name)) ?? other; } catch { return other; } },
  set(name, value) { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* private windows keep nothing */ } },
};
const user = document.body.dataset.user;
const said = JSON.parse($("#texts").textContent);
const say = (key, values = {}) => Object.entries(values).reduce((text, [name, value]) => text.replace(`{${name}}`, value), said[key] ?? key);

const theme = kept.get("mdh.theme", "");
if (theme) document.documentElement.dataset.theme = theme;
$("[data-theme-switch]").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  kept.set("mdh.theme", root.dataset.theme);
});

// What is said stays until something else is said or somebody puts it away
function tell(text, bad = false) {
  const line = document.createElement("p"), away = document.createElement("button");
  line.className = bad ? "notice bad" : "notice good";
  line.textContent = text + " ";
  away.type = "button";
  away.className = "plain";
  away.textContent = "×";
  away.setAttribute("aria-label", say("put_away"));
  away.addEventListener("click", () => line.remove());
  line.append(away);
  $("#news").replaceChildren(line);
}

// A session that has ended: the login leads back to this page
function gone(answer) {
  if (answer.status === 401 && document.body.dataset.page !== "login") {
    sessionStorage.setItem("mdh.back", location.pathname + location.search);
    location.assign("/console/login");
  }
}

async function piece(address, options = {}) {
  const answer = await fetch(address, { ...options, headers: { "X-Piece": "1", ...options.headers } });
  const text = await answer.text();
  gone(answer);
  if (!answer.ok && !text.includes("notice")) throw new Error(say("failed", { status: answer.status }));
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
  gone(answer);
  let said = {};
  try { said = text ? JSON.parse(text) : {}; } catch { said = { detail: say("failed", { status: answer.status }) }; }
  if (!answer.ok) throw Object.assign(new Error(said.detail || said.title || String(answer.status)), { status: answer.status, said });
  return said;
}

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// --- dashboard

const widgets = $(".widgets");
if (widgets) {
  const named = (cards) => cards.map((card) => card.dataset.widget);
  const save = async () => {
    const body = {
      order: named($$(".widget", widgets)), hidden: named($$(".widget.put-away", widgets)), wide: named($$(".widget.wide-widget", widgets)),
    };
    try { await api("PUT", "/v1/dashboard", body); tell(say("kept")); } catch (error) { tell(error.message, true); }
  };
  const arrange = $("[data-arrange]");
  let arranging = false;
  const lay = () => {
    for (const card of $$(".widget", widgets)) {
      card.hidden = !arranging && card.classList.contains("put-away");
      $(".arranging", card).hidden = !arranging;
      $("[data-hide]", card).setAttribute("aria-pressed", card.classList.contains("put-away"));
    }
  };
  const idle = arrange?.textContent;
  arrange?.addEventListener("click", async () => {
    arranging = !arranging;
    arrange.textContent = arranging ? arrange.dataset.done : idle;
    lay();
    if (arranging) return;
    await save();
    refresh();
  });
  widgets.addEventListener("click", (event) => {
    const card = event.target.closest(".widget");
    if (event.target.matches("[data-move]")) {
      if (event.target.dataset.move === "-1" && card.previousElementSibling) card.previousElementSibling.before(card);
      if (event.target.dataset.move === "1" && card.nextElementSibling) card.nextElementSibling.after(card);
      event.target.focus();
    }
    if (event.target.matches("[data-hide]")) { card.classList.toggle("put-away"); lay(); }
    if (event.target.matches("[data-wide]")) event.target.setAttribute("aria-pressed", card.classList.toggle("wide-widget"));
    if (event.target.matches("[data-retry]")) load(card);
  });
  widgets.addEventListener("keydown", (event) => {
    const bar = event.target.closest("svg.bars a"), by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!bar || !by) return;
    const all = $$("a", bar.closest("svg")), next = all[all.indexOf(bar) + by];
    event.preventDefault();
    if (!next) return;
    bar.setAttribute("tabindex", "-1");
    next.removeAttribute("tabindex");
    next.focus();
  });
  async function load(card) {
    const body = $(".body", card);
    try {
      const text = await piece(`/console/widgets/${card.dataset.widget}?${widgets.dataset.query}`);
      if (card.contains(document.activeElement) && document.activeElement !== document.body) return;
      const open = $$("details", body).map((part) => part.open);
      body.innerHTML = text;
      $$("details", body).forEach((part, place) => { part.open = open[place] ?? part.open; });
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

function curves(root = document) {
  for (const figure of $$("figure.chart", root)) {
    if (figure.dataset.ready) continue;
    figure.dataset.ready = "1";
    const svg = $("svg.curve", figure), tip = $(".tip", figure), cursor = $(".cursor", svg), select = $(".select", svg);
    const points = JSON.parse($("script", figure).textContent);
    const begin = Number(figure.dataset.begin), end = Number(figure.dataset.end);
    const first = Number(figure.dataset.left), last = Number(figure.dataset.right), width = Number(figure.dataset.width);
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      const x = Math.min(Math.max((event.clientX - box.left) / box.width * width, first), last);
      return [x, begin + (x - first) / (last - first) * (end - begin)];
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
      const [x, time] = at(event), [x0, other] = from ?? [x, time];
      from = null; select.setAttribute("width", 0);
      if (Math.abs(x - x0) < 8) return;
      const step = points.seconds || 60;
      const iso = (second) => new Date(Math.round(second / step) * step * 1000).toISOString().replace(".000Z", "Z");
      show(new URLSearchParams([["from", iso(Math.min(other, time))], ["to", iso(Math.max(other, time))]]), true);
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
    if (!merge && query.get("scale")) whole.set("scale", query.get("scale")); else if (!merge) whole.delete("scale");
    await open(card.dataset.card, whole);
  } else location.search = wanted.toString();
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-span]");
  if (!link || !$("[data-card]")) return;
  event.preventDefault();
  const held = document.activeElement === link;
  show(new URLSearchParams(link.getAttribute("href").slice(1))).then(() => { if (held) $(`[data-span="${link.dataset.span}"]`)?.focus(); });
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
  if (!name) { myName?.focus(); throw new Error(say("who")); }
  return name;
}

// The last act, kept over a reload of the page so that it can be undone
const acts = {
  get last() { return sessionStorage.getItem("mdh.act"); },
  set last(id) {
    if (id) sessionStorage.setItem("mdh.act", id); else sessionStorage.removeItem("mdh.act");
    acts.show();
  },
  show() { const button = $("[data-undo]"); if (button) button.hidden = !acts.last; },
};
acts.show();
$("[data-undo]")?.addEventListener("click", () => undo());

async function undo() {
  if (!acts.last) return;
  try {
    const told = await api("POST", "/v1/todos/undo", { act: acts.last, user: me() });
    acts.last = null;
    again(say("undone", { n: told.done.length }));
  } catch (error) { tell(error.message, true); }
}

// Loads the page anew: acts are answered when their effects are to be seen. What is to be said is said then
function again(text) {
  sessionStorage.setItem("mdh.said", text);
  location.reload();
}
if (sessionStorage.getItem("mdh.said")) { tell(sessionStorage.getItem("mdh.said")); sessionStorage.removeItem("mdh.said"); }

// Acts of others that wait for a second person
const waiting = $("[data-acts]");
if (waiting) piece("/console/todo-acts").then((text) => { waiting.innerHTML = text; }, (error) => {
  waiting.innerHTML = `<p class="notice bad"></p>`;
  waiting.firstChild.textContent = `${say("waiting_failed")} ${error.message}`;
});

let opened = 0;  // of several that were opened quickly the last is shown, whichever is answered first
async function open(id, query) {
  const mine = ++opened;
  const detail = $("[data-detail]");
  for (const row of $$("[data-todo]")) row.toggleAttribute("aria-current", false);
  const row = $(`[data-todo="${CSS.escape(id)}"]`);
  row?.setAttribute("aria-current", "true");
  row?.scrollIntoView({ block: "nearest" });
  const asked = new URLSearchParams(query ?? location.search);
  if (!query) for (const name of ["from", "to", "scale"]) asked.delete(name);
  asked.set("open", id);
  history.replaceState(null, "", "?" + asked);
  detail.setAttribute("aria-busy", "true");
  try {
    const text = await piece(`/console/todos/${encodeURIComponent(id)}/card?${asked}`);
    if (mine !== opened) return;
    detail.innerHTML = text;
    curves(detail);
  } catch (error) { if (mine === opened) tell(error.message, true); }
  if (mine === opened) detail.removeAttribute("aria-busy");
}

const picked = () => $$("[data-queue] [data-todo]").filter((row) => $("input", row).checked);
const queue = $("[data-queue]");
if (queue) {
  const rows = () => $$("[data-todo]", queue);
  const here = () => rows().findIndex((row) => row.getAttribute("aria-current") === "true");
  const move = (by) => {
    const all = rows(), next = all[Math.min(Math.max(here() + by, 0), all.length - 1)];
    if (next) open(next.dataset.todo);
  };
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
      n: () => $("[data-next]")?.click(),
      t: () => $('[data-act="assign"]')?.click(),
      r: () => $('[data-resolve] [name="preview"]')?.click(),
      c: () => $("[data-note]")?.focus(),
      u: undo,
      "?": () => $("[data-keys]").showModal(),
    };
    if (keys[event.key] && keys[event.key]() !== true) event.preventDefault();
  });
}

const dialog = $("[data-bulk-dialog]");
let chosen = {};
for (const button of $$("[data-bulk-open]")) button.addEventListener("click", () => {
  const all = picked(), some = button.dataset.bulkOpen === "some";
  chosen = some ? { ids: all.map((row) => row.dataset.todo), versions: all.map((row) => Number(row.dataset.version)) }
    : { select: JSON.parse(dialog.dataset.select) };
  $("[data-bulk-scope]", dialog).textContent = some ? `${all.length} ${$("[data-bulk] strong").lastChild.textContent.trim()}` : button.textContent;
  $("[data-bulk-said]", dialog).replaceChildren();
  $("[data-bulk-do]", dialog).disabled = true;
  dialog.showModal();
});
if (dialog) {
  const form = $("form", dialog), done = $("[data-bulk-do]", dialog), out = $("[data-bulk-said]", dialog);
  const wanted = () => {
    const field = form.elements, action = field.action.value;
    const body = { action, user: me(), text: field.text.value, reason: field.reason.value, ...chosen };
    if (action === "assign") body.to = field.to.value.trim() || me();
    if (action === "distribute") body.users = field.users.value.split(",").map((name) => name.trim()).filter(Boolean);
    if (action === "forward") body.role = field.role.value;
    if (action === "prioritise") body.to = field.priority.value;
    return body;
  };
  form.addEventListener("input", () => {
    for (const field of $$("[data-for]", form)) field.hidden = field.dataset.for !== form.elements.action.value;
    done.disabled = true;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const seen = await api("POST", "/v1/todos/bulk", { ...wanted(), dry_run: true });
      const line = document.createElement("p");
      line.textContent = say("would", { n: seen.count }) + (seen.needs_approval ? ` ${say("second")}` : "");
      out.replaceChildren(line, table(["", "", ""], seen.sample.map((one) => [one.type, one.subject, one.user || one.state])));
      done.disabled = !seen.count;
    } catch (error) { out.textContent = error.message; }
  });
  done.addEventListener("click", async () => {
    done.disabled = true;
    try {
      const told = await api("POST", "/v1/todos/bulk", wanted());
      acts.last = told.state === "waiting" ? null : told.id;
      dialog.close();
      again(told.state === "waiting" ? say("waits") : say("done", { n: told.done.length, m: told.conflicts.length }));
    } catch (error) { out.textContent = error.message; }
  });
  $("[data-close]", dialog).addEventListener("click", () => dialog.close());
}

$("[data-next]")?.addEventListener("click", async () => {
  const field = $("#next-role");
  const roles = field.value ? [field.value] : [...field.options].map((option) => option.value).filter(Boolean);
  try {
    const told = await api("POST", "/v1/todos/next", { user: me(), roles });
    acts.last = told.act.id;
    const row = $(`[data-todo="${CSS.escape(told.todo.id)}"]`);
    if (row) row.dataset.version = told.todo.version;
    if ($("[data-detail]")) await open(told.todo.id); else location.assign(`/console/todos?open=${encodeURIComponent(told.todo.id)}`);
    tell(say("taken"));
  } catch (error) { tell(error.message, true); }
});

async function act(button, action, more) {
  const card = $("[data-card]");
  try {
    const body = { user: me(), version: Number(card.dataset.version), ...more };
    if (action === "comment") delete body.version;
    const done = await api("POST", `/v1/todos/${encodeURIComponent(card.dataset.card)}/${action}`, body);
    acts.last = done.id;
    tell(`${button} ✓`);
    await open(card.dataset.card, location.search);
  } catch (error) {
    tell(error.message, true);
    if (error.status === 409) open(card.dataset.card, location.search);
  }
}

// Shows what became of a To-Do whose data were changed: its exceptions are judged anew, after which it is completed
async function settled(id) {
  await open(id, location.search);
  for (let wait = 0.25; wait < 8; wait *= 1.3) {
    await pause(wait);
    if ($("[data-card]")?.dataset.card !== id || document.activeElement?.closest("[data-resolve]")) return;
    const seen = await api("GET", `/v1/todos/${encodeURIComponent(id)}`);
    if (seen.todo.version > Number($("[data-card]").dataset.version)) await open(id, location.search);
    if (seen.todo.state === "completed") return;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const note = $("[data-note]")?.value.trim() ?? "";
  if (button.dataset.act === "comment" && !note) { $("[data-note]").focus(); return; }
  const more = note ? { text: note } : {};
  if (button.dataset.act === "assign-to") {
    if (!$("[data-to]").value.trim()) { $("[data-to]").focus(); return; }
    act(button.textContent, "assign", { ...more, to: $("[data-to]").value.trim() });
  } else act(button.textContent, button.dataset.act, more);
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-role]") && event.target.value) act(event.target.value, "forward", { role: event.target.value });
  if (event.target.matches("[data-urgency]") && event.target.value) act(event.target.value, "prioritise", { priority: Number(event.target.value) });
  const form = event.target.closest("[data-resolve]");
  if (form) {
    for (const field of $$("[data-for]", form)) field.hidden = field.dataset.for !== form.elements.action.value;
    if (["action", "start", "end"].includes(event.target.name)) values(form);
    $("[data-apply]", form).disabled = true;
  }
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-span-shown]")) return;
  const form = event.target.closest("form"), figure = $("figure.chart");
  form.elements.start.value = figure.dataset.from;
  form.elements.end.value = figure.dataset.to;
  values(form);
  $("[data-apply]", form).disabled = true;
});

// Times of a form that are given in local time, in UTC by the names of their fields. The hub converts them: it refuses a time that does
// not exist or comes twice when clocks change
async function instants(form) {
  const fields = [...form.elements].filter((field) => field.matches("[data-local]") && field.value.trim());
  if (!fields.length) return {};
  const asked = new URLSearchParams([["zone", form.dataset.zone], ...fields.map((field) => ["at", field.value.trim()])]);
  const told = await api("GET", `/v1/local-times?${asked}`);
  return Object.fromEntries(fields.map((field, place) => [field.name, told.times[place].utc]));
}

// What the intervals of a span hold now, to be written over; an order waits until it is there
let filled = Promise.resolve();
function values(form) {
  filled = filled.then(() => fill(form)).catch((error) => { $("[data-preview]", form).textContent = error.message; });
}
async function fill(form) {
  const field = form.elements.values, points = $("figure.chart script");
  if (!field || form.elements.action.value !== "edit" || !points) return;
  const told = JSON.parse(points.textContent);
  const times = await instants(form);
  const second = (name, other) => (times[name] ? Date.parse(times[name]) / 1000 : Number(other));
  const begin = second("start", form.dataset.start), end = Math.max(second("end", form.dataset.end), begin + 1);
  field.value = told.start.map((at, place) => (at >= begin && at < end ? told.value[place] ?? "-" : null)).filter((one) => one !== null).join(", ");
}

async function order(form, dry) {
  await filled;
  const action = form.elements.action.value;
  const body = { action, user: me(), reason: form.elements.reason.value, version: Number(form.dataset.version), dry_run: dry };
  if (action === "estimate") body.method = form.elements.method.value;
  if (action === "edit" && form.elements.values) {
    body.values = form.elements.values.value.split(",").map((text) => (/^\s*[-–]?\s*$/.test(text) ? null : text.trim()));
  } else if (action === "edit") body.reading = form.elements.reading.value.trim();
  Object.assign(body, await instants(form));
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
  const out = $("[data-preview]", form), words = out.dataset;
  out.textContent = "…";
  try {
    const told = await order(form, true);
    const changes = told.changes ?? [];
    const local = (at) => new Date(typeof at === "number" ? at * 1000 : at).toLocaleString("sv-SE", { timeZone: words.zone }).slice(0, 16);
    const parts = [];
    if (changes.length) parts.push(table(words.columns.split("|"), changes.slice(0, 48).map((one) => [local(one.start), one.from.value, one.to.value])));
    else parts.push(Object.assign(document.createElement("p"), { textContent: (told.outcomes ?? []).map((one) => one.detail).filter(Boolean).join("; ") || words.none }));
    if (changes.length > 48) parts.push(Object.assign(document.createElement("p"), { textContent: words.more.replace("{n}", changes.length - 48) }));
    const bills = (told.determinants ?? []).filter((one) => Number(one.difference));
    if (bills.length) {
      parts.push(Object.assign(document.createElement("h3"), { textContent: words.bill }));
      parts.push(table(words.billColumns.split("|"), bills.map((one) => [one.day, one.tou, `${one.before} ${one.unit}`, `${one.after} ${one.unit}`, one.difference])));
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
    acts.last = null; // data were changed: another command takes that back
    const refused = (told.outcomes ?? []).filter((one) => one.outcome !== "applied");
    tell(refused.length ? refused.map((one) => one.detail).join("; ") : say("resolved", { n: told.applied }), refused.length > 0);
    button.blur();
    await settled(form.dataset.resolve);
  } catch (error) { tell(error.message, true); button.disabled = false; }
});

// --- orders of other pages: a button or a form that says what it asks the API for

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-api]");
  if (!button) return;
  if (button.dataset.sure && !confirm(button.dataset.sure)) return;
  button.disabled = true;
  try {
    const body = button.dataset.body ? JSON.parse(button.dataset.body) : undefined;
    if (button.dataset.who) body[button.dataset.who] = me();
    const told = await api(button.dataset.method ?? "POST", button.dataset.api, body);
    if (button.dataset.api.startsWith("/v1/todo-acts/")) acts.last = told.state === "approved" ? told.id : null;
    again(`${button.textContent} ✓`);
  } catch (error) { tell(error.message, true); button.disabled = false; }
});

// The fields of a form as JSON: dots in names lead inside, numbers are places of lists; what is left empty is left out
function body(form, times = {}) {
  const made = {};
  for (const field of form.elements) {
    const value = field.type === "checkbox" ? (field.checked ? true : "") : times[field.name] ?? field.value.trim();
    if (!field.name || value === "") continue;
    const path = field.name.split(".");
    path.reduce((place, name, depth) => {
      if (depth === path.length - 1) place[name] = value; else place[name] ??= /^\d+$/.test(path[depth + 1]) ? [] : {};
      return place[name];
    }, made);
  }
  if (form.dataset.who) made[form.dataset.who] = me();
  return made;
}
for (const form of $$("form[data-order]")) {
  const dry = form.dataset.dry, done = $("[data-do]", form), out = $("[data-said]", form);
  const ask = async (more) => api(form.dataset.method ?? "POST", form.dataset.order, { ...body(form, await instants(form)), ...more });
  if (done) form.addEventListener("input", () => { done.disabled = true; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      if (!dry) {
        const asked = body(form);
        const told = await ask({});
        if (form.dataset.link && !asked.password && !asked.machine && !asked.name.includes("@")) {
          await link(form.dataset.link.replace("{name}", encodeURIComponent(told.name)), told.name);
        } else again(say("kept"));
        return;
      }
      const told = await ask({ dry_run: true });
      out.textContent = Object.entries(told).reduce((text, [name, value]) => text.replace(`{${name}}`, value), dry)
        + (told.needs_approval ? ` ${say("second")}` : "");
      done.disabled = !told.count;
    } catch (error) { if (out) out.textContent = error.message; else tell(error.message, true); }
  });
  done?.addEventListener("click", async () => {
    done.disabled = true;
    try { const told = await ask({}); again(told.state === "waiting" ? say("waits") : say("ordered", { n: told.count })); }
    catch (error) { out.textContent = error.message; }
  });
}

// A link with which a person chooses a password. It is shown once: nobody, the hub neither, can look it up again
async function link(door, name) {
  const shown = $("[data-link-dialog]");
  const told = await api("POST", door, {});
  $("[data-link-name]", shown).textContent = name;
  $("[data-link-until]", shown).textContent = new Date(told.expires * 1000).toLocaleString("sv-SE").slice(0, 16);
  const field = $("input", shown);
  field.value = location.origin + told.link;
  shown.addEventListener("close", () => { field.value = ""; again(say("kept")); }, { once: true });
  shown.showModal();
  field.select();
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-link]:not(form)");
  if (!button || (button.dataset.sure && !confirm(button.dataset.sure))) return;
  button.disabled = true;
  try { await link(button.dataset.link, button.dataset.name); } catch (error) { tell(error.message, true); button.disabled = false; }
});
$("[data-copy]")?.addEventListener("click", async (event) => {
  const field = $("input", event.target.closest("dialog"));
  field.select();
  try { await navigator.clipboard.writeText(field.value); event.target.textContent = say("copied"); }
  catch { document.execCommand("copy"); }  // pages without https have no clipboard of their own
});

// --- rules: a proposal is checked on the server, and kept where it can be used

document.addEventListener("change", async (event) => {
  const file = event.target.dataset?.file && event.target.files[0];
  if (file) document.getElementById(event.target.dataset.file).value = await file.text();
});
$("[data-fill]")?.addEventListener("click", async (event) => {
  try { document.getElementById(event.target.dataset.fill).value = await piece(event.target.dataset.from); }
  catch (error) { tell(error.message, true); }
});
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-check]")) return;
  event.preventDefault();
  const headers = { "Content-Type": "text/plain" };
  if (cookie("mdh_csrf")) headers["X-CSRF-Token"] = cookie("mdh_csrf");
  const since = encodeURIComponent(form.elements.since.value);
  try {
    $("[data-checked]").innerHTML = await piece(`/console/rules/check?since=${since}`, { method: "POST", headers, body: form.elements.proposal.value });
  } catch (error) { tell(error.message, true); return; }
  const keep = $("[data-propose]", form);
  if (keep) keep.disabled = !$("[data-checked] pre");
});
$("[data-propose]")?.addEventListener("click", async (event) => {
  const field = event.target.form.elements;
  if (!field.title.value.trim()) { field.title.focus(); return; }
  try {
    await api("POST", "/v1/proposals", {
      text: field.proposal.value, title: field.title.value.trim(), effective_from: field.since.value, reason: field.reason.value, user: user || me(),
    });
    again(say("kept"));
  } catch (error) { tell(error.message, true); }
});

// --- signing in and out

document.addEventListener("submit", async (event) => {
  if (!event.target.matches("[data-login]")) return;
  event.preventDefault();
  try {
    await api("POST", "/v1/session", { user: event.target.elements.user.value, password: event.target.elements.password.value });
    location.assign(sessionStorage.getItem("mdh.back") ?? "/console/");
    sessionStorage.removeItem("mdh.back");
  } catch (error) { tell(error.message, true); }
});
$("[data-sign-out]")?.addEventListener("click", async () => {
  try { await api("DELETE", "/v1/session"); location.assign("/console/login"); } catch (error) { tell(error.message, true); }
});
