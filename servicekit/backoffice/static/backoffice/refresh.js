// Looks again every few seconds (`data-seconds`), while somebody sees the page and does nothing else
// on it. What is marked `data-live` and has changed is put in place; `data-live="page"` loads the
// page anew, for what stands elsewhere on it. Who is logged out is not asked to log in.
"use strict";

(() => {
  const SECONDS = Number(document.currentScript.dataset.seconds);
  const FOCUSABLE = "a, button, input, summary";
  const partsOf = (page) => [...page.querySelectorAll("[data-live]")];
  // As the server has sent them: nothing has touched them yet.
  let known = partsOf(document).map((part) => part.outerHTML);

  const isBusy = () =>
    document.hidden ||
    !getSelection().isCollapsed ||
    document.activeElement.matches("input, textarea, select, [contenteditable]") ||
    [...document.querySelectorAll("nav[x-show], [role=dialog], dialog[open]")]
      .some((open) => open.checkVisibility());

  const chartOf = (part) => {
    const canvas = part.querySelector("canvas");
    return canvas && Chart.getChart(canvas);
  };

  const redraw = (chart, { labels, datasets }) => {
    chart.data.labels = labels;
    datasets.forEach(({ data }, number) => { chart.data.datasets[number].data = data; });
    chart.update("none");
  };

  const replace = (part, fresh) => {
    const focused = [...part.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
    part.replaceWith(fresh);
    fresh.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  };

  const show = (page) => {
    const parts = partsOf(document);
    const fresh = partsOf(page);
    const html = fresh.map((part) => part.outerHTML);
    const changed = parts.flatMap((part, number) => (html[number] === known[number] ? [] : [number]));
    const needsPage = (number) =>
      parts[number].dataset.live === "page" || !parts[number].querySelector("canvas") !== !fresh[number].querySelector("canvas");
    if (parts.length !== fresh.length || changed.some(needsPage)) {
      location.reload();
      return;
    }
    for (const number of changed) {
      const chart = chartOf(parts[number]);
      if (chart) redraw(chart, JSON.parse(fresh[number].querySelector("canvas").dataset.value));
      else replace(parts[number], document.adoptNode(fresh[number]));
    }
    known = html;
  };

  const look = async () => {
    if (isBusy()) return;
    // A service that is away, or does not answer in time, leaves the page as it is.
    const answer = await fetch(location.href, {
      redirect: "manual", signal: AbortSignal.timeout(SECONDS * 1000),
    }).catch(() => null);
    if (answer && (answer.type === "opaqueredirect" || [401, 403, 404].includes(answer.status))) {
      clearInterval(timer);
      return;
    }
    if (!answer?.ok) return;
    const text = await answer.text().catch(() => null);
    if (text && !isBusy()) show(new DOMParser().parseFromString(text, "text/html"));
  };

  const timer = setInterval(look, SECONDS * 1000);
})();
