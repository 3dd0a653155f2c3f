"use strict";
for (const box of document.querySelectorAll(".curl")) {
  const text = box.querySelector("pre");
  text.textContent = text.textContent.replace("http://127.0.0.1:8080", location.origin);
  box.querySelector("button").addEventListener("click", async (event) => {
    await navigator.clipboard.writeText(text.textContent);
    event.target.textContent = "copied";
    setTimeout(() => { event.target.textContent = "copy"; }, 1500);
  });
}
