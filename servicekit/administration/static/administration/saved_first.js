// An action that sends what is saved waits while its field holds something else. The action names
// the field in `data-saved-first`; a field that was refused carries `data-refused`.
addEventListener("DOMContentLoaded", () => {
    for (const action of document.querySelectorAll("[data-saved-first]")) {
        const field = document.querySelector(`[name="${action.dataset.savedFirst}"]`);
        if (!field) continue;
        const isSaved = () => !("refused" in field.dataset) && field.value === field.defaultValue;
        const show = () => {
            action.toggleAttribute("data-waits", !isSaved());
            action.setAttribute("aria-disabled", String(!isSaved()));
            action.title = isSaved() ? "" : "Save your correction first";
        };
        field.addEventListener("input", show);
        addEventListener("pageshow", show);
        // Before anybody else hears of it.
        addEventListener("click", (event) => {
            if (!action.contains(event.target) || isSaved()) return;
            event.preventDefault();
            event.stopImmediatePropagation();
            show();
            field.focus();
        }, true);
        show();
    }
});
