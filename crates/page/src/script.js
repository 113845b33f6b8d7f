"use strict";
// Comfort only: without it all of the page can be read.
const tools = document.getElementById("tools");
if (tools) {
  const rows = [...document.querySelectorAll("#functions tbody tr")];
  const folds = [...document.querySelectorAll("article details")];
  const count = document.getElementById("count");
  tools.hidden = false;
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(wanted);
      row.hidden = !fits;
      document.getElementById(row.dataset.of).hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} functions`;
  });
  const all = (open) => () => folds.forEach((fold) => { fold.open = open; });
  document.getElementById("unfold").addEventListener("click", all(true));
  document.getElementById("fold").addEventListener("click", all(false));
}
// A link to a folded function unfolds it.
const follow = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const fold = target && target.querySelector("details");
  if (fold) fold.open = true;
};
addEventListener("hashchange", follow);
follow();
