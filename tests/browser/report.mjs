// Opens a report in a headless Chromium and tries what a person would: links, filters, sliders, the keyboard, paper.
//
//   npm install playwright-core           (anywhere; NODE_PATH or the folder of this script has to see it)
//   node tests/browser/report.mjs target/quickstart/report.html [FOLDER_FOR_SCREENSHOTS]
//
// CHROMIUM names the browser (/usr/bin/chromium). Not part of `cargo test`.

import { join, resolve } from "node:path";

import { tried } from "./common.mjs";

const page_path = resolve(process.argv[2] ?? "target/quickstart/report.html");

await tried("report", { width: 1280, height: 900 }, process.argv[3], async ({ page, check, messages, shot, shots }) => {
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));

  const started = Date.now();
  await page.goto(`file://${page_path}`);
  const cards = await page.locator(".gallery > li").count();
  console.log(`${cards} images, loaded in ${Date.now() - started} ms`);
  await shot("desktop");
  await page.locator("#images").scrollIntoViewIfNeeded();
  await page.evaluate(() => document.querySelector("#images").scrollIntoView());
  await page.waitForTimeout(300);
  await shot("desktop-gallery");
  check(await page.evaluate(() => [...document.querySelectorAll(".stack img")].slice(0, 12).every((i) => i.naturalWidth > 0)), "pictures are there");
  check(await page.evaluate(() => new Set([...document.querySelectorAll("[id]")].map((e) => e.id)).size === document.querySelectorAll("[id]").length), "ids are unique");

  // Anchors.
  for (const link of await page.locator("nav a").all()) {
    const target = await link.getAttribute("href");
    await link.click();
    await page.waitForTimeout(500);
    const top = await page.evaluate((id) => document.querySelector(id).getBoundingClientRect().top, target);
    const end = await page.evaluate(() => Math.abs(innerHeight + scrollY - document.documentElement.scrollHeight) < 2);
    check((top >= -2 && top < 60) || end, `the link ${target} leads there`);
  }

  // A filter from the table, then an image that it hides.
  const kind = page.locator("#kinds a").first();
  const named = await kind.textContent();
  await kind.click();
  const visible = () => page.evaluate(() => [...document.querySelectorAll(".gallery > li")].filter((c) => !c.hidden).length);
  const of_kind = await page.evaluate((kind) => [...document.querySelectorAll(".gallery > li")].filter((c) => c.dataset.kind === kind).length, named);
  check(await visible() === of_kind && of_kind > 0, `the table filters for ${named}`);
  check((await page.locator("#shown").textContent()).startsWith(`${of_kind} of ${cards}`), "the number shown is told");
  const hidden = await page.evaluate(() => [...document.querySelectorAll(".gallery > li")].find((c) => c.hidden)?.id);
  if (hidden) {
    await page.evaluate((id) => { location.hash = id; }, hidden);
    await page.waitForTimeout(500);
    check(await visible() === cards, "a link to a hidden image shows all again");
    const place = await page.evaluate((id) => { const r = document.getElementById(id).getBoundingClientRect(); return [r.top, r.bottom, innerHeight]; }, hidden);
    check(place[0] < place[2] && place[1] > 0, "and it is in view");
  }

  // The filter for uncertain verdicts.
  const unsure = await page.evaluate(() => [...document.querySelectorAll(".gallery > li")].filter((c) => Number(c.dataset.uncertainty) >= 0.75).length);
  if (unsure > 0) {
    await page.selectOption("#filter", "uncertain");
    const tagged = await page.locator(".gallery > li:not([hidden]):has(.tag.unsure)").count();
    check(await visible() === unsure && tagged === unsure, `the filter shows the ${unsure} uncertain ones`);
    await page.selectOption("#filter", "all");
  } else {
    console.log("skip the filter for uncertain verdicts: there are none");
  }

  // Order.
  const order = async (value) => {
    await page.selectOption("#order", value);
    return page.evaluate(() => [...document.querySelectorAll(".gallery > li")].map((c) => [Number(c.dataset.score), Number(c.dataset.uncertainty)]));
  };
  const sorted = (list, key, sign) => list.every((item, i) => i === 0 || sign * (item[key] - list[i - 1][key]) >= 0);
  check(sorted(await order("rising"), 0, 1), "most normal first");
  check(sorted(await order("unsure"), 1, -1), "most uncertain first");
  check(sorted(await order("falling"), 0, -1), "most anomalous first");

  // The keyboard moves a slider, and the picture follows.
  const with_mask = page.locator(".gallery > li:has(.mask)").first();
  const slider = with_mask.locator("input");
  await slider.focus();
  const opacity = (part) => with_mask.locator(part).evaluate((e) => Number(getComputedStyle(e).opacity));
  await page.keyboard.press("Home");
  check(await opacity(".heat") === 0 && await slider.getAttribute("aria-valuetext") === "image", "Home shows the image");
  await page.keyboard.press("ArrowRight");
  check(await opacity(".heat") > 0 && await opacity(".heat") < 1, "an arrow fades towards the heat map");
  await page.keyboard.press("End");
  check(await opacity(".mask") === 1 && await slider.getAttribute("aria-valuetext") === "mask", "End shows the mask");
  await shot("slider-mask");
  const all_started = Date.now();
  await page.locator("#all-layers").focus();
  await page.keyboard.press("Home");
  await page.waitForFunction(() => [...document.querySelectorAll(".gallery .layer input")].every((i) => Number(i.value) === 0));
  console.log(`all sliders moved in ${Date.now() - all_started} ms`);
  check(await opacity(".heat") === 0, "the slider for all moves all");
  await page.keyboard.press("End");
  await page.waitForFunction(() => [...document.querySelectorAll(".gallery > li:has(.mask) .layer input")].every((i) => Number(i.value) === 2));
  await page.keyboard.press("Home");
  for (let i = 0; i < 10; i++) await page.keyboard.press("ArrowRight");
  await page.waitForTimeout(100);
  check(await opacity(".heat") === 1, "and back to the heat maps");

  // Everything that can be used is reached by the tabulator, in order, with a visible focus.
  await page.evaluate(() => { scrollTo(0, 0); document.activeElement.blur(); });
  await page.mouse.click(5, 5);
  const reached = new Set();
  let unseen = 0;
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab");
    const [name, outline] = await page.evaluate(() => {
      const e = document.activeElement;
      return [e.id || e.className || e.tagName, getComputedStyle(e).outlineStyle];
    });
    reached.add(name);
    if (outline === "none") unseen += 1;
  }
  check(["order", "filter", "all-layers"].every((id) => reached.has(id)) && unseen === 0, "the tabulator reaches the controls, with a visible focus");

  // No text is lighter than it may be (WCAG AA), in light and dark.
  const contrasts = () => page.evaluate(() => {
    const parse = (text) => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const back = (e) => {
      for (; e; e = e.parentElement) {
        const colour = parse(getComputedStyle(e).backgroundColor);
        if (colour.length === 3 || colour[3] > 0.99) return colour;
      }
      return [255, 255, 255];
    };
    const worst = new Map();
    for (const e of document.querySelectorAll("p, dt, dd, th, td, a, label, span, summary, figcaption, h1, h2, select, output, text")) {
      if (!e.textContent.trim() || e.closest("details:not([open]) > :not(summary)")) continue;
      const style = getComputedStyle(e);
      const ink = e.tagName === "text" ? style.fill : style.color;
      const [a, b] = [light(parse(ink)), light(back(e.closest("svg") ?? e))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) worst.set(`${e.tagName}.${e.getAttribute("class") ?? ""}`, ratio.toFixed(2));
    }
    return [...worst].map(String);
  });
  let low = await contrasts();
  check(low.length === 0, `contrasts suffice, light ${low}`);
  await page.emulateMedia({ colorScheme: "dark" });
  low = await contrasts();
  check(low.length === 0, `contrasts suffice, dark ${low}`);
  await page.evaluate(() => scrollTo(0, 0));
  await shot("dark");
  await page.evaluate(() => document.querySelector("#images").scrollIntoView());
  await page.waitForTimeout(300);
  await shot("dark-gallery");

  // A phone: nothing runs out of the page sideways, and tables fit into their boxes.
  await page.emulateMedia({ colorScheme: "light" });
  for (const width of [320, 390]) {
    await page.setViewportSize({ width, height: 800 });
    await page.waitForTimeout(200);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(overflow <= 0, `${width} pixels are wide enough (${overflow})`);
  }
  const wide = await page.evaluate(() => [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth)
    .map((box) => `${box.getAttribute("aria-label")}: ${box.scrollWidth} in ${box.clientWidth}`));
  check(wide.length === 0, `tables fit ${wide}`);
  const broken = await page.evaluate(() => [...document.querySelectorAll(".name .whole")].filter((e) => e.getClientRects().length > 1).length);
  check(broken === 0, `extensions are whole (${broken} are not)`);
  await page.evaluate(() => scrollTo(0, 0));
  await shot("phone");
  await page.evaluate(() => document.querySelector("#images").scrollIntoView());
  await page.waitForTimeout(300);
  await shot("phone-gallery");
  const small = await page.evaluate(() => [...document.querySelectorAll(".controls select, .controls input, .layer input")].slice(0, 6).some((e) => e.getBoundingClientRect().height < 24));
  check(!small, "controls are large enough for fingers");

  // Paper.
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  const print = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check(print === "rgb(255, 255, 255)", "paper is white, in dark mode too");
  await page.emulateMedia({ media: null, colorScheme: null });
  if (shots) await page.pdf({ path: join(shots, "print.pdf"), format: "A4", margin: { top: "12mm", bottom: "12mm", left: "12mm", right: "12mm" } });

  check(messages.length === 0, `the console is empty ${messages}`);
  const outside = requests.filter((url) => !url.startsWith("file:") && !url.startsWith("data:"));
  check(outside.length === 0, `nothing is asked of a network ${outside}`);
});
