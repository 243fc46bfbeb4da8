// The margins section: filters, an overview of all selected brackets, and a table of fifty at a time.
// The choice stands in the address after #, so that it can be kept as a link.
(function () {
  "use strict";
  const PAGE = 50, LETTERS = 24;
  const data = JSON.parse(document.getElementById("rows").textContent);
  const form = document.getElementById("filters");
  const canvas = document.getElementById("overview");
  const body = document.querySelector("#brackets tbody");
  const pager = document.getElementById("pager");
  const table = document.getElementById("brackets");
  const explorer = document.getElementById("explorer");
  const root = document.documentElement;
  const names = ["case", "status", "method", "label", "sort"];
  const orders = [["index", "sample"], ["lower", "lower end"], ["upper", "upper end"], ["width", "width, widest first"], ["ms", "time, longest first"]];
  const longest = Math.max(...data.cases.map(one => one.name.length));
  let chosen = [];
  let page = 0;
  let scale = null;

  function element(name, text, style) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (style) made.className = style;
    return made;
  }

  function offer(name, options) {
    for (const [value, text] of options) form.elements[name].append(new Option(text, value));
  }

  function offerAll() {
    const met = { status: new Set(), method: new Set(), label: new Set() };
    for (const one of data.cases) for (const key in met) for (const value of one[key]) met[key].add(value);
    const sorted = key => [...met[key]].sort((a, b) => a - b);
    offer("case", [["", "all"], ...data.cases.map((one, k) => [k, one.name])]);
    offer("status", [["", "all"], ...sorted("status").map(k => [data.statuses[k], data.statuses[k]])]);
    offer("method", [["", "all"], ...sorted("method").map(k => [data.methods[k], data.methods[k]])]);
    offer("label", [["", "all"], ...sorted("label").map(k => [k, k])]);
    offer("sort", orders);
  }

  // -- the choice and the address ------------------------------------------------------------------

  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (![...asked.keys()].some(key => key === "page" || names.includes(key))) return false;
    for (const name of names) {
      form.elements[name].value = asked.get(name) || "";
      if (form.elements[name].selectedIndex < 0) form.elements[name].selectedIndex = 0;
    }
    page = Math.max(0, (parseInt(asked.get("page"), 10) || 1) - 1);
    return true;
  }

  function writeAddress() {
    const stated = new URLSearchParams();
    for (const name of names) if (form.elements[name].selectedIndex > 0) stated.set(name, form.elements[name].value);
    if (page) stated.set("page", page + 1);
    const text = stated.toString();
    history.replaceState(null, "", text ? "#" + text : "#margins");
  }

  // -- selecting -----------------------------------------------------------------------------------

  function low(row) { const end = row.of.lower[row.at]; return end === null ? -Infinity : end; }
  function high(row) { const end = row.of.upper[row.at]; return end === null ? Infinity : end; }
  function difference(a, b) { return a === b ? 0 : a - b; } // Infinity - Infinity is NaN

  const compare = {
    index: (a, b) => a.of.index[a.at] - b.of.index[b.at],
    lower: (a, b) => difference(low(a), low(b)),
    upper: (a, b) => difference(high(a), high(b)),
    width: (a, b) => difference(high(b) - low(b), high(a) - low(a)),
    ms: (a, b) => b.of.ms[b.at] - a.of.ms[a.at],
  };

  function select() {
    const want = {};
    for (const name of names) want[name] = form.elements[name].value;
    const status = want.status && data.statuses.indexOf(want.status);
    const method = want.method && data.methods.indexOf(want.method);
    chosen = [];
    data.cases.forEach((of, number) => {
      if (want.case !== "" && Number(want.case) !== number) return;
      for (let at = 0; at < of.index.length; at++) {
        if (want.status && of.status[at] !== status) continue;
        if (want.method && of.method[at] !== method) continue;
        if (want.label !== "" && of.label[at] !== Number(want.label)) continue;
        chosen.push({ of, at });
      }
    });
    chosen.sort(compare[want.sort] || compare.index);
    scale = scaleOf(chosen);
  }

  // Margin -> 0..1, linear near 0 and logarithmic far from it: bounds of weak methods are huge.
  function scaleOf(rows) {
    const sizes = rows.map(row => Math.abs(row.of.upper[row.at] || 0)).filter(size => size > 0).sort((a, b) => a - b);
    const unit = sizes.length ? sizes[sizes.length >> 1] : 1;
    const bend = value => Math.asinh(value / unit);
    let least = -0.1, most = 0.1;
    for (const row of rows) for (const end of [row.of.lower[row.at], row.of.upper[row.at]]) {
      if (end === null) continue;
      least = Math.min(least, bend(end));
      most = Math.max(most, bend(end));
    }
    const room = 0.03 * (most - least);
    return value => (bend(value) - least + room) / (most - least + 2 * room);
  }

  function ends(row) {
    const lower = row.of.lower[row.at], upper = row.of.upper[row.at];
    return [lower === null ? 0 : scale(lower), upper === null ? 1 : scale(upper)];
  }

  // -- showing -------------------------------------------------------------------------------------

  function draw() {
    const width = canvas.clientWidth, height = canvas.clientHeight, dense = window.devicePixelRatio || 1;
    canvas.width = width * dense;
    canvas.height = height * dense;
    const pen = canvas.getContext("2d"), style = getComputedStyle(root);
    pen.scale(dense, dense);
    const step = Math.min(8, width / Math.max(1, chosen.length));
    pen.lineWidth = Math.max(1, step * 0.7);
    data.statuses.forEach((name, status) => {
      pen.strokeStyle = style.getPropertyValue("--" + name);
      pen.beginPath();
      chosen.forEach((row, k) => {
        if (row.of.status[row.at] !== status) return;
        const [left, right] = ends(row), x = (k + 0.5) * step;
        pen.moveTo(x, height * (1 - left) + 1);
        pen.lineTo(x, height * (1 - right) - 1);
      });
      pen.stroke();
    });
    pen.strokeStyle = style.getPropertyValue("--text");
    pen.lineWidth = 1;
    pen.beginPath();
    const zero = Math.round(height * (1 - scale(0))) + 0.5;
    pen.moveTo(0, zero);
    pen.lineTo(width, zero);
    pen.stroke();
  }

  function number(value, absent) { return value === null ? absent : String(value).replace("-", "\u2212"); }

  function bar(row, status) {
    const [left, right] = ends(row), cell = element("td", undefined, "track");
    const track = element("div", undefined, "bar " + status), mark = element("i"), zero = element("b");
    mark.style.left = 100 * left + "%";
    mark.style.width = 100 * Math.max(0, right - left) + "%";
    zero.style.left = 100 * scale(0) + "%";
    track.append(mark, zero);
    cell.append(track);
    return cell;
  }

  function cell(text, style, label) {
    const made = element("td", text, style);
    if (label) made.dataset.label = label;
    return made;
  }

  function breakable(made) { // lines break after these letters first, and anywhere only where that is not enough
    const pieces = made.textContent.match(/[^_\-./]*[_\-./]+|[^_\-./]+/g) || [];
    made.replaceChildren(...pieces.flatMap(piece => [piece, element("wbr")]));
    return made;
  }

  function line(row) {
    const { of, at } = row, status = data.statuses[of.status[at]], made = element("tr");
    const said = cell(status, "status " + status), detail = data.details[of.detail[at]];
    if (of.predicted[at] !== of.label[at]) said.append(element("small", "answers " + of.predicted[at]));
    if (detail) said.append(element("small", detail));
    if (data.cases.length > 1) made.append(breakable(cell(of.name, "of name")));
    made.append(
      cell(of.index[at], "number", "sample"), cell(of.label[at], "number", "label"), said,
      cell(data.methods[of.method[at]], "", "by"), bar(row, status),
      cell(number(of.lower[at], "none"), "number", "from"), cell(number(of.upper[at], "none"), "number", "to"),
      cell(of.ms[at], "number", "ms"));
    return made;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    page = Math.min(page, pages - 1);
    document.getElementById("count").textContent = chosen.length + (chosen.length === 1 ? " sample" : " samples") + " selected";
    fill(page * PAGE, PAGE);
    pager.hidden = pages === 1;
    pager.querySelector("span").textContent = "page " + (page + 1) + " of " + pages;
    for (const button of pager.querySelectorAll("button")) {
      button.disabled = ["first", "back"].includes(button.dataset.step) ? page === 0 : page === pages - 1;
    }
  }

  function stack() { // whether a case's name has a line of its own
    const wide = window.matchMedia("(min-width: 72rem)").matches;
    table.classList.toggle("stacked", data.cases.length > 1 && (longest > LETTERS || !wide));
  }

  function fill(first, count) { body.replaceChildren(...chosen.slice(first, first + count).map(line)); }

  function refresh() { select(); show(); draw(); }

  // -- printing ------------------------------------------------------------------------------------

  function beforePrinting() { // all that is folded; the table with filters stays on the screen
    root.dataset.printing = "";
    for (const one of document.querySelectorAll("details:not([open]):not(#explorer)")) { one.open = true; one.dataset.closed = ""; }
  }

  function afterPrinting() {
    delete root.dataset.printing;
    for (const one of document.querySelectorAll("details[data-closed]")) { one.open = false; delete one.dataset.closed; }
  }

  explorer.hidden = false;
  explorer.addEventListener("toggle", draw); // folded it has no width
  offerAll();
  for (const head of document.querySelectorAll("#brackets th.of")) head.hidden = data.cases.length < 2;
  document.querySelectorAll(".name span, h3, summary").forEach(breakable);
  table.style.setProperty("--letters", longest);
  window.addEventListener("beforeprint", beforePrinting);
  window.addEventListener("afterprint", afterPrinting);
  form.addEventListener("change", () => { page = 0; refresh(); writeAddress(); });
  form.addEventListener("submit", event => event.preventDefault());
  pager.addEventListener("click", event => {
    const step = event.target.dataset.step;
    if (!step) return;
    page = { first: 0, back: page - 1, on: page + 1, last: Infinity }[step];
    show();
    writeAddress();
  });
  window.addEventListener("hashchange", () => { if (readAddress()) { explorer.open = true; refresh(); } });
  window.addEventListener("resize", () => { stack(); draw(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  if (readAddress()) explorer.open = true;
  stack();
  refresh();
  root.dataset.shown = performance.now().toFixed(0); // milliseconds until all is there
})();
