// Fetches the page again when the node has news of a job, and says so. Without it everything is there, only not live.
"use strict";
(() => {
  const only = document.querySelector("[data-job]")?.dataset.job;
  let due = null;
  let lost = false;
  const say = (text) => { const live = document.getElementById("live"); if (live) live.textContent = text; };
  const missed = () => { lost = true; say("not connected"); };
  const refresh = async () => {
    due = null;
    const open = [...document.querySelectorAll("details")].map((d) => d.open);
    const focused = document.activeElement?.closest?.("a[href]")?.getAttribute("href");
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.status === 429 || answer.status === 503) throw new Error(answer.statusText);
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.querySelector("main").replaceWith(page.querySelector("main"));
      document.querySelector("footer").replaceWith(page.querySelector("footer"));
      document.querySelectorAll("details").forEach((d, i) => { if (open[i]) d.open = true; });
      if (focused) document.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      lost = false;
      say("live");
    } catch { missed(); due ??= setTimeout(refresh, 3000 + 3000 * Math.random()); }
  };
  const news = new EventSource("/api/v1/news");
  news.onopen = () => {
    // What there was meanwhile is not told again.
    if (lost) due ??= setTimeout(refresh, 500 * Math.random()); else say("live");
  };
  news.onerror = missed;
  news.addEventListener("job", (event) => {
    if (only && JSON.parse(event.data).job !== only) return;
    due ??= setTimeout(refresh, 400);
  });
  // Times of running jobs go on without news, and nodes that do not coordinate have none.
  let rounds = 0;
  setInterval(() => {
    rounds += 1;
    if (!document.hidden && (rounds % 3 === 0 || document.querySelector(".tone-busy"))) due ??= setTimeout(refresh, 0);
  }, 10000);
})();
