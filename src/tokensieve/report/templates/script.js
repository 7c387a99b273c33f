// Shows a token's numbers at the foot of the page when it is tapped; without it they are in the tooltip.
"use strict";
const shown = document.getElementById("shown");
document.addEventListener("click", (event) => {
  const token = event.target.closest("p.tokens > span");
  for (const other of document.querySelectorAll("p.tokens > span.here")) other.classList.remove("here");
  shown.hidden = token === null;
  if (token === null) return;
  token.classList.add("here");
  shown.textContent = JSON.stringify(token.textContent) + "  " + token.title;
});
