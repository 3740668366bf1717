/**
 * A machine of the lab in a browser, from the controller's first start to its VM's boot proof:
 * `node e2e/machine.mjs PICTURES_FOLDER`, with what is there as JSON on the standard input:
 * `{ url, setup_code, pairing_code, hostname, output }`. It keeps the picture of the boot proof as `proof.png`.
 */

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { launch, look, makeAdministrator, openConversion, openPage } from './site.mjs';

/** A conversion with its boot proof may take so long on a loaded machine without KVM. */
const CONVERSION = 1_800_000;

const [pictures] = process.argv.slice(2);
if (!pictures) throw new Error('usage: node e2e/machine.mjs PICTURES_FOLDER');
await mkdir(pictures, { recursive: true });
const site = JSON.parse(await text(process.stdin));
const saw = (what) => console.log(`ok: ${what}`);

const browser = await launch();
try {
  const { page, faults } = await openPage(browser, site.url);
  const violations = [];
  const seen = async (name) => violations.push(...(await look(page, name, pictures)));
  const row = (name) => page.getByRole('treeitem', { name });

  await page.getByRole('heading', { name: 'First start', level: 1 }).waitFor();
  await makeAdministrator(page, site.setup_code, { name: 'admin', password: 'a long enough password' });
  saw('the first administrator is made');

  // The only one there is.
  const machine = page.getByRole('treeitem', { level: 2 });
  await machine.click();
  const product = await page.getByRole('heading', { level: 1 }).innerText();
  const code = page.getByLabel('Pairing code');
  await code.fill('ZZZZ-ZZZZ');
  await page.getByRole('button', { name: 'Approve' }).click();
  await page.locator('.notice.bad').waitFor();
  await code.fill(site.pairing_code);
  await page.getByRole('button', { name: 'Approve' }).click();
  await row('Cold Cloning Ready 1 machine').waitFor();
  await page.getByRole('heading', { name: site.hostname, level: 1 }).waitFor();
  await page.getByRole('heading', { name: 'Disks' }).waitFor();
  await seen('machine');
  saw(`a wrong code is refused; ${product} is approved by ${site.pairing_code}: it is ${site.hostname}`);

  const dialog = await openConversion(page, machine, site.hostname, site.output);
  await dialog.getByLabel('Verify the copy by hashes').check();
  const measure = dialog.getByRole('button', { name: 'Measure the link' });
  await measure.click();
  const forecast = dialog.getByText(/^About .* \(link measured/);
  await forecast.waitFor();
  await seen('convert');
  saw(`forecast: ${await forecast.innerText()}`);
  const begun = Date.now();
  await dialog.getByRole('button', { name: 'Convert' }).click();
  await page.getByRole('progressbar').first().waitFor({ timeout: CONVERSION });
  await seen('running');
  await page.getByText(/^(It boots|It does not boot|Try again)$/).waitFor({ timeout: CONVERSION });
  assert.equal(
    await page.getByText('It boots', { exact: true }).count(),
    1,
    await page.locator('main').innerText(),
  );
  const picture = page.getByRole('img', { name: /^Screen of the VM/ });
  await picture.waitFor();
  const width = await picture.evaluate(async (image) => {
    await image.decode();
    return image.naturalWidth;
  });
  assert.ok(width >= 640, `a picture ${width} pixels wide`);
  const bytes = await picture.evaluate(async (image) =>
    Array.from(new Uint8Array(await (await fetch(image.src)).arrayBuffer())),
  );
  await writeFile(join(pictures, 'proof.png'), Uint8Array.from(bytes));
  await seen('task');
  saw(
    `it boots, seen ${Math.round((Date.now() - begun) / 1000)} s after it was asked for, ${width} pixels wide`,
  );
  assert.deepEqual(faults, []);
  assert.deepEqual(violations, []);
  saw('the policy was kept, no other host was asked, and axe found nothing');
} finally {
  await browser.close();
}
