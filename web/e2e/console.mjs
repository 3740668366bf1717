/**
 * The console in a browser, from the first start to the boot proof: `node e2e/console.mjs SITE_PROGRAM PICTURES_FOLDER`.
 * Every page is looked at by axe in both themes, and nothing may break the content security policy or ask another host.
 */

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { cutover, endMeasure, measure } from './cutover.mjs';
import { settings, SETTINGS } from './settings.mjs';
import {
  askForAdministrator,
  launch,
  look,
  makeAdministrator,
  openConversion,
  openPage,
  startSite,
} from './site.mjs';

const [program, pictures] = process.argv.slice(2);
if (!program || !pictures) throw new Error('usage: node e2e/console.mjs SITE_PROGRAM PICTURES_FOLDER');
await mkdir(pictures, { recursive: true });

const ADMINISTRATOR = { name: 'admin', password: 'a long enough password' };
const VIEWER = { name: 'night-shift', password: 'another long password' };
const violations = [];
const saw = (what) => console.log(`ok: ${what}`);

const site = await startSite(program);
const browser = await launch();
try {
  const { page, faults } = await openPage(browser, site.url);
  const seen = async (name) => violations.push(...(await look(page, name, pictures)));
  const button = (name) => page.getByRole('button', { name });
  const row = (name) => page.getByRole('treeitem', { name });
  const heading = (name) => page.getByRole('heading', { name, level: 1 });

  await firstStart(page, seen, button, heading);
  await browseByKeys(page, row, heading);
  await approve(page, seen, button, row);
  await convert(page, seen, button, row);
  await endings(page, seen, button, row);
  await schedule(page, seen, button, row);
  await inventory(page, seen, button, row, heading);
  await search(page, seen, button, row, heading);
  await importTable(page, seen, button, row, heading);
  await settings({ page, seen, button, row, heading, site, viewer: VIEWER });
  saw('limits, profiles, credentials, tokens, agents and users have their settings');
  await rest(page, seen, button, heading);
  assert.deepEqual(faults, []);
  saw('the policy was kept, and no other host was asked');
  await viewerChangesNothing(browser);
  assert.deepEqual(violations, []);
  saw('axe found nothing on any page, light or dark');
} finally {
  await browser.close();
  await site.stop();
}

async function firstStart(page, seen, button, heading) {
  await heading('First start').waitFor();
  await seen('first-start');
  await askForAdministrator(page, '0000-0000', ADMINISTRATOR);
  await page.locator('.notice.bad').waitFor();
  await makeAdministrator(page, site.setup_code, ADMINISTRATOR);
  saw('a wrong setup code is refused, the right one makes the first administrator');

  await button('Sign out').click();
  await signIn(page, { ...ADMINISTRATOR, password: 'not this password' });
  await page.locator('.notice.bad').waitFor();
  await seen('sign-in');
  await signIn(page, ADMINISTRATOR);
  await heading('Machines').waitFor();
  saw('signed out, refused with a wrong password, and signed in');
}

