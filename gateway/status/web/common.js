"use strict";
// What all parts of the page stand on: text and elements, requests with the token, and what is asked of the person.
const $ = (id) => document.getElementById(id);
let token = ""; // in memory only
let may_write = true; // whether that token may, by the last look

// ---- text and elements. What comes from elsewhere is only ever text.

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, label, className, pressed) {
  const made = element("button", text, className);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", pressed);
  return made;
}

function progress_bar(label) {
  const made = element("progress");
  made.max = 1;
  made.value = 0;
  made.setAttribute("aria-label", label);
  return made;
}

function tell(place, text, wrong = false) {
  place.className = wrong ? "result wrong" : "result";
  place.textContent = text;
}

function count(number) { return number.toLocaleString("en"); }

function plural(number, word) { return `${count(number)} ${word}${number === 1 ? "" : "s"}`; }

// As objgwctl.py prints them.
function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return `${unit ? number.toFixed(1) : number} ${units[unit]}`;
}

function list(words) { return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`; }

// ---- requests

// A request with the token. Rejects where the gateway can't be reached; shows the token's field where it wants another.
async function ask(path, options = {}) {
  const sent = token;
  const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
  const reply = await fetch(path, { ...options, headers, cache: "no-store" });
  if (reply.status === 401 && sent === token) want_token();
  return reply;
}

async function reason(reply) {
  try { return (await reply.json()).detail; } catch { return answered(reply.status); }
}

// For answers without a body, as those to HEAD.
function answered(status) {
  if (status === 404) return "There is no object with this id any more.";
  if (status === 503) return "The node of this id doesn't answer.";
  return `The gateway answered ${status}.`;
}

function said(error) { return error instanceof TypeError ? "The gateway can't be reached." : error.message; }

// ---- what is asked of the person

function want_token() {
  if (token) $("token-result").textContent = "The gateway doesn't know this token.";
  token = "";
  $("content").hidden = true;
  if ($("entry").hidden) {
    $("entry").hidden = false;
    $("token").focus();
  }
  summarize("unknown", "Waiting for a token");
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  $("token-result").textContent = "";
  poll();
});

// Whether there is a token that may write. Where the one at hand may only read, another is asked for: once, however
// many uploads wait for it.
let asking = null;

function writer() {
  if (may_write) return true;
  asking ??= asked($("writer")).then(() => may_write).finally(() => { asking = null; });
  return asking;
}

// What was pressed in a dialog: the button's value, or nothing.
function asked(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

for (const dialog of document.querySelectorAll("dialog")) {
  for (const each of dialog.querySelectorAll("button[value]")) each.addEventListener("click", () => dialog.close(each.value));
}

$("writer-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = $("writer-token").value.trim();
  $("writer-token").value = "";
  $("writer-result").textContent = "";
  try {
    const reply = await fetch("/status.json", { headers: { Authorization: `Bearer ${given}` }, cache: "no-store" });
    if (reply.status === 401) throw new Error("The gateway doesn't know this token.");
    if (!reply.ok) throw new Error(await reason(reply));
    if ((await reply.json()).may_write === false) throw new Error("This token may only read, too.");
    [token, may_write] = [given, true];
    $("writer").close();
  } catch (error) {
    $("writer-result").textContent = said(error);
  }
});
