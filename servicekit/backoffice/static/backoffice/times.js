// Times are shown in UTC; who points at one reads it in the zone of the browser, too.
"use strict";

addEventListener("DOMContentLoaded", () => {
  for (const time of document.querySelectorAll("time")) {
    time.title = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "long" });
  }
});
