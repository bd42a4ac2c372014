"use strict";
(() => {
  const cards = [...document.querySelectorAll(".gallery > li")];
  const find = (id) => document.getElementById(id);
  const [all, order, filter, shown] = ["all-layers", "order", "filter", "shown"].map(find);
  const list = document.querySelector(".gallery");

  // A slider runs from 0 (image) over 1 (heat map) to 2 (mask); neighbours are cross-faded.
  const names = ["image", "heat map", "mask"];
  const said = (value) => {
    const [low, high] = [Math.floor(value), Math.ceil(value)];
    return low === high ? names[low] : `between ${names[low]} and ${names[high]}`;
  };
  const show = (card, slider) => {
    const value = Number(slider.value);
    card.style.setProperty("--heat", Math.min(value, 1));
    card.style.setProperty("--mask", Math.max(value - 1, 0));
    slider.setAttribute("aria-valuetext", said(value));
  };
  for (const card of cards) {
    const slider = card.querySelector("input");
    slider.setAttribute("aria-valuetext", said(Number(slider.value)));
    slider.addEventListener("input", () => show(card, slider));
  }
  let waiting = false;
  all.addEventListener("input", () => {
    all.setAttribute("aria-valuetext", said(Number(all.value)));
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const card of cards) {
        const slider = card.querySelector("input");
        slider.value = Math.min(all.value, slider.max);
        show(card, slider);
      }
    });
  });

  const count = () => {
    const wanted = (card) => filter.value === "all" || card.dataset.flags.split(" ").includes(filter.value) ||
      "kind:" + card.dataset.kind === filter.value;
    let number = 0;
    for (const card of cards) {
      card.hidden = !wanted(card);
      number += !card.hidden;
    }
    shown.textContent = `${number} of ${cards.length} images`;
  };
  const sort = () => {
    const by = {
      falling: (a, b) => b.dataset.score - a.dataset.score,
      rising: (a, b) => a.dataset.score - b.dataset.score,
      unsure: (a, b) => b.dataset.uncertainty - a.dataset.uncertainty,
    }[order.value];
    list.append(...cards.slice().sort(by));
  };
  order.addEventListener("change", sort);
  filter.addEventListener("change", count);
  for (const link of document.querySelectorAll("a[data-filter]")) {
    link.addEventListener("click", () => {
      filter.value = link.dataset.filter;
      count();
    });
  }

  // Images that have not been in view have estimated heights: what is jumped to moves while they are laid out.
  const jump = (target, block) => {
    let frames = 6;
    const again = () => {
      target.scrollIntoView({ block });
      frames -= 1;
      if (frames > 0) requestAnimationFrame(again);
    };
    requestAnimationFrame(again);
  };
  // A link to an image that the filter hides shows all images again.
  const reveal = () => {
    const target = location.hash.length > 1 && find(location.hash.slice(1));
    if (!target) return;
    if (target.hidden) {
      filter.value = "all";
      count();
    }
    jump(target, cards.includes(target) ? "center" : "start");
  };
  addEventListener("hashchange", reveal);
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", () => {
      if (location.hash === link.hash) reveal();
    });
  }

  // Browsers keep the state of controls over a reload.
  sort();
  count();
  for (const card of cards) show(card, card.querySelector("input"));
  reveal();

  // Paper has no unfolding.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
