// Renews the page when the validator has something new, unless somebody marks a text. What is unfolded, scrolled or in
// focus stays so.
const source = new EventSource("events");
const places = (main) => [...main.querySelectorAll("a, summary, [tabindex]")];

function carryOver(old, main) {
  for (const open of old.querySelectorAll("details[open][id]")) {
    const twin = main.querySelector("#" + CSS.escape(open.id));
    if (twin) twin.open = true;
  }
  const regions = main.querySelectorAll(".wide");
  const scrolled = [...old.querySelectorAll(".wide")].map((region) => region.scrollLeft);
  const focus = places(old).indexOf(document.activeElement);
  old.replaceWith(main);
  regions.forEach((region, number) => { region.scrollLeft = scrolled[number] || 0; });
  if (focus >= 0) places(main)[focus]?.focus({ preventScroll: true });
}

source.onmessage = async () => {
  if (document.hidden || !getSelection().isCollapsed) return;
  const answer = await fetch(location.href).catch(() => undefined);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const old = document.querySelector("main");
  const main = page.querySelector("main");
  const state = page.querySelector("#state");
  if (!main || !state) return;
  document.querySelector("#state").replaceWith(state);
  if (old.innerHTML !== main.innerHTML) carryOver(old, main);
  document.body.dataset.renewed = "yes";
};
