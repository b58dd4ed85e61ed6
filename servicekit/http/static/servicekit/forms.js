// Sends the forms of a page as JSON, which is all that the service takes, and shows the answer in
// place of the one that was there.
"use strict";

function panel(form, name) {
  return form.querySelector(`[data-panel="${name}"]`);
}

function values(container) {
  const filled = [...(container?.querySelectorAll("input, select") ?? [])].filter(
    (input) => input.value !== "",
  );
  return Object.fromEntries(
    filled.map((input) => [
      input.name,
      input.dataset.kind === "integer" ? Number(input.value) : input.value,
    ]),
  );
}

function showTab(form, wanted) {
  const fields = panel(form, "fields");
  const text = form.elements.body;
  // What was typed on one tab is there on the other.
  if (wanted === "json") {
    const typed = values(fields);
    if (Object.keys(typed).length) text.value = JSON.stringify(typed, null, 2);
  }
  for (const tab of form.querySelectorAll("[data-tab]")) {
    const isWanted = tab.dataset.tab === wanted;
    tab.setAttribute("aria-selected", String(isWanted));
    panel(form, tab.dataset.tab).hidden = !isWanted;
  }
  for (const input of fields.querySelectorAll("input, select")) input.disabled = wanted === "json";
}

async function send(form) {
  const headers = {
    Accept: "text/html",
    "X-CSRFToken": form.dataset.csrf,
    ...values(panel(form, "headers")),
  };
  const fields = panel(form, "fields");
  let body;
  if (fields) {
    headers["Content-Type"] = "application/json";
    body = fields.hidden ? form.elements.body.value : JSON.stringify(values(fields));
  }
  const answer = await fetch(form.getAttribute("action"), {
    method: form.dataset.method,
    credentials: "same-origin",
    headers,
    body,
  });
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function show(page, form) {
  const shown = document.getElementById("answer");
  const answer = page.getElementById("answer") ?? page.querySelector("main");
  shown.replaceChildren(...answer.childNodes);
  shown.classList.remove("fresh");
  void shown.offsetWidth; // starts the animation anew
  shown.classList.add("fresh");
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  for (const error of shown.querySelectorAll("[data-field]")) {
    const input = panel(form, "fields")?.querySelector(`[name="${CSS.escape(error.dataset.field)}"]`);
    input?.setAttribute("aria-invalid", "true");
  }
  shown.scrollIntoView({ block: "nearest" });
}

for (const form of document.querySelectorAll("form[data-method]")) {
  for (const tab of form.querySelectorAll("[data-tab]")) {
    tab.addEventListener("click", () => showTab(form, tab.dataset.tab));
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
    const button = form.querySelector(".send");
    button.disabled = true;
    try {
      show(await send(form), form);
    } catch (error) {
      alert(`No answer: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  });
}

// An empty field asks for nothing, so it is not part of the address.
for (const form of document.querySelectorAll("form.query")) {
  form.addEventListener("submit", () => {
    for (const input of form.querySelectorAll("input, select")) input.disabled = input.value === "";
  });
}
