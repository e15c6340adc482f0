"use strict";
// What the gateway says of itself: the nodes, what there is to do, the requests, every two seconds.
const POLL = 2000; // milliseconds
const SCARCE = 0.1; // of a disk that is free, below which it is said
const STATES = {
  up: "up", down: "down", stopped: "stopped", wrong: "not what it was", pending: "not asked yet",
  foreign: "of another installation", unknown: "holds unknown objects",
};
const ROLES = { joining: "joining", leaving: "leaving" };

function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function rate(number) { return number >= 10 ? count(Math.round(number)) : number.toFixed(1); }

// A round number that is at least this one.
function round_up(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= number * 0.999);
}

// ---- the state

function summarize(kind, text) {
  $("summary").className = `state ${kind}`;
  if ($("summary").textContent !== text) $("summary").textContent = text; // else it would be read out again
}

function show(status) {
  const first = $("content").hidden;
  may_write = status.may_write !== false;
  const now = Date.parse(status.time);
  const ago = (time) => (now - Date.parse(time)) / 1000;
  $("entry").hidden = true;
  $("content").hidden = false;
  summarize(...summary(status));
  const notes = [...source_notes(status), ...status.nodes.map((node) => node_note(node)), ...layout_notes(status)].filter(Boolean);
  // What is read out is what has changed.
  if (notes.join() !== [...$("note").children].map((each) => each.textContent).join()) {
    $("note").replaceChildren(...notes.map((text) => note(text, status.nodes)));
  }
  $("note").hidden = !notes.length;
  $("layout").textContent = `${plural(status.layout.names.length, "node")} in the layout, ${status.layout.settled ? "settled" : "not settled"}`;
  show_nodes(status.nodes, ago);
  show_requests(status.history);
  $("footer").textContent = `Version ${status.version}. The state is read every two seconds, the list of objects when you ask for it.`;
  $("by-token").hidden = !token;
  if (first) show_list();
}

function summary(status) {
  if (!status.nodes.length) return ["down", "No node is known"];
  if (status.conflict) return ["down", "Nothing is served"];
  if (status.status === "unavailable") return ["down", "No node answers"];
  const away = status.nodes.filter((node) => node.role !== "outside" && node.state !== "up").map((node) => node.name);
  if (!away.length) return ["up", "All nodes answer"];
  if (away.length > 2) return ["degraded", `${away.length} of ${status.nodes.length} nodes don't answer`];
  return ["degraded", `${list(away)} ${away.length > 1 ? "don't" : "doesn't"} answer`];
}

// A note in which the nodes' names stay on one line, where it is wide enough.
function note(text, nodes) {
  const made = element("li");
  const names = nodes.map((node) => node.name).sort((one, other) => other.length - one.length);
  const escaped = names.map((name) => name.replace(/[^\w-]/g, "\\$&"));
  for (const part of names.length ? text.split(new RegExp(`(${escaped.join("|")})`)) : [text]) {
    made.append(names.includes(part) ? element("span", part, "name") : part);
  }
  return made;
}

function source_notes(status) {
  if (!status.docker.read) return [`${status.source} couldn't be read yet.`];
  if (!status.docker.answers) return [`${status.source} can't be read; what is known of it is ${span(status.docker.seconds_ago)} old.`];
  return [];
}

// What is to be said of a node, and to be done.
function node_note({ name, role, state, last_error: error, usage }) {
  if (role === "outside") {
    return { up: "", pending: "" }[state] ?? `${name} isn't used: ${error || STATES[state]}.`;
  }
  const lost = role === "leaving" ? "what it still holds is" : "its ids are";
  if (state === "stopped") {
    return `${name} is stopped, and ${lost} refused with 503. Start it; or, if it is gone for good, give up what it held: objgwctl.py remove --lost ${name}`;
  }
  if (state !== "up" && state !== "pending") {
    return `${name}: ${error || "it doesn't answer"}. Until that is repaired ${lost} refused with 503; the node's own log may say more.`;
  }
  if (role === "joining") return `${name} is joining: in a moment it gets its share of the ids.`;
  if (usage && usage.free_bytes < SCARCE * usage.total_bytes) {
    return `${name} has ${bytes(usage.free_bytes)} left. Once it is full, uploads for its ids are refused with 507: add a node, or give it a larger disk.`;
  }
  return "";
}

function layout_notes(status) {
  if (status.conflict) return [`Nothing is served: ${status.conflict}.`];
  if (status.layout.settled) return [];
  const used = status.nodes.filter((node) => node.role !== "outside");
  const found = used.every((node) => node.state === "up") ? " They are found meanwhile." : "";
  const leaving = used.filter((node) => node.role === "leaving" && node.state === "up").map((node) => node.name);
  const left = leaving.length ? ` ${list(leaving)} can be stopped after that.` : "";
  if (status.layout.moving) return [`A rebalance is moving objects to their nodes.${found}${left}`];
  return [`Objects that aren't at their nodes yet wait for objgwctl.py rebalance, which moves them.${found}${left}`];
}

