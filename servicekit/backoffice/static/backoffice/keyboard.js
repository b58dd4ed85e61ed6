// What unfold's templates leave to eyes and a mouse, for screen readers and keyboards too.
"use strict";

(() => {
  const ICON = ".material-symbols-outlined";
  // What is an icon only, by the icon's word.
  const NAMES = {
    close: "Close", computer: "Theme", dark_mode: "Theme", dock_to_right: "Sidebar",
    light_mode: "Theme", more_horiz: "More actions", search: "Search", visibility: "Show password",
  };
  const all = (selector) =>
    [document, ...[...document.querySelectorAll("template")].map((template) => template.content)]
      .flatMap((root) => [...root.querySelectorAll(selector)]);
  const word = (element) => element.textContent.trim();
  // The name of what a control opens and closes, in Alpine's data.
  const stateOf = (control) => /^(\w+) = /.exec(control.getAttribute("x-on:click"))?.[1];
  const controlOf = (panel) => document.querySelector(`[x-on\\:click^="${panel.getAttribute("x-show")} = "]`);
  const close = (control) => { Alpine.$data(control)[stateOf(control)] = false; };

  // Before Alpine reads the page.
  document.addEventListener("alpine:init", () => {
    (document.getElementById("main") || document.getElementById("page")).role = "main";
    document.getElementById("nav-sidebar-inner")?.setAttribute("aria-label", "Pages");
    document.querySelector("#nav-sidebar-apps")?.setAttribute("data-simplebar-aria-label", "Pages");
    const filters = document.getElementById("changelist-filter");
    filters?.setAttribute("aria-label", "Filters");
    filters?.setAttribute("x-bind:role", "filterOpen && 'dialog'");
    filters?.setAttribute("x-bind:aria-modal", "filterOpen && 'true'");
    filters?.querySelectorAll("h3").forEach((heading) => { heading.ariaLevel = 2; });
    filters?.querySelector("[data-simplebar]").setAttribute("data-simplebar-aria-label", "Filters");

    for (const control of all("[x-on\\:click]:not(button, [href], #changelist-filter-close)")) {
      control.role = "button";
      control.tabIndex = 0;
      const state = stateOf(control);
      if (state) control.setAttribute("x-bind:aria-expanded", `!!${state}`);
    }
    // Of the preview of an import: what becomes of the row.
    for (const head of all("th:empty")) head.ariaLabel = "Result";
    for (const icon of all(ICON)) {
      const control = icon.closest("a, button, [x-on\\:click]");
      if (control && !control.title && word(control) === word(icon)) {
        control.ariaLabel = NAMES[word(icon).split(/\W/)[0]] || "Theme";
      }
      if (icon !== control) icon.ariaHidden = "true";
    }
    // Made by Django's script for two lists, which listens already.
    addEventListener("load", () => { for (const tip of all(".help-tooltip")) tip.role = "img"; });
  });

  document.addEventListener("alpine:initialized", () => {
    // What opens takes the focus, and gives it back when it closes.
    const sizes = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const control = controlOf(target);
        if (target.checkVisibility()) {
          if (document.activeElement === control) target.querySelector("a, button, input:not([type=hidden])")?.focus();
        } else if (target.wasOpen && (document.activeElement === document.body || target.contains(document.activeElement))) {
          control.focus();
        }
        target.wasOpen = target.checkVisibility();
      }
    });
    for (const panel of document.querySelectorAll("nav[x-show], #changelist-filter")) {
      if (!controlOf(panel)) continue;
      sizes.observe(panel);
      panel.addEventListener("focusout", ({ relatedTarget }) => {
        if (!relatedTarget || panel.contains(relatedTarget)) return;
        if (panel.ariaModal) panel.querySelector("a, button, input:not([type=hidden])").focus();
        else close(controlOf(panel));
      });
    }
  });

  document.addEventListener("keydown", (event) => {
    if (["Enter", " "].includes(event.key) && event.target.matches("[role=button][x-on\\:click]")) {
      event.preventDefault();
      event.target.click();
    }
    if (event.key === "Escape") {
      for (const panel of document.querySelectorAll("nav[x-show]")) {
        if (panel.checkVisibility() && controlOf(panel)) close(controlOf(panel));
      }
    }
  });
})();
