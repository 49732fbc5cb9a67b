// Renews the page when the validator has something new; open details stay open, and focus is not taken from anybody.
const source = new EventSource("events");
source.onmessage = async () => {
  const old = document.querySelector("main");
  if (old.contains(document.activeElement)) return;
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = page.querySelector("main");
  if (!main) return;
  for (const open of old.querySelectorAll("details[open][id]")) {
    const twin = main.querySelector("#" + CSS.escape(open.id));
    if (twin) twin.open = true;
  }
  old.replaceWith(main);
  main.dataset.renewed = "yes";
};
