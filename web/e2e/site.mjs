/** The site that is looked at (`console_site` of lab), and a browser for it. */

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const THEMES = ['light', 'dark'];

/** Starts the program in a folder of its own. It says what is there in one line of JSON. */
export async function startSite(program) {
  const folder = await mkdtemp(join(tmpdir(), 'vconverter-console-'));
  const child = spawn(program, [folder], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise((done) => child.once('exit', done));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { value: line } = await lines.next();
  if (!line) throw new Error(`${program} ended before it was ready`);
  return {
    ...JSON.parse(line),
    async stop() {
      child.stdin.end();
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export function launch() {
  return chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
}

/** A page that nobody is signed in on, and what went wrong on it. */
export async function openPage(browser, url) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    // The controller's own CA, which this browser does not know.
    ignoreHTTPSErrors: true,
    locale: 'en-GB',
    timezoneId: 'Europe/Berlin',
    reducedMotion: 'reduce',
  });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('console', (message) => {
    const text = message.text();
    // A refusal of the controller is an answer, and the page shows it.
    if (message.type() === 'error' && !text.startsWith('Failed to load resource')) faults.push(text);
  });
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) faults.push(`another host: ${request.url()}`);
  });
  await page.goto(url);
  return { page, faults };
}

/** Looks at a page in both themes: violations that axe finds, and a picture of each. */
export async function look(page, name, folder) {
  const found = [];
  await page.evaluate(AXE);
  for (const theme of THEMES) {
    await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
    const { violations } = await page.evaluate(() => globalThis.axe.run(document));
    for (const { id, nodes } of violations) {
      for (const node of nodes.slice(0, 3))
        found.push(`${name}, ${theme}: ${id}: ${node.target} ${node.failureSummary}`);
    }
    await page.screenshot({ path: join(folder, `${name}-${theme}.png`) });
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  return found;
}

/** On the page of the first start: makes the administrator, who is signed in then. */
export async function makeAdministrator(page, setupCode, user) {
  await askForAdministrator(page, setupCode, user);
  await page.getByRole('heading', { name: 'Machines', level: 1 }).waitFor();
}

/** The same, whatever the answer. */
export async function askForAdministrator(page, setupCode, { name, password }) {
  await page.getByLabel('Setup code').fill(setupCode);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await page.getByLabel('Password again').fill(password);
  await page.getByRole('button', { name: 'Make administrator and sign in' }).click();
}

/** The dialog that converts a machine, with what has to be said in it. */
export async function openConversion(page, row, name, output) {
  await row.click();
  await page.getByRole('button', { name: 'Convert…' }).click();
  const dialog = page.getByRole('dialog', { name: /^Convert / });
  await dialog.getByLabel('Name of the VM').fill(name);
  await dialog.getByRole('combobox', { name: /^Output folder/ }).fill(output);
  return dialog;
}
