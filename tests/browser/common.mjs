// What the scripts of this folder share: the browser, and checks that are printed and counted.

import { createRequire } from "node:module";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const require = createRequire(process.env.NODE_PATH ? join(process.env.NODE_PATH, "x.js") : import.meta.url);
let chromium;
try {
  ({ chromium } = require("playwright-core"));
} catch {
  console.error("playwright-core is not found: npm install --prefix DIR playwright-core, and NODE_PATH=DIR/node_modules");
  process.exit(2);
}

// Opens a page of `viewport`, lets `work` try it, and ends the process: 1 if a check failed. `folder`, if any, gets the pictures.
export async function tried(name, viewport, folder, work) {
  const shots = folder && resolve(folder);
  if (shots) mkdirSync(shots, { recursive: true });
  const profile = mkdtempSync(join(tmpdir(), `${name}-`));
  let failures = 0;
  const check = (right, what) => {
    console.log(`${right ? "ok  " : "FAIL"} ${what}`);
    if (!right) failures += 1;
  };
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
    viewport,
  });
  try {
    const page = await browser.newPage();
    const messages = [];
    page.on("console", (message) => messages.push(message.text()));
    page.on("pageerror", (error) => messages.push(error.message));
    const shot = async (name, fullPage = false) => {
      if (shots) await page.screenshot({ path: join(shots, `${name}.png`), fullPage });
    };
    await work({ page, check, messages, shot, shots });
  } finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
  }
  if (failures > 0) console.error(`${failures} problems`);
  process.exit(failures > 0 ? 1 : 0);
}
