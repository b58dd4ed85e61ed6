"use strict";
// Loads the page anew every few seconds, while somebody looks at it and does nothing else on it.
{
    const seconds = Number(document.currentScript.dataset.seconds);
    const isBusy = () =>
        document.hidden ||
        String(getSelection()) ||
        document.querySelector("main :is(input, textarea, select):focus, [aria-expanded=true]");
    setInterval(async () => {
        if (isBusy()) return;
        // A page stays rather than give way to the browser's "cannot be reached".
        const answer = await fetch("/health/live").catch(() => null);
        if (answer?.ok && !isBusy()) location.reload();
    }, seconds * 1000);
}
