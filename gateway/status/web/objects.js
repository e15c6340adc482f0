"use strict";
// What is stored: one object by its id, and the list to browse, download and delete.
const PAGE = 100; // objects that are shown at once; "More" adds as many

// ---- one object

async function facts(id) {
  const [owner, head] = await Promise.all([ask(`/status.json?id=${id}`), ask(`/object/${id}`, { method: "HEAD" })]);
  if (!owner.ok) throw new Error(await reason(owner));
  const { node } = await owner.json();
  if (head.status === 404) throw new Error(`There is no object with this id. It would be on ${node}.`);
  if (head.status === 503) throw new Error(`${node}, which has this id, doesn't answer.`);
  if (!head.ok) throw new Error(answered(head.status));
  const name = file_name(head.headers.get("Content-Disposition"));
  const size = Number(head.headers.get("Content-Length"));
  const told = element("dl");
  for (const [term, value] of Object.entries({
    ...(name && { Name: name }),
    Node: node,
    Size: `${bytes(size)} (${plural(size, "byte")})`,
    Type: head.headers.get("Content-Type"),
    Modified: new Date(head.headers.get("Last-Modified")).toLocaleString(),
  })) told.append(element("dt", term), element("dd", value));
  return told;
}

async function find(id) {
  const found = $("found");
  found.replaceChildren();
  try {
    const told = await facts(id);
    const link = download_link(id, "button", (...what) => found.replaceChildren(told, link, ...what));
    found.replaceChildren(told, link);
  } catch (error) {
    found.replaceChildren(element("p", said(error), "result wrong"));
  }
}

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  find($("id").value);
});

function file_name(header) {
  const whole = /;\s*filename\*=UTF-8''([^;\s]+)/i.exec(header || "");
  if (whole) try { return decodeURIComponent(whole[1]); } catch { /* it isn't encoded as it says */ }
  const plain = /;\s*filename=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/i.exec(header || "");
  return plain ? plain[2] || plain[1].replace(/\\(.)/g, "$1") : "";
}

// ---- a download

// A link, so that it can also be opened elsewhere or copied. `show` gets the elements that say how it goes.
function download_link(id, className, show) {
  const link = element("a", "Download", className);
  link.href = `/object/${id}`;
  link.setAttribute("aria-label", `Download ${id}`);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    download(id, show);
  });
  return link;
}

// Asks first whether the object is there, so that the page can say why it isn't. A link can't send a token: with one,
// the browser itself has to hold the object until all of it has come.
async function download(id, show) {
  const told = element("p", "", "result");
  told.setAttribute("role", "status");
  show(told);
  const stop = new AbortController();
  let begun = false;
  try {
    const head = await ask(`/object/${id}`, { method: "HEAD" });
    if (!head.ok) throw new Error(answered(head.status));
    const name = file_name(head.headers.get("Content-Disposition")) || id;
    if (!token) {
      show();
      return save(`/object/${id}`, name);
    }
    const reply = await ask(`/object/${id}`, { signal: stop.signal });
    if (!reply.ok) throw new Error(await reason(reply));
    begun = true;
    const url = URL.createObjectURL(await fetched(reply, stop, id, (...how) => show(told, ...how)));
    save(url, name);
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    show();
  } catch (error) {
    show(told);
    if (stop.signal.aborted) tell(told, "Cancelled.");
    else tell(told, begun ? "The download broke off, and nothing was saved." : said(error), true);
  }
}

function save(url, name) {
  const link = element("a");
  link.href = url;
  link.download = name;
  link.click();
}

// The whole body, while a bar shows how much of it has come. Its type is none that a browser would run.
function fetched(reply, stop, id, show) {
  const total = Number(reply.headers.get("Content-Length"));
  const bar = progress_bar(`Download of ${id}`);
  show(bar, button("Cancel", `Cancel the download of ${id}`, "small quiet", () => stop.abort()));
  let come = 0;
  const counted = new TransformStream({
    transform(chunk, out) {
      come += chunk.length;
      bar.value = total ? come / total : 1;
      out.enqueue(chunk);
    },
  });
  return new Response(reply.body.pipeThrough(counted), { headers: { "Content-Type": "application/octet-stream" } }).blob();
}

// ---- the list

let listing = null; // what is being asked for; a later question takes its place
let prefix = ""; // of what is shown
let next = null; // the id after which it goes on

