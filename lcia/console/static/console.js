// Times in the reader's own zone and language; everything else works without this file.
(() => {
  const format = new Intl.DateTimeFormat(document.documentElement.lang, {dateStyle: "medium", timeStyle: "short"});
  const localise = (root) => root.querySelectorAll("time[datetime]:not([data-local])").forEach((element) => {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) return;
    element.title = element.textContent;
    element.textContent = format.format(moment);
    element.dataset.local = "";
  });
  localise(document);
  document.addEventListener("htmx:load", (event) => localise(event.detail.elt.parentElement || document));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });
})();