async function signIn(page, { name, password }) {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

async function browseByKeys(page, row, heading) {
  const group = row('Cold Cloning Ready 3 machines');
  await group.waitFor();
  await group.focus();
  await page.keyboard.press('ArrowLeft');
  assert.equal(await group.getAttribute('aria-expanded'), 'false');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('End');
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await heading('erp-db').waitFor();
  await page.keyboard.press('w');
  await page.keyboard.press('Enter');
  await heading('web1').waitFor();
  assert.equal(await row(/^web1 ?, Cold Cloning Ready/).getAttribute('aria-selected'), 'true');
  await page.getByRole('searchbox', { name: 'Search machines' }).fill('windows 192.0.2.12');
  await row(/^erp-db ?, Cold Cloning Ready/).waitFor();
  assert.equal(await row(/^web1 ?, Cold Cloning Ready/).count(), 0);
  await page.getByRole('searchbox', { name: 'Search machines' }).fill('');
  saw('the Network Browser is gone through by keys, and searched by system and address');
}

async function approve(page, seen, button, row) {
  const [machine] = site.waiting;
  await row(machine.name).click();
  await page.getByRole('heading', { name: 'It waits for approval' }).waitFor();
  await seen('approval');
  await page.getByLabel('Pairing code').fill(machine.code.toLowerCase());
  await button('Approve').click();
  await row('Cold Cloning Ready 4 machines').waitFor();
  await page.getByRole('heading', { name: 'Disks' }).waitFor();
  saw(`${machine.name} is approved by its code`);
}

async function convert(page, seen, button, row) {
  await row(/^web1 ?,/).click();
  await page.getByRole('heading', { name: 'Disks' }).waitFor();
  await seen('machine');
  const dialog = await openConversion(page, row(/^web1 ?, /), 'web1', site.output);
  await dialog.getByLabel('Verify the copy by hashes').check();
  await dialog.getByRole('checkbox', { name: /\/dev\/sdb/ }).uncheck();
  const words = await dialog.getByRole('region', { name: 'What will happen' }).innerText();
  for (const said of [
    'stays in the boot image',
    '/dev/sdb is left out',
    'by its hash',
    `${site.output}/web1 appears`,
  ]) {
    assert.ok(words.includes(said), `${said}: ${words}`);
  }
  await measure(page, dialog);
  await seen('convert');
  await endMeasure(page);
  await dialog.getByRole('button', { name: 'Convert' }).click();
  await page.getByText('It boots').waitFor();
  const picture = page.getByRole('img', { name: /^Screen of the VM/ });
  await picture.waitFor();
  await page.waitForFunction(() => document.querySelector('figure img')?.naturalWidth === 720);
  await page.getByText('login prompt of web1').waitFor();
  await page.getByText('every used block of the replicas').waitFor();
  await seen('task');
  await cutover({ page, seen, button });
  await button('Show the picture larger').click();
  await page.getByRole('dialog', { name: 'Screen of the VM' }).waitFor();
  await seen('picture');
  await page.keyboard.press('Escape');
  const [log] = await Promise.all([
    page.context().waitForEvent('page'),
    page.getByRole('link', { name: 'Text of the serial console' }).click(),
  ]);
  await log.waitForLoadState();
  assert.match(await log.locator('body').innerText(), /web1 login:/);
  await log.close();
  saw('web1 is converted, and its boot proof is seen with its picture and the serial log');
}

async function endings(page, seen, button, row) {
  let dialog = await openConversion(page, row(/^mail ?, /), 'fail-mail', site.output);
  await dialog.getByRole('button', { name: 'Convert' }).click();
  await page.getByText('No space left on device').first().waitFor();
  await button('Try again').waitFor();
  await seen('task-failed');
  dialog = await openConversion(page, row(/^mail ?, /), 'panic-mail', site.output);
  await dialog.getByRole('button', { name: 'Convert' }).click();
  await page.getByText('It does not boot').waitFor();
  await page.waitForFunction(() => document.querySelector('figure img')?.naturalWidth === 720);
  await seen('task-not-proven');
  saw('a failed task says why, and a failed boot proof shows its picture');

  dialog = await openConversion(page, row(/^mail ?, /), 'slow-mail', site.output);
  await dialog.getByLabel('Give the machine back by').check();
  await dialog.getByLabel('Time of return').fill('06:00');
  await dialog.getByText(/mail is back in its own system by 06:00 Europe\/Berlin/).waitFor();
  await dialog.getByRole('button', { name: 'Convert' }).click();
  await page.locator('[role=progressbar][aria-valuenow="40"]').waitFor();
  await button('Change…').click();
  dialog = page.getByRole('dialog', { name: 'Bandwidth of slow-mail' });
  await dialog.getByLabel('At most', { exact: true }).fill('4000');
  await dialog.getByLabel('At most: unit').selectOption('Mbit/s');
  await dialog.getByRole('button', { name: 'Set' }).click();
  await page.getByText('at most 500 MB/s').waitFor();
  await page.getByText(/must be back by .*, and will (not )?be:/).waitFor();
  await button('Other time…').click();
  dialog = page.getByRole('dialog', { name: 'Return of the machine of slow-mail' });
  await dialog.getByLabel('Time of return').fill('05:30');
  await seen('return');
  await dialog.getByRole('button', { name: 'Set' }).click();
  await page.getByRole('definition').filter({ hasText: '05:30 Europe/Berlin' }).waitFor();
  await seen('task-running');
  const [log] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'Download' }).click(),
  ]);
  assert.match(log.suggestedFilename(), /^t-[0-9a-f]{8}\.log$/);
  assert.match(await readFile(await log.path(), 'utf8'), /a rehearsal: nothing is copied/);
  await button('Clone…').click();
  dialog = page.getByRole('dialog', { name: 'Clone slow-mail' });
  assert.equal(await dialog.getByLabel('Name of the VM').inputValue(), 'slow-mail-2');
  await dialog.getByLabel('Name of the VM').fill('mail-clone');
  await seen('clone');
  await dialog.getByRole('button', { name: 'Convert' }).click();
  await page.getByRole('heading', { name: 'mail-clone', level: 1 }).waitFor();
  await page.getByText('It boots').waitFor();
  await button('Delete…').click();
  dialog = page.getByRole('dialog', { name: 'Delete mail-clone?' });
  await dialog.getByText('The VM that it made stays where it is.').waitFor();
  await dialog.getByRole('button', { name: 'Delete the task' }).click();
  await page.getByRole('link', { name: 'slow-mail' }).click();
  await button('Cancel…').click();
  await page.getByRole('dialog').waitFor();
  await seen('cancel');
  await button('Go on').click();
  saw(
    'a running task shows how far it is; it is limited, its log taken, it is cloned, and its clone deleted',
  );
}

