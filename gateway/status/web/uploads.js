"use strict";
// Uploads: a row for each file, with an id that can be changed, a bar, and what became of it.
//
// A row is "ready", "waiting" for others, "sending", "stored" or "refused". What was refused is tried again with the next
// press of "Upload".
const AT_ONCE = 3; // of the six connections that a browser has to one server
const uploads = [];

// ---- the rows

$("file").addEventListener("change", () => {
  for (const file of $("file").files) add_upload(file);
  $("file").value = ""; // so that the same file can be chosen again
  show_uploads();
});

function add_upload(file) {
  const row = element("li");
  const id = element("input");
  const size = element("span", bytes(file.size), "muted");
  const [head, label] = [element("div", undefined, "head"), element("label", "Id")];
  const [bar, told] = [progress_bar(`Upload of ${file.name}`), element("p", "", "result")];
  const upload = { file, row, id, label, size, bar, told, state: "ready" };
  Object.assign(id, {
    value: proposed_id(file.name), pattern: "[A-Za-z0-9]{1,32}", maxLength: 32, placeholder: "a new one",
    title: "1 to 32 letters and digits, or none for a new id", autocomplete: "off", autocapitalize: "off", spellcheck: false,
  });
  id.setAttribute("aria-label", `Id of ${file.name}`);
  id.addEventListener("input", check_ids);
  upload.button = button("Remove", `Remove ${file.name}`, "small quiet", () => end_upload(upload));
  told.setAttribute("role", "status");
  bar.hidden = true;
  head.append(element("span", file.name, "file"), size);
  label.append(id);
  row.append(head, label, upload.button, bar, told);
  uploads.push(upload);
  $("uploads").append(row);
}

// Letters and digits of the file's name, and a number where another row has them.
function proposed_id(name) {
  const plain = name.normalize("NFKD").replace(/[^A-Za-z0-9]/g, "").slice(0, 32);
  const taken = new Set(uploads.map((upload) => upload.id.value));
  let id = plain;
  for (let number = 2; id && taken.has(id); number += 1) id = plain.slice(0, 32 - `${number}`.length) + number;
  return id;
}

function new_id() {
  const letters = "abcdefghijkmnopqrstuvwxyz23456789"; // none that look alike
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => letters[byte % letters.length]).join("");
}

function open_uploads() { return uploads.filter(({ state }) => state === "ready" || state === "refused"); }

function busy_uploads() { return uploads.filter(({ state }) => state === "waiting" || state === "sending"); }

function check_ids() {
  const used = [...open_uploads(), ...busy_uploads()].map((upload) => upload.id.value).filter(Boolean);
  for (const { id } of open_uploads()) {
    id.setCustomValidity(used.filter((each) => each === id.value).length > 1 ? "Another file here has this id." : "");
  }
}

function set_state(upload, state, text = "", wrong = false) {
  upload.state = state;
  const busy = state === "waiting" || state === "sending";
  upload.row.className = state;
  upload.id.readOnly = busy;
  upload.label.hidden = state === "stored";
  upload.bar.hidden = !busy;
  upload.button.textContent = busy ? "Cancel" : "Remove";
  upload.button.setAttribute("aria-label", `${upload.button.textContent} ${upload.file.name}`);
  upload.size.textContent = bytes(upload.file.size);
  tell(upload.told, text, wrong);
  show_uploads();
}

function show_uploads() {
  check_ids();
  const stored = uploads.filter(({ state }) => state === "stored").length;
  $("start").disabled = !open_uploads().length;
  $("upload-more").hidden = !uploads.length;
  $("uploaded").textContent = uploads.length ? `${stored} of ${plural(uploads.length, "file")} stored` : "";
}

// Cancels an upload that is on its way, or takes the row off the page.
function end_upload(upload) {
  if (upload.state === "sending") return upload.stop.abort();
  if (upload.state === "waiting") return set_state(upload, "ready");
  const at = uploads.indexOf(upload);
  uploads.splice(at, 1);
  upload.row.remove();
  show_uploads();
  (uploads[Math.min(at, uploads.length - 1)]?.button ?? $("file")).focus();
}

// ---- on their way

$("upload").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!(await writer())) return;
  for (const upload of open_uploads()) {
    upload.replaces = $("replaces").checked;
    upload.bar.value = 0;
    set_state(upload, "waiting", "Waiting");
  }
  send_waiting();
});

function send_waiting() {
  const free = AT_ONCE - uploads.filter(({ state }) => state === "sending").length;
  for (const upload of uploads.filter(({ state }) => state === "waiting").slice(0, free)) send(upload);
}

// The bar lags behind what the browser has sent, so it can't tell whether the gateway had all of it.
const CANCELLED = "Cancelled. It is stored only if all of it had been sent already.";

async function send(upload) {
  set_state(upload, "sending");
  upload.stop = new AbortController();
  try {
    upload.id.value ||= new_id();
    if (!upload.replaces) await require_free(upload);
    await put(upload);
    set_state(upload, "stored", `Stored as ${upload.id.value}`);
  } catch (error) {
    const cancelled = upload.stop.signal.aborted;
    set_state(upload, "refused", cancelled ? CANCELLED : said(error), !cancelled);
  }
  send_waiting();
  if (!busy_uploads().length && uploads.some(({ state }) => state === "stored")) show_list();
}

const EXISTS = "There is an object with this id already. Choose another id, or tick the box to replace it.";

// Asks before the file is sent; the node decides again when it stores (`If-None-Match`).
async function require_free({ id, stop }) {
  const head = await ask(`/object/${id.value}`, { method: "HEAD", signal: stop.signal });
  if (head.ok) throw new Error(EXISTS);
  if (head.status !== 404) throw new Error(answered(head.status));
}

// fetch() tells nothing of an upload's progress.
function put({ file, id, bar, size, told, replaces, stop }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/object/${id.value}`);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    if (!replaces) request.setRequestHeader("If-None-Match", "*");
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.setRequestHeader("Content-Disposition", disposition(file.name));
    request.upload.onprogress = (event) => {
      bar.value = event.total ? event.loaded / event.total : 1;
      size.textContent = `${Math.floor(100 * bar.value)} % of ${bytes(file.size)}`;
      if (bar.value === 1) tell(told, "Sent, being stored");
    };
    request.onload = () => (request.status === 200 ? resolve() : reject(new Error(refused(request))));
    request.onerror = () => broken(file).then(reject);
    request.onabort = () => reject(new DOMException("", "AbortError"));
    stop.signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function refused(request) {
  if (request.status === 401) want_token();
  if (request.status === 412) return EXISTS;
  try { return JSON.parse(request.responseText).detail; } catch { return answered(request.status); }
}

// Why an upload has no answer: the file, or the way to the gateway.
async function broken(file) {
  try { await file.slice(0, 1).arrayBuffer(); } catch { return new Error("The file can't be read any more: it was changed, moved or deleted."); }
  return new Error("The connection broke off. The object is stored as a whole or not at all; look up its id.");
}

// The file's name is kept with the object (RFC 6266): as it is, and in ASCII for who doesn't know that.
function disposition(name) {
  const plain = name.replace(/[^ -~]|["\\%]/gu, "_");
  const whole = encodeURIComponent(name.toWellFormed()).replace(/['()*]/g, (each) => `%${each.charCodeAt(0).toString(16)}`);
  return `inline; filename="${plain}"; filename*=UTF-8''${whole}`;
}

addEventListener("beforeunload", (event) => { if (busy_uploads().length) event.preventDefault(); });
show_uploads();
