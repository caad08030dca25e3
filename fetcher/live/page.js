"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const token = document.querySelector("meta[name=fetcher-token]").content;
  history.replaceState(null, "", "/");  // the token is no longer in the address bar, nor in a screenshot of it

  // How figures are written

  const whole = n => Math.round(n).toLocaleString("en");
  const few = n => n >= 100 ? whole(n) : n >= 10 ? n.toFixed(0) : n > 0 ? n.toFixed(1) : "0";
  const size = n => {
    for (const unit of ["bytes", "kB", "MB", "GB"]) {
      if (n < 1000) return `${unit === "bytes" || n >= 100 ? n.toFixed(0) : n.toFixed(1)} ${unit}`;
      n /= 1000;
    }
    return `${n.toFixed(1)} TB`;
  };
  const time = s => {
    s = Math.max(0, s);
    if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
    if (s < 60) return `${s.toFixed(1)} s`;
    const minutes = Math.floor(Math.round(s) / 60);
    if (minutes < 60) return `${minutes} min ${String(Math.round(s) % 60).padStart(2, "0")} s`;
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  };
  const about = s => s < 60 ? `${Math.max(1, Math.round(s))} s` : time(s);
  const count = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
  const or = (value, write) => value === null || value === undefined ? "–" : write(value);

  // What is on the page is changed only where it is another: what is selected stays selected

  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const figure = (id, value, text = whole(value)) => { const node = $(id); put(node, text); node.value = String(value); };
  const unknown = (id, why) => {
    const section = $(id);
    section.classList.toggle("unknown", why !== null);
    if (why !== null) put(section.querySelector(".note, figcaption"), why);
    return why !== null;
  };
  const fill = (id, rows, classes, decorate) => {
    const body = $(id).querySelector("tbody");
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach((cells, at) => {
      const row = body.rows[at] || body.insertRow();
      cells.forEach((text, column) => {
        let cell = row.cells[column];
        if (!cell) {
          cell = document.createElement(column ? "td" : "th");
          if (!column) cell.scope = "row";
          if (classes[column]) cell.className = classes[column];
          if (decorate && decorate.column === column) { cell.append(document.createElement("span"), decorate.node()); }
          row.append(cell);
        }
        put(decorate && decorate.column === column ? cell.firstChild : cell, text);
        if (decorate && decorate.column === column) decorate.set(cell.lastChild, at);
      });
    });
  };
  const heads = (id, names, classes) => {
    const row = $(id).querySelector("thead tr");
    if (row.cells.length === names.length) return;
    row.replaceChildren(...names.map((name, at) => {
      const head = document.createElement("th");
      head.scope = "col"; head.textContent = name; if (classes[at]) head.className = classes[at];
      return head;
    }));
  };

  // Charts

  const draw = (name, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const nice = most => {
    if (!(most > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(most));
    return [1, 2, 5, 10].map(step => step * power).find(step => step >= most);
  };
  const canvas = (id, label) => {
    const plot = $(id), width = Math.max(200, plot.clientWidth), height = 176;
    const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
    plot.replaceChildren(svg);
    return {svg, left: 46, right: width - 8, top: 8, bottom: height - 26};
  };
  const axes = (box, top, write) => {
    for (const share of [0, .5, 1]) {
      const y = box.bottom - share * (box.bottom - box.top);
      box.svg.append(draw("line", {class: share ? "grid" : "axis", x1: box.left, x2: box.right, y1: y, y2: y}));
      box.svg.append(draw("text", {x: box.left - 6, y: y + 4, "text-anchor": "end"}, write(share * top)));
    }
  };
  let points = [], marks = [], state = null;

  const rates = column => {
    // Over a hundredth of the time each, so that a long run is as calm as a short one.
    if (points.length < 2) return [];
    const first = points[0][0], last = points[points.length - 1][0], step = Math.max(1, (last - first) / 100);
    const found = [];
    let before = points[0];
    for (const point of points) {
      const passed = point[0] - before[0];
      if (passed < step * .999 && point !== points[points.length - 1]) continue;
      if (passed > 0 && (passed >= step * .5 || !found.length)) {
        found.push([before[0], point[0], Math.max(0, point[column] - before[column]) / passed]);
        before = point;
      }
    }
    return found;
  };
  const chart = (id, name, column, write, noun) => {
    const data = rates(column);
    const most = Math.max(0, ...data.map(each => each[2]));
    const end = points.length ? points[points.length - 1][0] : 0, start = points.length ? points[0][0] : 0;
    const now = data.length ? data[data.length - 1][2] : 0;
    put($(`${id}-note`), data.length ? `Over ${time(end - start)}: ${write(now)} ${noun} of late, at most ${write(most)}.` : "The first seconds are being counted.");
    const box = canvas(`${id}-plot`, `${name} over ${time(end - start)}: of late ${write(now)}, at most ${write(most)}`);
    if (name === "Bytes a second") box.svg.classList.add("plain");
    const top = nice(most), wide = Math.max(1, end - start);
    const x = t => box.left + (t - start) / wide * (box.right - box.left);
    const y = v => box.bottom - v / top * (box.bottom - box.top);
    axes(box, top, write);
    if (data.length) {
      const spots = data.map(([a, b, v]) => `${x((a + b) / 2).toFixed(1)} ${y(v).toFixed(1)}`);
      const ends = [`${x(data[0][0]).toFixed(1)} ${y(data[0][2]).toFixed(1)}`, `${x(end).toFixed(1)} ${y(now).toFixed(1)}`];
      const path = `M${[ends[0], ...spots, ends[1]].join("L")}`;
      box.svg.append(draw("path", {class: "area", d: `${path}L${x(end).toFixed(1)} ${box.bottom}L${x(data[0][0]).toFixed(1)} ${box.bottom}Z`}));
      box.svg.append(draw("path", {class: "line", d: path}));
    }
    for (const mark of marks.slice(1)) {
      const at = x(mark);
      box.svg.append(draw("line", {class: "begin", x1: at, x2: at, y1: box.top, y2: box.bottom}));
    }
    box.svg.append(draw("text", {x: box.left, y: box.bottom + 20}, "0"));
    box.svg.append(draw("text", {x: box.right, y: box.bottom + 20, "text-anchor": "end"}, time(end - start)));
  };
  const rough = s => time(+s.toPrecision(2));
  const latency = data => {
    // What is rarer than one in 200 at either end would leave no room for the rest.
    const all = data.counts.reduce((a, b) => a + b, 0);
    let first = 0, last = data.counts.length - 1, rare = 0;
    while (first < last && rare + data.counts[first] < all / 200) rare += data.counts[first++];
    const below = rare;
    for (rare = 0; first < last && rare + data.counts[last] < all / 200;) rare += data.counts[last--];
    data = {...data, counts: data.counts.slice(first, last + 1), edges: data.edges.slice(first, last + 2)};
    const beyond = [below && `${whole(below)} took less`, rare && `${whole(rare)} took longer`].filter(Boolean).join(", ");
    put($("latency-note"), `On the wire, all its tries together: half within ${time(data.p50)}, 95 % within ${time(data.p95)}, 99 % within ${time(data.p99)}.${beyond ? ` Not drawn: ${beyond}.` : ""}`);
    const box = canvas("latency-plot", `How long rows take: median ${time(data.p50)}, 95th percentile ${time(data.p95)}, 99th ${time(data.p99)}`);
    const top = nice(Math.max(...data.counts)), n = data.counts.length;
    const wide = (box.right - box.left) / Math.max(n, 8);
    axes(box, top, whole);
    data.counts.forEach((many, at) => {
      const tall = many / top * (box.bottom - box.top);
      box.svg.append(draw("rect", {class: "column", x: box.left + at * wide + .5, y: box.bottom - tall, width: Math.max(1, wide - 1), height: tall}));
    });
    const every = Math.max(1, Math.ceil((n + 1) / Math.max(2, Math.floor((box.right - box.left) / 70))));
    data.edges.forEach((edge, at) => {
      if (at % every) return;
      box.svg.append(draw("text", {x: box.left + at * wide, y: box.bottom + 20, "text-anchor": at === 0 ? "start" : at === n && n >= 8 ? "end" : "middle"}, rough(edge)));
    });
  };

  // The page

  const NOT_IN_LEDGER = "A ledger does not know this: it is to be seen on the run's own page (--live).";
  const words = {starting: "starting", running: "running", paused: "paused", stopping: "stopping", ended: "ended",
    complete: "complete", stopped: "stopped", interrupted: "interrupted"};
  let spokenAt = 0, spokenState = "";

  const head = s => {
    const c = s.counts, done = c.ok + c.failed + c.skipped, total = c.more ? Math.max(c.total || 0, c.input) : c.input;
    const known = !c.more || c.total !== null, share = known && total ? done / total : null;
    put($("name"), s.name);
    const badge = $("state");
    put(badge, words[s.state]); badge.className = `badge ${s.state}`;
    const percent = share === null ? "" : `${Math.floor(share * 1000) / 10} %`;
    const over = s.state === "ended" || s.state === "complete" || s.state === "stopped" || s.state === "interrupted";
    const headline = over ? `${words[s.state][0].toUpperCase()}${words[s.state].slice(1)}: ${count(c.ok, "page")}`
      : s.state === "starting" ? "Starting" : share === null ? `${count(done, "row")} done` : `${percent} of ${c.more ? "about " : ""}${count(total, "row")}`;
    put($("headline"), headline);
    const left = s.eta.seconds === null ? s.eta.how : s.eta.seconds > 0 ? `About ${about(s.eta.seconds)} to go: ${s.eta.how}` : s.eta.how;
    const lede = over ? `${count(c.input, "row")} = ${whole(c.ok)} ok + ${whole(c.failed)} failed + ${whole(c.skipped)} skipped${c.pending ? ` + ${whole(c.pending)} pending` : ""}, in ${time(s.seconds)}.`
      : `${left[0].toUpperCase()}${left.slice(1)}. Running for ${about(s.seconds)}.`;
    put($("lede"), lede);
    document.title = `${over ? words[s.state] : percent || whole(done)} · fetcher live`;
    const bar = $("bar");
    if (share === null) bar.removeAttribute("aria-valuenow"); else bar.setAttribute("aria-valuenow", String(Math.floor(share * 100)));
    bar.setAttribute("aria-valuetext", headline);
    ["ok", "failed", "skipped"].forEach((kind, at) => { bar.children[at].style.width = share === null ? "0" : `${c[kind] / total * 100}%`; });
    figure("pages-per-second", s.pages_per_second, few(s.pages_per_second));
    put($("bytes-per-second"), over ? `${size(c.bytes)} in all` : `${size(s.bytes_per_second)}/s, ${size(c.bytes)} in all`);
    for (const kind of ["ok", "failed", "skipped", "pending", "input"]) figure(kind, c[kind]);
    put($("more"), c.more ? ", and more" : "");
    if (s.flight) figure("flying", s.flight.count); else put($("flying"), "–");
    $("flying-tile").hidden = s.kind === "reading";
    if (s.state !== spokenState || Date.now() - spokenAt > 60000 || Date.now() < spokenAt) {
      spokenState = s.state; spokenAt = Date.now();
      put($("spoken"), `${words[s.state]}. ${headline}. ${count(c.failed, "row")} failed. ${lede}`);
    }
    $("trouble").hidden = !s.trouble;
    if (s.trouble) put($("trouble").firstElementChild, s.trouble);
  };
  const codes = s => {
    const c = s.counts, done = Math.max(1, c.ok + c.failed + c.skipped);
    put($("codes-note"), s.codes.length ? (s.other_codes ? `And ${count(s.other_codes, "row")} of other codes.` : "") : "None so far.");
    $("codes").querySelector(".scroll").hidden = !s.codes.length;
    const most = s.codes.length ? s.codes[0][1] : 1;
    fill("codes", s.codes.map(([code, many]) => [code, whole(many), `${(many / done * 100).toFixed(1)} %`]), ["", "", "word"], {
      column: 2, node: () => { const bar = document.createElement("i"); bar.className = "share"; bar.ariaHidden = "true"; return bar; },
      set: (bar, at) => { bar.style.width = `calc(${s.codes[at][1] / most} * var(--bar))`; },
    });
  };
  const hosts = s => {
    $("hosts").hidden = s.kind === "reading";
    if (s.kind === "reading") return;
    if (unknown("hosts", s.hosts === null ? NOT_IN_LEDGER : null)) return;
    const job = s.kind === "job";
    const classes = job ? ["wide", "", "", "", ""] : ["wide", "", "", "", "", "", "wide"];
    heads("hosts", job ? ["Host", "Rows done", "Failed", "Mean time", "Bytes"] : ["Host", "Rows left", "Slots", "Pace", "Requests", "Again in", "Why it waits"], classes);
    put($("hosts-note"), !s.hosts.length ? (s.final ? "None is needed any more." : "None has rows that wait.")
      : job ? `The slowest and those that failed, of ${count(s.known_hosts, "host")}. What waits for each is not in a ledger.`
      : `Those that will be needed for longest${s.hosts.length < 50 ? "" : ": the first 50"}. Rows that are not read of the list yet are not counted.`);
    $("hosts").querySelector(".scroll").hidden = !s.hosts.length;
    fill("hosts", s.hosts.map(h => job ? [h.host || "(no host)", whole(h.rows), whole(h.failed), time(h.elapsed), size(h.bytes)] : [
      h.host, whole(h.waiting + h.running), h.limit === null ? "–" : `${h.on_wire} of ${h.limit}`,
      h.delay === null ? "–" : h.delay ? `one every ${+h.delay.toPrecision(2)} s` : "as it answers",
      or(h.requests, whole), h.parked ? time(h.parked) : "", h.why]), classes);
    const names = $("host-names");
    const list = job ? "" : s.hosts.map(h => h.host).join("\n");
    if (names.dataset.list !== list) {
      names.dataset.list = list;
      names.replaceChildren(...list.split("\n").filter(Boolean).map(name => { const o = document.createElement("option"); o.value = name; return o; }));
    }
  };
  const flight = s => {
    $("flight").hidden = s.kind === "reading";
    if (s.kind === "reading") return;
    if (unknown("flight", s.flight === null ? NOT_IN_LEDGER : null)) return;
    const f = s.flight;
    put($("flight-note"), f.count ? `${count(f.count, "row")}: ${f.stages.map(([stage, many]) => `${stage} ${whole(many)}`).join(", ")}.${f.rows.length < f.count ? ` The ${f.rows.length} oldest:` : ""}` : "Nothing.");
    $("flight").querySelector(".scroll").hidden = !f.count;
    fill("flight", f.rows.map(r => [whole(r.id), time(r.age), r.stage, time(r.in_stage), String(r.attempts + 1), r.url]), ["", "", "word", "roomy", "roomy", "wide"]);
  };
  const failures = s => {
    if (unknown("failures", s.failures === null ? NOT_IN_LEDGER : null)) return;
    put($("failures-note"), s.failures.length ? "" : "None so far.");
    $("failures").querySelector(".scroll").hidden = !s.failures.length;
    fill("failures", s.failures.map(f => [whole(f.id), or(f.ago, time), f.code, f.message, f.url]), ["", "", "word", "wide", "wide"]);
  };
  const workers = s => {
    const job = s.kind === "job";
    $("workers").hidden = job ? !s.shards : !(s.workers && s.workers.length);
    if ($("workers").hidden) return;
    if (job) {
      put($("workers-h"), "Shards");
      heads("workers", ["Shard", "State", "Rows", "Ok", "Failed", "Pages a second"], ["", "word"]);
      fill("workers", s.shards.map(w => [w.shard, w.state, whole(w.input), whole(w.ok), whole(w.failed), few(w.pages_per_second)]), ["", "word", "", "", "", ""]);
      return;
    }
    if (s.kind === "reading") {
      put($("workers").querySelector("caption"), "The processes that read");
      heads("workers", ["Worker", "Process", "Memory", "Descriptors"], []);
      fill("workers", s.workers.map(w => [String(w.number), String(w.pid), or(w.memory, size), or(w.descriptors, whole)]), []);
      return;
    }
    heads("workers", ["Worker", "Process", "Slots", "Held", "Rows", "Memory", "Descriptors"], []);
    fill("workers", s.workers.map(w => [String(w.number), w.pid === null ? "none yet" : String(w.pid), whole(w.slots), whole(w.held), whole(w.rows), or(w.memory, size), or(w.descriptors, whole)]), []);
  };
  const machine = s => {
    if (unknown("machine", s.machine === null ? NOT_IN_LEDGER : null)) return;
    const m = s.machine, p = s.power;
    const facts = [["Memory", or(m.memory, size)], ["Descriptors", `${or(m.descriptors, whole)}${m.most_descriptors ? ` of ${whole(m.most_descriptors)}` : ""}`],
      ["CPU", or(m.cpu, n => `${(n * 100).toFixed(0)} % of a core`)]];
    if (p && p.concurrency !== null) facts.push(["Requests at once", whole(p.concurrency)], ["To one host", whole(p.per_host)], ["Requests a second", p.rate === null ? "no limit" : `${+p.rate.toPrecision(4)}`]);
    const list = $("machine").querySelector("dl");
    if (list.children.length !== facts.length) list.replaceChildren(...facts.map(() => {
      const group = document.createElement("div"); group.append(document.createElement("dt"), document.createElement("dd")); return group;
    }));
    facts.forEach(([name, value], at) => { put(list.children[at].firstChild, name); put(list.children[at].lastChild, value); });
  };
  let shownLimits = "";
  const controls = s => {
    const shown = s.power !== null && s.power.allowed && s.state !== "stopping";
    $("controls").hidden = !shown;
    if (!shown) return;
    const pause = $("pause"), paused = s.state === "paused";
    put(pause, paused ? "Go on" : "Pause"); pause.dataset.do = paused ? "resume" : "pause";
    for (const id of ["set-concurrency", "set-rate", "set-host"]) $(id).hidden = s.power.concurrency === null;
    const limits = `${s.power.concurrency} ${s.power.rate}`;
    if (limits !== shownLimits) {
      shownLimits = limits;
      if (document.activeElement !== $("concurrency")) $("concurrency").value = s.power.concurrency;
      if (document.activeElement !== $("rate")) $("rate").value = s.power.rate === null ? "" : s.power.rate;
    }
  };
  const show = s => {
    state = s;
    head(s); controls(s); codes(s); hosts(s); flight(s); failures(s); workers(s); machine(s);
    if (s.point && (!points.length || s.point[0] > points[points.length - 1][0])) points.push(s.point);
    if (points.length > 1200) points = points.filter((_, at) => at % 2 === 0 || at === points.length - 1);
    chart("pages", "Pages a second", 1, few, "a second");
    chart("bytes", "Bytes a second", 4, n => n ? size(n).replace("bytes", "B") : "0", "a second");
    $("latency").hidden = s.kind === "reading";
    if (s.kind !== "reading" && !unknown("latency", s.latency === null ? (s.kind === "job" || s.final ? "There is no row that was on the wire." : "No row has been on the wire yet.") : null)) latency(s.latency);
    $("final").hidden = !s.final_text;
    if (s.final_text) put($("summary"), s.final_text);
  };

  // The stream, and the buttons

  const events = new EventSource("/events");
  let finished = false;
  const lost = text => { const badge = $("state"); put(badge, "no connection"); badge.className = "badge lost"; $("trouble").hidden = false; put($("trouble").firstElementChild, text); };
  events.addEventListener("history", event => { const said = JSON.parse(event.data); points = said.points; marks = said.marks; });
  events.addEventListener("state", event => {
    const said = JSON.parse(event.data);
    show(said);
    if (said.state === "ended") { finished = true; events.close(); }
  });
  events.addEventListener("error", () => {
    if (finished) return;
    $("controls").hidden = true;
    lost(events.readyState === EventSource.CLOSED
      ? "The run does not answer: it has ended, or too many pages look at it (20 may). Reload to try again."
      : "The connection is lost, and is tried again. If the run has ended, what is below is the last that was heard.");
  });
  const answer = (text, bad) => { const node = $("answer"); node.classList.toggle("bad", bad); put(node, text); };
  const ask = async command => {
    try {
      const said = await fetch("/do", {method: "POST", mode: "cors", credentials: "same-origin",
        headers: {"Content-Type": "application/json", "Fetcher-Token": token}, body: JSON.stringify(command)});
      answer(await said.text(), !said.ok);
    } catch {
      answer("The run does not answer.", true);
    }
  };
  $("pause").addEventListener("click", event => ask({do: event.currentTarget.dataset.do}));
  let sure = 0;
  const calm = () => { const stop = $("stop"); stop.classList.remove("sure"); put(stop, "Stop"); };
  $("stop").addEventListener("click", event => {
    const stop = event.currentTarget;
    clearTimeout(sure);
    if (stop.classList.contains("sure")) { calm(); ask({do: "stop"}); return; }
    stop.classList.add("sure"); put(stop, "Stop: sure?");
    answer(`${state && state.kind === "reading" ? "The pages that are being read are finished" : "What is in flight has 5 s to finish"}; what is done is kept. Press again to stop.`, false);
    sure = setTimeout(calm, 6000);
  });
  const form = (id, command) => $(id).addEventListener("submit", event => { event.preventDefault(); ask({do: "limits", ...command()}); });
  form("set-concurrency", () => ({concurrency: $("concurrency").value.trim()}));
  form("set-rate", () => ({rate: $("rate").value.trim() || "none"}));
  form("set-host", () => {
    const said = {host: $("host").value.trim()};
    if ($("per-host").value.trim()) said.per_host = $("per-host").value.trim();
    if ($("delay").value.trim()) said.delay = $("delay").value.trim();
    return said;
  });
  new ResizeObserver(() => { if (state) show(state); }).observe($("pages-plot"));
})();
