"use strict";
const POLL = 2000, COMPARED = 6, MAX_ROWS = { epochs: 2000, events: 200 };
const PHASES = ["data", "transfer", "forward", "backward", "optimizer", "validation", "checkpoint", "other"];
const $ = (id) => document.getElementById(id);
const items = new Map(), courses = new Map(), charts = new Map(), compared = new Set();
let runs = [], skew = 0, chosen = null, answered = null;

const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };
const make = (tag, parent, className = "") => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  parent.append(node);
  return node;
};
const known = (value) => value !== null && value !== undefined;
const number = (value, digits = 4) => known(value) ? String(Number(value.toPrecision(digits))) : "–";
const share = (value) => known(value) ? `${(100 * value).toFixed(1)} %` : "–";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const now = () => Date.now() / 1000 + skew;

function clock(seconds) {
  if (!known(seconds)) return "";
  const moment = new Date(1000 * seconds), today = moment.toDateString() === new Date().toDateString();
  return today ? moment.toLocaleTimeString() : moment.toLocaleString();
}

function span(seconds) {
  if (!known(seconds)) return "–";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= size) return `${(seconds / size).toFixed(1)} ${unit}`;
  if (seconds > 0 && seconds < 1) return `${number(1000 * seconds, 3)} ms`;
  return `${Math.max(0, seconds).toFixed(seconds < 10 ? 1 : 0)} s`;
}

