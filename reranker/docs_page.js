"use strict";
for (const box of document.querySelectorAll(".curl")) {
  const text = box.querySelector("pre");
  // A saved page has no origin.
  if (location.protocol.startsWith("http")) text.textContent = text.textContent.replace("http://127.0.0.1:8080", location.origin);
  const button = box.querySelector("button");
  button.hidden = !navigator.clipboard; // of pages over plain HTTP from another host there is none
  button.addEventListener("click", async (event) => {
    await navigator.clipboard.writeText(text.textContent);
    event.target.textContent = "copied";
    setTimeout(() => { event.target.textContent = "copy"; }, 1500);
  });
}