function show_nodes(nodes, ago) {
  const counts = nodes.map(held);
  const all = counts.reduce((sum, count) => sum + (count ? count.objects : 0), 0);
  $("nodes").replaceChildren(...nodes.map((node, which) => row(node, counts[which], all, ago)));
  const counted = nodes.map((node) => node.census).filter((census) => census && census.objects !== null);
  const capped = counts.some((count) => count && count.own);
  $("counted").textContent = counted.length
    ? `Counted ${span(Math.max(...counted.map((census) => ago(census.at))))} ago, and again every minute.${capped ? " What is above 10,000 objects the node has counted itself, some time ago." : ""}`
    : "Objects are being counted.";
}

// The objects of a node, where they are known: what was counted for this page, or else the node's own count.
function held({ census, usage }) {
  if (!census || census.objects === null) return null;
  if (!census.more) return { objects: census.objects, bytes: census.bytes, more: "", own: false };
  const own = usage && usage.objects !== null && usage.objects > census.objects;
  return { ...(own ? { objects: usage.objects, bytes: usage.bytes, more: "" } : { objects: census.objects, bytes: census.bytes, more: "more than " }), own };
}

function row(node, count_of, all, ago) {
  const made = element("tr");
  const state = element("td", undefined, "state-of");
  const role = ROLES[node.role];
  const said_state = STATES[node.state] || node.state;
  state.append(element("span", role ? `${role}, ${said_state}` : said_state, `state ${node.state}`));
  if (node.since) state.append(element("span", `for ${span(ago(node.since))}`, "muted"));
  if (node.last_error && node.state === "up") {
    state.append(element("span", `${span(ago(node.last_error_at))} ago: ${node.last_error}`, "muted"));
  }
  if (node.ignores && node.ignores.length) {
    state.append(element("span", `its server ignores ${node.ignores.join(", ")}: such uploads are 501`, "muted"));
  }
  if (node.stores_cut) {
    state.append(element("span", "its server stores cut uploads: they wait in the gateway until they are whole", "muted"));
  }
  const objects = element("td", count_of ? count_of.more + count(count_of.objects) : "–", "number");
  const size = element("td", count_of ? count_of.more + bytes(count_of.bytes) : "–", "number");
  if (count_of) objects.append(element("span", count_of.objects === 1 ? "object" : "objects", "unit"));
  if (count_of && all) objects.append(element("span", `${(100 * count_of.objects / all).toFixed(1)} % of all`, "muted"));
  for (const cell of [objects, size]) cell.classList.toggle("unknown", !count_of);
  made.append(element("td", node.name), state, objects, size, disk(node.usage));
  return made;
}

// A bar that shows how full a node's disk is, and the same in words.
function disk(usage) {
  const cell = element("td", undefined, "disk");
  if (!usage) {
    cell.append(element("span", "How full it is isn't known", "muted"));
    return cell;
  }
  const part = (usage.total_bytes - usage.free_bytes) / usage.total_bytes;
  const bar = element("span", undefined, "bar");
  bar.classList.toggle("scarce", 1 - part < SCARCE);
  bar.setAttribute("aria-hidden", "true");
  const fill = element("i");
  fill.style.width = `${100 * part}%`;
  bar.append(fill);
  cell.append(bar, element("span", `${Math.round(100 * part)} % full, ${bytes(usage.free_bytes)} free`, "muted"));
  return cell;
}

function show_requests(history) {
  const { seconds, samples, points } = history;
  const sums = points.map((point) => point[0] + point[1] + point[2]);
  const highest = Math.max(...sums, 0) / seconds;
  const top = highest ? round_up(highest) : 1;
  const plot = $("plot");
  plot.setAttribute("viewBox", `0 0 ${samples * 10} 100`);
  const shapes = [0, 50, 100].map((y) => shape("line", { x1: 0, x2: samples * 10, y1: y, y2: y }));
  points.forEach((point, index) => {
    let y = 100;
    ["fine", "client", "failed"].forEach((kind, which) => {
      if (!point[which]) return;
      const height = Math.max(0.8, (100 * point[which]) / seconds / top);
      y -= height;
      shapes.push(shape("rect", { x: (samples - points.length + index) * 10 + 1, y, width: 8, height, class: kind }));
    });
  });
  plot.replaceChildren(...shapes);
  const total = sums.reduce((sum, each) => sum + each, 0);
  const failed = points.reduce((sum, point) => sum + point[2], 0);
  const last = sums.length ? sums[sums.length - 1] / seconds : 0;
  $("top").textContent = `${rate(top)} / s`;
  $("first").textContent = `${span(samples * seconds)} ago`;
  $("rates").textContent = `${rate(last)} / s now, ${count(total)} in ${span(points.length * seconds)}, ${count(failed)} failed`;
  plot.setAttribute("aria-label", `Requests of the last ${span(samples * seconds)}: ${$("rates").textContent}`);
}

function shape(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// ---- every two seconds, while somebody can see it

let timer = 0;

async function poll() {
  clearTimeout(timer);
  try {
    const sent = token;
    const reply = await ask("/status.json");
    if (reply.ok) {
      const status = await reply.json();
      if (sent === token) show(status);
    } else if (reply.status !== 401) summarize("down", await reason(reply));
    if (reply.status === 401 && !$("entry").hidden) return;
  } catch {
    summarize("down", "The gateway can't be reached");
  }
  if (!document.hidden) timer = setTimeout(poll, POLL);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && $("entry").hidden) poll(); });
poll();
