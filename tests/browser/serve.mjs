// Tries the page of the example `serve` in a headless Chromium: an image chosen, one dropped, one that is none.
//
//   node tests/browser/serve.mjs http://127.0.0.1:8080 IMAGE [FOLDER_FOR_SCREENSHOTS]
//
// As for report.mjs, playwright-core has to be installed, and CHROMIUM names the browser.

import { readFileSync } from "node:fs";

import { tried } from "./common.mjs";

const [address, image, folder] = process.argv.slice(2);

await tried("serve", { width: 1000, height: 800 }, folder, async ({ page, check, messages, shot }) => {
  await page.goto(address);
  await page.locator("#file").focus();
  check(await page.evaluate(() => document.activeElement.id === "file"), "the keyboard reaches the choice of files");
  await page.setInputFiles("#file", image);
  await page.waitForSelector("li img");
  await page.waitForFunction(() => document.querySelector("li img").naturalWidth > 0);
  check(/normal|anomalous/.test(await page.locator("li").first().textContent()), "a chosen image has a verdict and a heat map");
  const bytes = readFileSync(image).toString("base64");
  await page.evaluate(async (bytes) => {
    const content = new Blob([Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0))]);
    const transfer = new DataTransfer();
    transfer.items.add(new File([content], "dropped.png"));
    transfer.items.add(new File(["no image"], "notes.txt"));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, bytes);
  await page.waitForFunction(() => document.querySelectorAll("li").length === 3);
  const texts = await page.locator("li").allTextContents();
  check(texts[1].includes("dropped.png") && /normal|anomalous/.test(texts[1]), "a dropped image has a verdict");
  check(texts[0].includes("not an image"), "a file that is none has a reason");
  await shot("serve");
  await page.setViewportSize({ width: 360, height: 740 });
  await page.emulateMedia({ colorScheme: "dark" });
  check(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "a phone is wide enough");
  await shot("serve-phone");
  // The refused file is an answer with status 422, which the browser notes.
  const other = messages.filter((text) => !text.includes("422"));
  check(other.length === 0, `the console is empty ${other}`);
});