async function schedule(page, seen, button, row) {
  let dialog = await openConversion(page, row(/^web1 ?, /), 'web1-weekend', site.output);
  await dialog.getByLabel('In a maintenance window').check();
  await dialog.getByText('Sun', { exact: true }).click();
  await dialog.getByLabel('Time zone').selectOption('Europe/Berlin');
  await seen('schedule');
  await dialog.getByRole('button', { name: 'Schedule' }).click();
  await page.getByText('only while a window is open: Sat,Sun 22:00-06:00 Europe/Berlin').waitFor();
  await button('Another time…').click();
  await page.getByRole('dialog').getByLabel('Start at').check();
  await page.getByRole('dialog').getByLabel('Day and time').fill('2031-12-01T22:00');
  await page.getByRole('button', { name: 'Set', exact: true }).click();
  await page.getByText(/not before 2031-12-01 22:00 Europe\/Berlin/).waitFor();
  dialog = await openConversion(page, row(/^ldap2 ?, /), 'ldap2', site.output);
  await dialog.getByRole('button', { name: 'Schedule' }).click();
  await page.getByText('Waits for its machine').first().waitFor();
  saw('tasks are given a window, another time, and a machine to wait for');
}

async function inventory(page, seen, button, row, heading) {
  await button('Add a machine…').click();
  let dialog = page.getByRole('dialog', { name: 'Add a machine' });
  await dialog.getByLabel('Host name or IP address').fill('192.0.2.300');
  await dialog.getByRole('button', { name: 'Add' }).click();
  await dialog.getByText(/expected a host name or an IP address/).waitFor();
  await dialog.getByLabel('Host name or IP address').fill('198.51.100.7');
  await dialog.getByLabel(/^Name/).fill('old-files');
  await dialog.getByLabel(/^Group/).fill('Basement');
  await dialog.getByLabel('Can be reached by').selectOption('ssh');
  await dialog.getByLabel('Note').fill('Under the stairs.\nAda has the key.');
  await seen('add-machine');
  await dialog.getByRole('button', { name: 'Add' }).click();
  await heading('old-files').waitFor();
  await page.getByText('It cannot be converted yet').waitFor();
  await page.getByText('at 198.51.100.7 (by user admin)').waitFor();
  assert.equal(await button('Convert…').count(), 0);
  await seen('machine-added');

  await row(/^web1 ?, /).click();
  await heading('web1').waitFor();
  await button('Edit…').click();
  dialog = page.getByRole('dialog', { name: 'Notes of web1' });
  await dialog.getByLabel('Group').selectOption('Basement');
  await dialog.getByLabel('Note').fill('Only at night.');
  await dialog.getByRole('button', { name: 'Keep' }).click();
  await page.getByText('Only at night.').waitFor();
  await page.getByText(/group: Basement, note/).waitFor();
  await button('Groups…').click();
  dialog = page.getByRole('dialog', { name: 'Groups of machines' });
  await dialog.getByLabel('Name of the new group').fill('Office');
  await dialog.getByRole('button', { name: 'Make' }).click();
  await dialog.getByRole('button', { name: 'Rename Basement' }).click();
  await dialog.getByLabel('Other name of Basement').fill('Cellar');
  await dialog.getByRole('button', { name: 'Rename', exact: true }).click();
  await dialog.getByText('Cellar').waitFor();
  await seen('groups');
  await page.keyboard.press('Escape');

  const by = page.getByLabel('Arrange machines by');
  await by.selectOption('network');
  await row(/^192\.0\.2\.0\/24 \d+ machines?$/).waitFor();
  await by.selectOption('system');
  await row(/^Debian GNU\/Linux 9 \(stretch\) \d+ machines?$/).waitFor();
  await by.selectOption('group');
  await row('Cellar 2 machines').waitFor();
  await row('Office 0 machines').waitFor();
  await page.reload();
  await row('Cellar 2 machines').click();
  assert.equal(await row(/^old-files/).count(), 0);
  await row('Cellar 2 machines').click();
  await row(/^old-files ?, No agent yet/).waitFor();
  await seen('by-group');
  await by.selectOption('state');
  saw('machines are added, noted, put into groups, and arranged as it was chosen');
}