// Shows the list's first page, or adds the next one.
async function show_list(more = false) {
  listing?.abort();
  const mine = listing = new AbortController();
  const query = new URLSearchParams({ limit: PAGE, ...(prefix && { prefix }), ...(more && { after: next }) });
  $("list").setAttribute("aria-busy", "true");
  $("count").textContent = "Asking all nodes …";
  tell($("listed"), "");
  try {
    const reply = await ask(`/objects?${query}`, { signal: mine.signal });
    if (!reply.ok) throw new Error(await reason(reply));
    const page = await reply.json();
    if (mine.signal.aborted) return;
    add_rows(page, more);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (more) show_count();
    else {
      add_rows({ objects: [], next: null }, false);
      $("count").textContent = "";
    }
    tell($("listed"), said(error), true);
  }
  $("list").setAttribute("aria-busy", "false");
}

function add_rows(page, more) {
  const rows = page.objects.map(object_row);
  if (more) $("objects").append(...rows);
  else $("objects").replaceChildren(...rows);
  const had_focus = document.activeElement === $("more");
  next = page.next;
  $("more").hidden = next === null;
  if (had_focus && $("more").hidden) (rows[0] ?? $("objects").lastChild).querySelector("button").focus();
  show_count();
}

function show_count() {
  const shown = $("objects").querySelectorAll(".object").length;
  $("list").hidden = !shown;
  if (shown) $("count").textContent = `${plural(shown, "object")}${next === null ? "" : " shown, there are more"}`;
  else $("count").textContent = prefix ? `No id begins with ${prefix}` : "No object is stored";
}

function object_row({ id, size, modified }) {
  const row = element("tr", undefined, "object");
  const [name, actions] = [element("td"), element("td", undefined, "actions")];
  const more = button(id, `Details of ${id}`, "plain", () => details(id, row, more));
  more.setAttribute("aria-expanded", "false");
  name.append(more);
  const remove = button("Delete", `Delete ${id}`, "small quiet", () => delete_object(id, size, row, remove));
  const when = element("time", new Date(modified).toLocaleString());
  const dated = element("td", undefined, "when");
  when.dateTime = modified;
  dated.append(when);
  actions.append(download_link(id, "button small quiet", (...what) => beneath(row, ...what)), remove);
  row.append(name, element("td", bytes(size), "number"), dated, actions);
  return row;
}

// Shows this beneath a row, in the place of what was there.
function beneath(row, ...what) {
  if (row.nextSibling?.className === "beneath") row.nextSibling.remove();
  row.querySelector(".plain").setAttribute("aria-expanded", "false");
  if (!what.length) return;
  const cell = element("td");
  cell.colSpan = 4;
  cell.append(...what);
  const made = element("tr", undefined, "beneath");
  made.append(cell);
  row.after(made);
}

async function details(id, row, opener) {
  if (opener.getAttribute("aria-expanded") === "true") return beneath(row);
  try {
    beneath(row, await facts(id));
    opener.setAttribute("aria-expanded", "true");
  } catch (error) {
    refused_beneath(row, error);
  }
}

function refused_beneath(row, error) {
  const told = element("p");
  told.setAttribute("role", "status");
  beneath(row, told);
  tell(told, said(error), true);
}

async function delete_object(id, size, row, pressed) {
  $("sure-title").textContent = `Delete ${id}?`;
  $("sure-text").textContent = `${bytes(size)} that can't be brought back.`;
  if ((await asked($("sure"))) !== "delete" || !(await writer())) return;
  pressed.disabled = true;
  try {
    const reply = await ask(`/object/${id}`, { method: "DELETE" });
    if (!reply.ok) throw new Error(await reason(reply));
    beneath(row);
    const near = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    (near?.querySelector("button, a") ?? $("prefix")).focus();
    if ($("objects").children.length || next === null) show_count();
    else await show_list(); // there are more, which weren't shown
    tell($("listed"), `${id} is deleted.`);
  } catch (error) {
    pressed.disabled = false;
    refused_beneath(row, error);
  }
}

$("browse").addEventListener("submit", (event) => {
  event.preventDefault();
  prefix = $("prefix").value;
  show_list();
});
$("more").addEventListener("click", () => { if ($("list").getAttribute("aria-busy") !== "true") show_list(true); });