function bytes(value, digits = 3) {
  if (!known(value)) return "–";
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(value, 1)) / 3)));
  return `${(value / 1000 ** power).toPrecision(Math.max(3, digits))} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

/* data */

const COURSE = { version: -1, kept: null, epochs: [], epochsSeen: 0, events: [], eventsSeen: 0 };

async function follow(id) {
  const course = courses.get(id) ?? { ...COURSE, columns: null };
  const query = new URLSearchParams({ version: course.version, epochs: course.epochsSeen, events: course.eventsSeen });
  if (known(course.kept)) query.set("since", course.kept);
  const answer = await ask(`/api/runs/${encodeURIComponent(id)}?${query}`);
  if (answer === null) return;
  courses.set(id, course);
  const { points, epochs, events } = answer;
  if (points.anew || !course.columns) course.columns = points.columns;
  else {
    const stay = course.columns.time.filter((time) => time <= course.kept).length;
    for (const [name, column] of Object.entries(course.columns)) {
      column.length = stay;
      for (const value of points.columns[name]) column.push(value);
    }
  }
  course.version = points.version;
  course.kept = points.kept;
  takeRows(course, "epochs", epochs);
  takeRows(course, "events", events);
  course.hasLog = events !== null;
}

function takeRows(course, name, answer) {
  if (answer === null) return;
  if (answer.seen < course[`${name}Seen`]) course[name] = [];
  course[name] = course[name].concat(answer.rows).slice(-MAX_ROWS[name]);
  course[`${name}Seen`] = answer.seen;
}

function rates(course, name) {
  const { time, [name]: total } = course.columns;
  return time.map((moment, i) => {
    const before = Math.max(0, i - 3), seconds = moment - time[before];
    return seconds > 0 && known(total[i]) && known(total[before]) ? (total[i] - total[before]) / seconds : null;
  });
}

/* list */

function showList() {
  const present = new Set(runs.map((run) => run.run_id));
  for (const [id, item] of items) if (!present.has(id)) { item.li.remove(); items.delete(id); }
  runs.forEach((run, position) => {
    const item = items.get(run.run_id) ?? newItem(run);
    if ($("runs").children[position] !== item.li) $("runs").insertBefore(item.li, $("runs").children[position] ?? null);
    text(item.name, run.model);
    text(item.state, run.reason ? `${run.state} (${run.reason})` : run.state);
    item.state.className = `state ${run.state}`;
    text(item.what, brief(run));
    item.li.classList.toggle("chosen", run.run_id === chosen);
    item.button.setAttribute("aria-pressed", String(run.run_id === chosen));
    item.box.checked = compared.has(run.run_id);
    item.box.disabled = run.run_id === chosen;
  });
  text($("none"), runs.length ? "" : "No run at present. One that starts appears here.");
  $("none").hidden = runs.length > 0;
}

function brief(run) {
  const parts = [known(run.epoch) && `epoch ${run.epoch}`, known(run.loss) && `loss ${number(run.loss)}`,
    known(run.accuracy) && `accuracy ${number(run.accuracy, 3)}`,
    run.live && known(run.progress) && share(run.progress), !run.live && known(run.seen) && `${span(now() - run.seen)} ago`];
  return parts.filter(Boolean).join(" · ") || run.run_id;
}

function newItem(run) {
  const li = document.createElement("li"), button = make("button", li);
  button.type = "button";
  const item = { li, button, name: make("span", button), state: make("span", button), what: make("span", button, "what") };
  button.addEventListener("click", () => choose(run.run_id));
  const label = make("label", li);
  item.box = make("input", label);
  item.box.type = "checkbox";
  label.append(" compare");
  item.box.setAttribute("aria-label", `compare ${run.model} ${run.run_id}`);
  item.box.addEventListener("change", () => compare(run.run_id, item.box.checked));
  items.set(run.run_id, item);
  return item;
}

function choose(id) {
  chosen = id;
  compared.delete(id);
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  dropCharts();
  poll();
}

function compare(id, wanted) {
  if (wanted && compared.size < COMPARED) compared.add(id);
  else compared.delete(id);
  dropCharts();
  poll();
}

/* one run */

function showRun() {
  const run = runs.find((other) => other.run_id === chosen), course = courses.get(chosen);
  $("run").hidden = !run;
  if (!run) return;
  text($("model"), run.model);
  const age = known(run.seen) ? `last seen ${span(now() - run.seen)} ago` : "";
  const end = run.end && run.end !== run.state ? `: ${run.end}` : "";
  text($("state"), `${run.state}${run.reason ? ` (${run.reason})` : ""}${end}${run.live && run.state === "running" ? "" : age && `, ${age}`}`);
  $("state").className = run.state;
  showIdentity(run);
  showFacts(run);
  if (course?.columns) showCourse(run, course);
}

function showIdentity(run) {
  const place = $("identity"), key = `${run.run_id} ${run.trace_url} ${run.trace_id}`;
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.textContent = run.folder ?? run.run_id;
  const url = known(run.trace_url) && URL.canParse(run.trace_url) ? new URL(run.trace_url) : null;
  if (url && /^https?:$/.test(url.protocol)) link(place, "trace", url.href);
  else if (known(run.trace_id)) place.append(` · trace ${run.trace_id}`);
}

function link(place, name, href) {
  place.append(" · ");
  const anchor = make("a", place);
  anchor.textContent = name;
  anchor.href = href;
  anchor.rel = "noopener noreferrer";
}

function showFacts(run) {
  const facts = { epoch: number(run.epoch, 9), step: number(run.step, 9), progress: share(run.progress), "time left": span(run.eta),
    loss: number(run.loss), "validation loss": number(run.val_loss), accuracy: number(run.accuracy, 4),
    started: clock(run.started), ranks: String(run.ranks) };
  const list = $("facts");
  for (const [name, value] of Object.entries(facts)) {
    let fact = list.querySelector(`[data-name="${name}"]`);
    if (!fact) {
      fact = make("div", list);
      fact.dataset.name = name;
      text(make("dt", fact), name);
      make("dd", fact);
    }
    text(fact.lastChild, value);
  }
}

function showCourse(run, course) {
  const { columns } = course, across = $("across").value;
  const x = across === "step" && columns.step.some(known) ? columns.step : columns.time.map((time) => time - (run.started ?? columns.time[0]));
  const table = (lines) => lines.filter(([, column]) => column.some(known));
  const others = [...compared].filter((id) => courses.get(id)?.columns);
  const overlay = (column) => others.map((id) => {
    const other = courses.get(id).columns, record = runs.find((one) => one.run_id === id);
    const start = record?.started ?? other.time[0];
    return { x: across === "step" ? other.step : other.time.map((time) => time - start), name: `${record?.model ?? ""} ${id}`.trim(), column: other[column] };
  });
  draw("loss", x, table([["training", columns.loss], ["validation", columns.val_loss]]), { log: $("log-scale").checked, more: overlay("loss") });
  draw("accuracy", x, table([["training", columns.accuracy], ["validation", columns.val_accuracy], ["test", columns.test_accuracy]]),
    { more: overlay("val_accuracy") });
  draw("throughput", x, table([["samples/s", rates(course, "samples")], ["batches/s", rates(course, "batches")]]), { each: true });
  draw("rate", x, table([["learning rate", columns.learning_rate]]), {});
  draw("memory", x, table([["processes", columns.memory_bytes], ["GPU", columns.cuda_bytes]]), { form: bytes });
  draw("cpu", x, table([["CPU %", columns.cpu_percent], ["GPU %", columns.gpu_percent]]), {});
  draw("epochs", course.epochs.map((row) => row.epoch), table([["seconds", course.epochs.map((row) => row.duration_seconds)]]),
    { bars: true, form: span, empty: course.hasLog ? "No epoch has ended yet." : "The run writes no event log, which would tell of its epochs." });
  showPhases(columns);
  showEvents(course);
}

function draw(id, x, lines, { log = false, bars = false, each = false, form = number, more = [], empty = "Nothing yet." }) {
  const figure = $(id), place = figure.lastElementChild, caption = figure.querySelector("p");
  text(caption, lines.map(([name, column]) => describe(name, column, form)).join("; ") || empty);
  const order = x.map((value, i) => i).filter((i) => known(x[i]) && (i === 0 || x[i] > Math.max(x[i - 1] ?? -Infinity, -Infinity)));
  if (!lines.length && !more.length || order.length < (bars ? 1 : 2)) { charts.get(id)?.destroy(); charts.delete(id); return; }
  const positive = (value) => log && value <= 0 ? null : value;
  let data = [order.map((i) => x[i]), ...lines.map(([, column]) => order.map((i) => positive(column[i])))];
  if (more.length) data = uPlot.join([data, ...more.map(({ x, column }) => increasing(x, column, positive))]);
  const names = [...lines.map(([name]) => name), ...more.map(({ name }) => name)];
  const key = JSON.stringify([names, log, $("across").value]);
  const chart = charts.get(id);
  if (chart?.key === key) { chart.setData(data); return; }
  chart?.destroy();
  place.replaceChildren();
  const made = new uPlot(options(place, names, { log, bars, each, form, epochs: id === "epochs" }), data, place);
  made.key = key;
  made.root.setAttribute("aria-hidden", "true");
  charts.set(id, made);
}

function increasing(x, column, positive) {
  const order = x.map((value, i) => i).filter((i) => known(x[i]) && (i === 0 || x[i] > x[i - 1]));
  return [order.map((i) => x[i]), order.map((i) => positive(column[i]))];
}

function describe(name, column, form) {
  const values = column.filter(known);
  if (!values.length) return `${name}: none`;
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  return `${name} ${form(values[values.length - 1])} (${form(low)} to ${form(high)})`;
}

function digits(tick, ticks) {
  const gap = Math.abs(ticks[1] - ticks[0]);
  return gap > 0 && tick ? Math.min(9, Math.max(3, Math.ceil(Math.log10(Math.abs(tick) / gap)) + 2)) : 3;
}

function room(_, labels) {
  return Math.max(66, 20 + 7 * Math.max(0, ...(labels ?? []).map((label) => label.length)));
}

function options(place, names, { log, bars, each, form, epochs }) {
  const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 } };
  const inSteps = epochs || $("across").value === "step";
  const series = names.map((name, i) => ({
    label: name, stroke: css(`--c${i % 8}`), width: 1.5, spanGaps: true, value: (_, value) => known(value) ? form(value) : "–",
    ...(each && i ? { scale: "second" } : {}),
    ...(bars ? { fill: css("--c0"), paths: uPlot.paths.bars({ size: [0.8, 60] }), points: { show: false } } : { points: { show: false } }),
  }));
  const left = { ...axis, size: room, values: (_, ticks) => ticks.map((tick) => known(tick) ? form(tick, digits(tick, ticks)) : "") };
  return {
    width: Math.max(200, place.clientWidth), height: 200, cursor: { drag: { x: true, y: false } },
    legend: { live: true },
    scales: { x: { time: false }, y: log ? { distr: 3 } : bars ? { range: (_, low, high) => [0, high * 1.05 || 1] } : {} },
    series: [{ label: epochs ? "epoch" : inSteps ? "step" : "after", value: (_, value) => known(value) ? inSteps ? String(value) : span(value) : "–" }, ...series],
    axes: [{ ...axis, size: 34, values: (_, ticks) => ticks.map((tick) => inSteps ? number(tick, 7) : span(tick)) }, left,
      ...(each && names.length > 1 ? [{ ...axis, scale: "second", side: 1, size: 56, grid: { show: false } }] : [])],
  };
}

function showPhases(columns) {
  const totals = PHASES.map((phase) => columns[`phase_${phase}`].findLast(known) ?? 0);
  const sum = totals.reduce((one, other) => one + other, 0), figure = $("phases"), place = figure.lastElementChild;
  text(figure.querySelector("p"), sum ? `${span(sum)} in all` : "Nothing yet.");
  if (!place.firstChild) {
    const bar = make("div", place, "bar"), body = make("tbody", make("table", place, "shares"));
    bar.setAttribute("aria-hidden", "true");
    PHASES.forEach((phase, i) => {
      make("span", bar).style.background = `var(--c${i})`;
      const row = make("tr", body), head = make("th", row);
      head.scope = "row";
      make("span", head, "swatch").style.background = `var(--c${i})`;
      head.append(phase);
      make("td", row);
      make("td", row);
    });
  }
  const [bar, table] = place.children;
  totals.forEach((seconds, i) => {
    bar.children[i].style.width = `${sum ? 100 * seconds / sum : 0}%`;
    const cells = table.rows[i].cells;
    text(cells[1], span(seconds));
    text(cells[2], sum ? share(seconds / sum) : "–");
  });
}

function showEvents(course) {
  const body = $("events"), key = `${chosen} ${course.eventsSeen}`;
  if (body.dataset.key === key) return;
  body.dataset.key = key;
  body.replaceChildren();
  for (const event of course.events.slice().reverse()) {
    const row = make("tr", body);
    text(make("td", row), clock(event.time));
    text(make("td", row, event.level === "error" ? "error" : event.level === "warning" ? "warning" : ""), event.level);
    text(make("td", row), event.event);
    text(make("td", row), event.text);
  }
}

function dropCharts() {
  for (const chart of charts.values()) chart.destroy();
  charts.clear();
}

/* life */

let polling = null, again = false;

async function poll() {
  if (polling) { again = true; return polling; }
  polling = look();
  await polling;
  polling = null;
  if (again) { again = false; await poll(); }
}

async function look() {
  try {
    const answer = await ask("/api/runs");
    runs = answer.runs;
    skew = answer.now - Date.now() / 1000;
    answered = new Date();
    if (!runs.some((run) => run.run_id === chosen)) chosen = fromAddress() ?? runs[0]?.run_id ?? null;
    for (const id of compared) if (!items.has(id)) compared.delete(id);
    showHost(answer);
    await Promise.all([chosen, ...compared].filter(known).map(follow));
    $("banner").hidden = true;
  } catch (error) {
    const since = answered ? ` since ${answered.toLocaleTimeString()}: what is shown is from then` : "";
    text($("banner"), `No answer${since}. The exporter leaves when no run is left; liquid-train view shows runs that are over.`);
    $("banner").hidden = false;
  }
  showList();
  showRun();
}

function fromAddress() {
  let id = null;
  try { id = decodeURIComponent(location.hash.slice(1)); } catch { return null; }
  return runs.find((run) => run.run_id === id)?.run_id;
}

function showHost({ source, host }) {
  const parts = host && known(host.cpu_usage_percent) ? [`CPU ${number(host.cpu_usage_percent, 3)} %`, `memory ${number(host.memory_usage_percent, 3)} %`,
    `disk ${number(host.disk_usage_percent, 3)} %`] : [];
  text($("host"), source === "exporter" ? parts.join(" · ") : source);
  const links = $("links");
  if (source === "exporter" && !links.firstChild)
    for (const path of ["/metrics", "/health"]) { const anchor = make("a", links); anchor.href = path; anchor.textContent = path; }
}

async function live() {
  if (!document.hidden) await poll();
  setTimeout(live, POLL);
}

new ResizeObserver(() => {
  for (const chart of charts.values()) chart.setSize({ width: Math.max(200, chart.root.parentElement.clientWidth), height: 200 });
}).observe($("charts"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { dropCharts(); showRun(); });
addEventListener("hashchange", () => { const id = fromAddress(); if (id) choose(id); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
for (const id of ["across", "log-scale"]) $(id).addEventListener("change", () => { dropCharts(); showRun(); });
live();
