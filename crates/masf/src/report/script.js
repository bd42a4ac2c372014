"use strict";
(() => {
  // A slider runs from 0 (image) over 1 (heat map) to 2 (mask); neighbours are cross-faded.
  const show = (card, value) => {
    const mask = card.querySelector(".mask");
    const level = mask ? value : Math.min(value, 1);
    card.style.setProperty("--heat", Math.min(level, 1));
    card.style.setProperty("--mask", Math.max(level - 1, 0));
  };
  const cards = [...document.querySelectorAll(".gallery > li")];
  for (const card of cards) {
    const slider = card.querySelector("input");
    slider.addEventListener("input", () => show(card, Number(slider.value)));
  }
  const all = document.getElementById("all-layers");
  all.addEventListener("input", () => {
    for (const card of cards) {
      const slider = card.querySelector("input");
      slider.value = Math.min(all.value, slider.max);
      show(card, Number(slider.value));
    }
  });
  const list = document.querySelector(".gallery");
  const order = document.getElementById("order");
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const arrange = () => {
    const by = {
      falling: (a, b) => b.dataset.score - a.dataset.score,
      rising: (a, b) => a.dataset.score - b.dataset.score,
      unsure: (a, b) => Math.abs(a.dataset.normalised - 0.5) - Math.abs(b.dataset.normalised - 0.5),
    }[order.value];
    list.append(...cards.slice().sort(by));
    let count = 0;
    for (const card of cards) {
      const wanted = filter.value === "all" || card.dataset.flags.split(" ").includes(filter.value) ||
        "kind:" + card.dataset.kind === filter.value;
      card.hidden = !wanted;
      count += wanted;
    }
    shown.textContent = `${count} of ${cards.length} images`;
  };
  order.addEventListener("change", arrange);
  filter.addEventListener("change", arrange);
  arrange();
})();