async function search(page, seen, button, row, heading) {
  await page.getByRole('link', { name: 'Search a network' }).click();
  await heading('Search a network').waitFor();
  // The console itself is what answers there.
  const port = new URL(site.url).port;
  await page.getByLabel('Range of addresses').fill('127.0.0.1-3');
  await page.getByLabel('Ports').fill(port);
  await page.getByText('3 connects: at least').waitFor();
  await button('Search').click();
  await page.getByText(/Done: 3 of 3 connects/).waitFor();
  await page.getByLabel('Choose 127.0.0.1').check();
  await page.getByPlaceholder('none').fill('Found');
  await seen('search');
  await button('Add 1 machine').click();
  await page.getByText('1 machine added.').waitFor();
  await row(/^127\.0\.0\.1 ?, No agent yet/).waitFor();
  await page.getByLabel('Range of addresses').fill('127.0.8.0/24');
  await page.getByLabel('Connects a second').fill('1');
  await button('Search').click();
  await page.getByRole('progressbar', { name: 'Progress of the search' }).waitFor();
  await seen('search-running');
  await button('Cancel the search').click();
  await page.getByText(/Cancelled after/).waitFor();
  saw('a network is searched, what was found is added, and a search is cancelled');
}

async function importTable(page, seen, button, row, heading) {
  const table = (lines) => ({
    name: 'rack-7.csv',
    mimeType: 'text/csv',
    buffer: Buffer.from(['address,name,group,note,reach', ...lines].join('\r\n')),
  });
  await button('Add a machine…').click();
  await page.getByRole('dialog').getByRole('link', { name: 'import a table' }).click();
  await heading('Import machines').waitFor();
  const file = page.getByLabel('File');
  await file.setInputFiles({
    name: 'x.csv',
    mimeType: 'text/csv',
    buffer: Buffer.from('address,colour\nweb,red'),
  });
  await page.getByText('Line 1: column 2: “colour” is not known').waitFor();
  const good = [
    '# the seventh rack',
    '192.0.2.71,print1,Rack 7,"under the window, ask ""Ada""",ssh',
    '192.0.2.72,print2,,,winrm',
    '198.51.100.7,,,,',
  ];
  await file.setInputFiles(table([...good, '192.0.2.300,typo,,,', '192.0.2.73,PRINT1,,,']));
  await page.getByText(/address: expected a host name or an IP address/).waitFor();
  await page.getByText('name: print1 is taken by line 3').waitFor();
  assert.equal(await button(/^Add \d/).count(), 0);
  await seen('import-faults');
  await file.setInputFiles(table(good));
  await page.getByRole('combobox', { name: /^Group of those/ }).fill('Printers');
  await page.getByRole('combobox', { name: /^Group of those/ }).blur();
  await page
    .getByText('2 machines can be added, in the new groups Rack 7, Printers; 1 known already')
    .waitFor();
  await page.getByRole('cell', { name: 'under the window, ask "Ada"' }).waitFor();
  await seen('import');
  await button('Add 2 machines').click();
  await page.getByText('2 machines added from rack-7.csv.').waitFor();
  await row(/^print1 ?, No agent yet/).waitFor();
  saw('a table is imported: what is wrong is told by its lines, and what will be added is shown first');
}

