// What scrolls sideways can be reached by keyboard: a stop for Tab only where there is need.
function stops() {
  for (const box of document.querySelectorAll("pre, table, .table-wrapper, div.math")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("load", stops);
addEventListener("resize", stops);
