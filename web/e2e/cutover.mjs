/**
 * A link that is measured, and a cutover, in a browser. The site has neither disks nor libvirt: what the controller would answer to
 * these three routes is made up here, and only what the pages make of it is looked at.
 */

import assert from 'node:assert/strict';

const json = (body, status = 200) => ({
  status,
  contentType: 'application/json',
  body: JSON.stringify(body),
});

/** Measures the link in the Convert dialog. */
export async function measure(page, dialog) {
  let tested = null;
  await page.route('**/link-test', async (route) => {
    assert.equal(route.request().method(), 'POST');
    tested = { tested_at: new Date().toISOString(), bytes_per_second: 93_000_000 };
    await route.fulfill(json({ ...tested, bytes: 279_000_000, sent: 120_000_000, milliseconds: 3000 }));
  });
  await page.route('**/preflight', async (route) => {
    const response = await route.fetch();
    const [seen] = await response.json();
    const forecast = tested && { ...tested, copy_seconds: Math.ceil(seen.bytes / tested.bytes_per_second) };
    await route.fulfill({ response, json: [{ ...seen, forecast }] });
  });
  await dialog.getByText(/How long that takes is known when the link was measured/).waitFor();
  await dialog.getByRole('button', { name: 'Measure the link' }).click();
  await dialog.getByText(/^About 1 min \d+ s for 5\.8 GiB, at 93 MB\/s \(link measured just now\)/).waitFor();
}

export async function endMeasure(page) {
  await page.unroute('**/link-test');
  await page.unroute('**/preflight');
}

/** Cuts the task over whose page is shown, and undoes it. */
export async function cutover({ page, seen, button }) {
  const asked = [];
  let now = null;
  const at = (state, error = null) => {
    now = { task: 't-0', state, connection: 'qemu:///system', error, changed_at: new Date().toISOString() };
  };
  await page.getByText('The VM web1 is ready to take the place of web1').waitFor();
  await page.route('**/tasks/*/cutover', async (route) => {
    if (route.request().method() === 'GET') return route.fulfill(json(now));
    asked.push(route.request().postDataJSON());
    at('running');
    return route.fulfill(json(now));
  });
  await page.route('**/tasks/*/cutover/undo', async (route) => {
    asked.push('undo');
    at('undoing');
    await route.fulfill(json(now));
  });
  await button('Cut over…').click();
  const dialog = page.getByRole('dialog', { name: 'The VM web1 takes the place of web1' });
  await dialog.getByText('It stands in the boot image: nothing runs on it').waitFor();
  await seen('cutover-question');
  await dialog.getByRole('button', { name: 'Cut over' }).click();
  const panel = page.getByRole('region', { name: 'Cutover' });
  await panel.getByText('Is being cut over').waitFor();
  assert.deepEqual(asked, [{ connection: 'qemu:///system' }]);
  at('failed', 'machine web1 still answers at 192.0.2.11: nothing was started');
  await panel.getByText('nothing was started').waitFor();
  await button('Cut over…').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cut over' }).click();
  await panel.getByText('Is being cut over').waitFor();
  at('done');
  await panel.getByText(/The VM web1 has the place of web1/).waitFor();
  await seen('cutover');
  await button('Undo…').click();
  await page
    .getByRole('dialog', { name: 'web1 gets its place back' })
    .getByText(/Wake-on-LAN/)
    .waitFor();
  await seen('cutover-undo');
  await page.getByRole('button', { name: 'Undo the cutover' }).click();
  await panel.getByText('Is being undone').waitFor();
  at('undone');
  await panel.getByText(/may have its place again/).waitFor();
  assert.equal(asked.at(-1), 'undo');
  await page.unroute('**/tasks/*/cutover');
  await page.unroute('**/tasks/*/cutover/undo');
}