async function rest(page, seen, button, heading) {
  const section = (name) => page.getByRole('navigation', { name: 'Sections' }).getByRole('link', { name });
  await section('Machines').click();
  await heading('Machines').waitFor();
  await seen('overview');
  await section('Tasks').click();
  await page.getByRole('link', { name: 'slow-mail' }).waitFor();
  await seen('tasks');
  await section('Network boot').click();
  await page.getByLabel('Machine', { exact: true }).fill('52:54:00:4F:01:00');
  await button('Set').click();
  await page.getByRole('cell', { name: 'Boot once' }).waitFor();
  await seen('network-boot');
  await section('Drivers').click();
  await heading('Drivers').waitFor();
  await seen('drivers');
  await page.goto(`${site.url}/account`);
  await page.getByText('There is no token.').waitFor();
  await seen('account');
  await page.getByLabel('What it is for').fill('nightly report');
  await button('Make token').click();
  await page.getByText('It is shown this once').waitFor();
  await seen('token');
  await section('Audit').click();
  await page
    .getByRole('cell', { name: /machine approved|task created/ })
    .first()
    .waitFor();
  await seen('audit');
  await page.goto(`${site.url}/nowhere`);
  await heading(/There is no such page/).waitFor();
  await button('Dark colours').click();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await page.reload();
  await button('Light colours').click();
  saw('rules, tokens and the audit log have their pages, and the theme that is chosen stays');
}

async function viewerChangesNothing(browser) {
  const { page, faults } = await openPage(browser, site.url);
  await signIn(page, VIEWER);
  await page.getByRole('heading', { name: 'Machines', level: 1 }).waitFor();
  const tasks = await page.evaluate(async () => (await (await fetch('/api/v1/tasks')).json()).items);
  const machines = await page.evaluate(async () => (await (await fetch('/api/v1/machines')).json()).items);
  const paths = [
    '/',
    '/search',
    '/import',
    '/tasks',
    '/pxe',
    '/drivers',
    ...SETTINGS.map((part) => `/settings/${part}`),
    '/audit',
    ...tasks.map((task) => `/tasks/${task.id}`),
    ...machines.map((machine) => `/machines/${machine.id ?? machine.key}`),
  ];
  const harmless = /^(All|Running|Waiting|Over) \d+$|^Show the picture larger$|^Show (more|less)$/;
  for (const path of paths) {
    await page.goto(`${site.url}${path}`);
    await page.locator('main h1').waitFor();
    const names = await page
      .locator('main button')
      .evaluateAll((all) =>
        all.map((one) => one.getAttribute('aria-label') ?? one.textContent.replace(/\s+/g, ' ').trim()),
      );
    const changing = names.filter((name) => !harmless.test(name));
    assert.deepEqual(changing, [], `${path} has buttons that change something`);
    assert.equal(await page.locator('main form').count(), 0, `${path} has a form`);
  }
  const refused = await page.evaluate(async (task) => {
    const { csrf_token } = await (await fetch('/api/v1/session')).json();
    const headers = { 'content-type': 'application/json', 'x-csrf-token': csrf_token };
    const ask = async (method, path, body) =>
      (await fetch(`/api/v1${path}`, { method, headers, body: JSON.stringify(body) })).status;
    const post = (path, body) => ask('POST', path, body);
    return [
      await post(`/tasks/${task}/cancel`),
      await post('/machines/approve', { code: '0000-0000' }),
      await post('/machines', { machines: [{ address: '192.0.2.1' }] }),
      await post('/search', { range: '192.0.2.1' }),
      await post('/pxe/rules', { machine: '52:54:00:4f:01:00', policy: null }),
      await post(`/tasks/${task}/bandwidth`, { bytes_per_second: 1 }),
      await post(`/tasks/${task}/clone`, { name: 'other' }),
      await post('/enrolment-tokens', {}),
      await ask('PUT', '/limits', { running: 1 }),
      await ask('PUT', '/profiles/other', { settings: {} }),
      await ask('PUT', '/credentials/other', { kind: 'ssh-password', secret: 'x' }),
      await ask('DELETE', '/agents/00'),
      ...(await Promise.all(
        ['/users', '/audit', '/credentials', '/enrolment-tokens'].map((path) => ask('GET', path)),
      )),
    ];
  }, tasks[0].id);
  assert.deepEqual(new Set(refused), new Set([403]), `${refused}`);
  assert.deepEqual(faults, []);
  saw(`a viewer finds nothing to change on ${paths.length} pages, and the controller refuses it`);
}
