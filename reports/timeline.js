// The night's detector-visits on a canvas: worker by worker against the clock, or visit by visit against its readout.
(async function () {
  "use strict";
  const T = JSON.parse(document.getElementById("timeline-data").textContent);
  const box = document.getElementById("timeline"), canvas = box.querySelector("canvas"), note = box.querySelector(".note");
  if (typeof DecompressionStream === "undefined") {
    note.textContent = "This browser cannot unpack the timeline; workers.png shows the worst visit."; return;
  }
  const raw = Uint8Array.from(atob(T.data), c => c.charCodeAt(0));
  const bytes = await new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  const n = T.n, nd = T.detectors, K = T.held.length, NEVER = 65535;
  let at = 0;
  const column = (kind, size) => { const a = new kind(bytes.slice(at, at + n * size)); at += n * size; return a; };
  const taken = column(Uint32Array, 4), held = T.held.map(() => column(Uint16Array, 2));
  const delivered = column(Uint16Array, 2), row = column(Uint16Array, 2), reason = column(Uint8Array, 1);
  const colours = T.colours.map(c => 0xff000000 | parseInt(c.slice(5, 7) + c.slice(3, 5) + c.slice(1, 3), 16));
  const INK = 0xff33271c, ground = 0xffffffff, L = 64, B = 34, R = 8, TOP = 6;
  const views = {
    visits: { x: [-60, 0], y: [0, n], label: "seconds after the end of readout", rows: "visit" },
    workers: { x: [0, T.end_s], y: [0, T.rows], label: "hours of the simulated clock", rows: "worker" } };
  let longest = 120;
  for (let i = 0; i < n; i++) {
    if (taken[i] === 0xffffffff || delivered[i] === NEVER) continue;
    longest = Math.max(longest, (taken[i] + delivered[i]) * T.tick_s - T.readout_s[Math.floor(i / nd)]);
  }
  views.visits.x[1] = 1.05 * longest;
  const whole = JSON.parse(JSON.stringify(views));
  views.visits.x[1] = Math.min(1.05 * longest, 5 * T.limit_s);
  const first = JSON.parse(JSON.stringify(views));
  let mode = "visits", W = 0, H = 0;

  function draw() {
    const g = canvas.getContext("2d"), v = views[mode], byVisit = mode === "visits";
    W = canvas.width - L - R; H = canvas.height - TOP - B;
    const image = g.createImageData(W, H), px = new Uint32Array(image.data.buffer);
    px.fill(ground);
    const sx = W / (v.x[1] - v.x[0]), sy = H / (v.y[1] - v.y[0]), gap = sy > 5 ? 1 : 0;
    const from = byVisit ? Math.max(0, Math.floor(v.y[0])) : 0, to = byVisit ? Math.min(n, Math.ceil(v.y[1])) : n;
    for (let i = from; i < to; i++) {
      if (taken[i] === 0xffffffff) continue;
      const r = byVisit ? i : row[i];
      if (r + 1 <= v.y[0] || r >= v.y[1]) continue;
      const y0 = Math.max(0, Math.floor((r - v.y[0]) * sy));
      const y1 = Math.min(H, Math.max(y0 + 1, Math.floor((r + 1 - v.y[0]) * sy) - gap));
      const zero = (byVisit ? T.readout_s[Math.floor(i / nd)] : 0) + v.x[0];
      let t = taken[i] * T.tick_s - zero;
      const sent = delivered[i] === NEVER ? -1 : Math.floor((t + delivered[i] * T.tick_s) * sx);
      for (let k = 0; k < K; k++) {
        const end = t + (held[k][i] === NEVER ? 0 : held[k][i] * T.tick_s);
        const a = Math.max(0, Math.floor(t * sx)), b = Math.min(W, Math.floor(end * sx));
        for (let y = y0; a < b && y < y1; y++) px.fill(colours[k], y * W + a, y * W + b);
        t = end;
      }
      if (sent >= 0 && sent < W && sy >= 0.5) for (let y = y0; y < y1; y++) px[y * W + sent] = INK;
    }
    g.fillStyle = "#fff"; g.fillRect(0, 0, canvas.width, canvas.height);
    g.putImageData(image, L, TOP);
    axes(g, v, sx, sy, byVisit);
  }

  function ticks(lo, hi, most) {
    const rough = (hi - lo) / most, p = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = p * [1, 2, 5, 10].find(m => m * p >= rough), out = [];
    for (let t = Math.ceil(lo / step) * step; t <= hi; t += step) out.push(Math.abs(t) < 1e-9 * step ? 0 : t);
    return [out, step];
  }

  function axes(g, v, sx, sy, byVisit) {
    const unit = byVisit ? 1 : 3600, per = byVisit ? nd : 1;
    g.font = "12px system-ui, sans-serif"; g.strokeStyle = "#6b7885"; g.fillStyle = "#1c2733"; g.lineWidth = 1;
    g.strokeRect(L - 0.5, TOP + 0.5, W + 1, H);
    const [xs, dx] = ticks(v.x[0] / unit, v.x[1] / unit, 10);
    g.textAlign = "center";
    for (const t of xs) {
      const x = L + (t * unit - v.x[0]) * sx;
      g.beginPath(); g.moveTo(x, TOP + H); g.lineTo(x, TOP + H + 4); g.stroke();
      g.fillText(t.toFixed(Math.max(0, -Math.floor(Math.log10(dx) + 1e-9))), x, TOP + H + 16);
    }
    g.fillText(v.label, L + W / 2, canvas.height - 3);
    g.textAlign = "right";
    const [ys, dy] = ticks(v.y[0] / per, v.y[1] / per, 8);
    for (const t of ys) {
      const y = TOP + (t * per - v.y[0]) * sy;
      g.beginPath(); g.moveTo(L - 4, y); g.lineTo(L, y); g.stroke();
      g.fillText(t.toFixed(Math.max(0, -Math.floor(Math.log10(dy) + 1e-9))), L - 7, y + 4);
    }
    g.save(); g.translate(12, TOP + H / 2); g.rotate(-Math.PI / 2); g.textAlign = "center";
    g.fillText(byVisit ? "visit, its detectors below each other" : "worker", 0, 0); g.restore();
    const lines = byVisit ? [[0, "#1c2733", "readout ends"], [T.limit_s, "#c2413b", T.limit_s + " s"]] : [];
    g.textAlign = "left";
    let below = 0;
    for (const [t, colour, text] of lines) {
      const x = L + (t - v.x[0]) * sx;
      if (x < L || x > L + W) continue;
      g.strokeStyle = g.fillStyle = colour;
      g.beginPath(); g.moveTo(x, TOP); g.lineTo(x, TOP + H); g.stroke();
      const wide = g.measureText(text).width;
      g.fillStyle = "#ffffffd0"; g.fillRect(x + 2, TOP + 2 + below, wide + 4, 15);
      g.fillStyle = colour; g.fillText(text, x + 4, TOP + 14 + below); below += 16;
    }
  }

  function clamp(v, w) {
    for (const a of ["x", "y"]) {
      const span = Math.min(v[a][1] - v[a][0], w[a][1] - w[a][0]);
      const lo = Math.min(Math.max(v[a][0], w[a][0]), w[a][1] - span);
      v[a] = [lo, lo + span];
    }
  }

  function zoom(factor, fx, fy, onlyX) {
    const v = views[mode], least = { x: 2, y: 4 };
    for (const [a, f] of onlyX ? [["x", fx]] : [["x", fx], ["y", fy]]) {
      const span = v[a][1] - v[a][0], next = Math.max(span * factor, least[a]), c = v[a][0] + f * span;
      v[a] = [c - f * next, c + (1 - f) * next];
    }
    clamp(v, whole[mode]); draw();
  }

  function show(name, place) {
    mode = name;
    const v = views[mode], i = T.worst;
    if (place === "all") { v.x = first[mode].x.slice(); v.y = first[mode].y.slice(); }
    if (place === "worst" && mode === "visits") v.y = [(i - 3) * nd, (i + 4) * nd];
    if (place === "worst" && mode === "workers") { v.x = T.window_s.slice(); v.y = whole[mode].y.slice(); }
    clamp(v, whole[mode]);
    box.querySelectorAll("[data-mode]").forEach(b => b.setAttribute("aria-pressed", b.dataset.mode === mode));
    draw();
  }

  function spot(event) {
    const r = canvas.getBoundingClientRect(), s = canvas.width / r.width;
    return [((event.clientX - r.left) * s - L) / W, ((event.clientY - r.top) * s - TOP) / H];
  }

  function tell(event) {
    const [fx, fy] = spot(event), v = views[mode];
    if (fx < 0 || fx > 1 || fy < 0 || fy > 1) return;
    const x = v.x[0] + fx * (v.x[1] - v.x[0]), r = Math.floor(v.y[0] + fy * (v.y[1] - v.y[0]));
    let best = -1;
    if (mode === "visits") best = r < n ? r : -1;
    else for (let i = 0; i < n && best < 0; i++) {
      if (row[i] !== r || taken[i] === 0xffffffff || taken[i] * T.tick_s > x) continue;
      let end = taken[i]; for (let k = 0; k < K; k++) end += held[k][i];
      if (end * T.tick_s >= x) best = i;
    }
    if (best < 0) { note.textContent = "Worker " + r + " is free."; return; }
    const visit = Math.floor(best / nd), zero = T.readout_s[visit], said = T.reasons[reason[best]];
    let text = "Visit " + T.visits[visit] + " (" + visit + "), detector " + (best % nd);
    if (taken[best] === 0xffffffff) { note.textContent = text + ": never taken: " + said; return; }
    text += ", worker " + row[best] + ": taken " + (taken[best] * T.tick_s - zero).toFixed(1) + " s after readout; ";
    text += T.held.map((name, k) => name + " " + (held[k][best] * T.tick_s).toFixed(1) + " s").join(", ");
    text += delivered[best] === NEVER ? "; not sent" + (said ? ": " + said : "")
      : "; sent after " + ((taken[best] + delivered[best]) * T.tick_s - zero).toFixed(1) + " s";
    note.textContent = text;
  }

  let drag = null;
  canvas.addEventListener("mousedown", e => { drag = spot(e); });
  window.addEventListener("mouseup", () => { drag = null; });
  canvas.addEventListener("mousemove", e => {
    if (!drag) return tell(e);
    const now = spot(e), v = views[mode];
    for (const [a, k] of [["x", 0], ["y", 1]]) {
      const move = (drag[k] - now[k]) * (v[a][1] - v[a][0]);
      v[a] = [v[a][0] + move, v[a][1] + move];
    }
    drag = now; clamp(v, whole[mode]); draw();
  });
  canvas.addEventListener("wheel", e => {
    if (document.activeElement !== canvas) return;     // a click first: the page scrolls until then
    e.preventDefault();
    zoom(e.deltaY > 0 ? 1.25 : 0.8, ...spot(e), e.shiftKey);
  }, { passive: false });
  canvas.addEventListener("dblclick", e => zoom(0.4, ...spot(e), e.shiftKey));
  box.querySelectorAll("[data-mode]").forEach(b => b.addEventListener("click", () => show(b.dataset.mode, "")));
  box.querySelectorAll("[data-place]").forEach(b => b.addEventListener("click", () => show(mode, b.dataset.place)));
  box.querySelectorAll("[data-zoom]").forEach(b => b.addEventListener("click", () => zoom(+b.dataset.zoom, 0.5, 0.5)));
  if (location.hash.startsWith("#timeline-")) {        // #timeline-workers-worst
    const [, name, place] = location.hash.split("-");
    show(name in views ? name : "visits", place || "all");
  } else show("visits", "all");
})();
