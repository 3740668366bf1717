/** The settings in a browser: limits, profiles, credentials, enrolment tokens, agents and users. */

import assert from 'node:assert/strict';

/** The pages, as their paths name them. */
export const SETTINGS = ['limits', 'profiles', 'credentials', 'enrolment', 'agents', 'users'];

const SECRET = 'never to be seen again';

/** Goes through all pages as an administrator; makes the viewer. */
export async function settings(tools) {
  const { page, heading } = tools;
  await page.getByRole('navigation', { name: 'Sections' }).getByRole('link', { name: 'Settings' }).click();
  await heading('Limits').waitFor();
  await limits(tools);
  await profiles(tools);
  await credentials(tools);
  await enrolment(tools);
  await agents(tools);
  await users(tools);
}

async function open({ page, heading }, name) {
  await page.getByRole('navigation', { name: 'Settings' }).getByRole('link', { name }).click();
  await heading(name).waitFor();
}

async function chooseWindow(within) {
  await within.getByText('Sat', { exact: true }).click();
  for (const day of ['Mon', 'Tue', 'Wed', 'Thu', 'Fri']) await within.getByText(day, { exact: true }).click();
  await within.getByLabel('Opens at').fill('08:00');
  await within.getByLabel('Closes at').fill('18:00');
  await within.getByLabel('Time zone').selectOption('Europe/Berlin');
}

async function limits({ page, seen, button }) {
  await page.getByLabel('Tasks that run at once').fill('6');
  await page.getByLabel('Bandwidth', { exact: true }).fill('1000');
  await page.getByLabel('Bandwidth: unit').selectOption('Mbit/s');
  await button('Set').click();
  await page.getByText('The limits count from now on').waitFor();
  await button('Add a window…').click();
  const dialog = page.getByRole('dialog', { name: 'Another bandwidth at times' });
  await chooseWindow(dialog);
  await dialog.getByLabel('Bandwidth', { exact: true }).fill('12.5');
  await seen('limits-window');
  await dialog.getByRole('button', { name: 'Add' }).click();
  await page.getByRole('cell', { name: 'Mon-Fri 08:00-18:00 Europe/Berlin', exact: true }).waitFor();
  await page.getByRole('cell', { name: '12.5 MB/s', exact: true }).waitFor();
  await button('Limit slow-mail…').click();
  await page.getByRole('dialog').getByLabel('At most', { exact: true }).fill('25');
  await page.getByRole('dialog').getByLabel('At most: unit').selectOption('MB/s');
  await page.getByRole('dialog').getByRole('button', { name: 'Set' }).click();
  await page.getByRole('cell', { name: '25 MB/s', exact: true }).waitFor();
  await page.reload();
  assert.equal(await page.getByLabel('Tasks that run at once').inputValue(), '6');
  await page.getByRole('cell', { name: '25 MB/s', exact: true }).waitFor();
  assert.equal(await page.getByLabel('Bandwidth', { exact: true }).inputValue(), '125');
  await seen('limits');
}

async function profiles({ page, seen, button, row, heading, site }) {
  await page.getByRole('navigation', { name: 'Settings' }).getByRole('link', { name: 'Limits' }).focus();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await heading('Task profiles').waitFor();
  await page.getByText('There is no profile yet').waitFor();
  await button('New profile…').click();
  let dialog = page.getByRole('dialog', { name: 'New profile' });
  await dialog.getByRole('textbox', { name: 'Name' }).fill('nightly');
  await dialog.getByLabel(/^Output folder/).fill(site.output);
  await dialog.getByLabel('Verify by hashes').selectOption('yes');
  await dialog.getByLabel('Disk format').selectOption('raw');
  await dialog.getByLabel('Bandwidth', { exact: true }).fill('50');
  await dialog.getByLabel('Give the machine back by').check();
  await dialog.getByLabel('Time of return').fill('06:30');
  await dialog.getByRole('button', { name: 'Add a window' }).click();
  await dialog.getByLabel('Time zone').last().selectOption('Europe/Berlin');
  await dialog.getByRole('button', { name: 'Add this window' }).click();
  await dialog.getByRole('checkbox', { name: /The default/ }).check();
  await seen('profile');
  await dialog.getByRole('button', { name: 'Make profile' }).click();
  await page.getByText('at most 50 MB/s').waitFor();
  await page.getByText('back by 06:30 Europe/Berlin').waitFor();
  await page.getByText('begins Sat 22:00-06:00 Europe/Berlin').waitFor();

  await button('New profile…').click();
  dialog = page.getByRole('dialog', { name: 'New profile' });
  await dialog.getByRole('textbox', { name: 'Name' }).fill('nightly');
  await dialog.getByText('There is a profile of this name').waitFor();
  await dialog.getByRole('textbox', { name: 'Name' }).fill('standard');
  await dialog.getByRole('button', { name: 'Make profile' }).click();
  await button('Make default: standard').click();
  await button('Not default: standard').waitFor();
  await button('Make default: nightly').click();
  await button('Not default: nightly').waitFor();
  await button('Edit standard…').click();
  dialog = page.getByRole('dialog', { name: 'Profile standard' });
  await dialog.getByLabel('Room').selectOption('full');
  await dialog.getByLabel('Copy swap').selectOption('no');
  await dialog.getByRole('button', { name: 'Keep' }).click();
  await page.getByText('full room').waitFor();
  await seen('profiles');
  await button('Remove standard').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await page.getByText('1 profile', { exact: true }).waitFor();

  await row(/^mail ?, /).click();
  await button('Convert…').click();
  dialog = page.getByRole('dialog', { name: 'Convert mail' });
  await dialog.getByText(/mail is back in its own system by 06:30 Europe\/Berlin/).waitFor();
  await dialog.getByText(/No more than 50 MB\/s comes in for it/).waitFor();
  await dialog.getByText(/only while a window is open: Sat 22:00-06:00 Europe\/Berlin/).waitFor();
  assert.equal(await dialog.getByLabel('Bandwidth', { exact: true }).inputValue(), '50');
  assert.equal(await dialog.getByLabel('Disk format').inputValue(), 'raw');
  await page.keyboard.press('Escape');
  await page.getByRole('navigation', { name: 'Sections' }).getByRole('link', { name: 'Settings' }).click();
}

async function credentials({ page, seen, button, heading }) {
  await open({ page, heading }, 'Credentials');
  await page.getByText('There is no credential.').waitFor();
  for (const [name, kind, user] of [
    ['domain', 'windows-password', 'EXAMPLE\\migration'],
    ['web-root', 'ssh-key', 'root'],
  ]) {
    await button('New credential…').click();
    const dialog = page.getByRole('dialog', { name: 'New credential' });
    await dialog.getByLabel(/^Name/).fill(name);
    await dialog.getByLabel('What it is').selectOption(kind);
    await dialog.getByLabel('User').fill(user);
    await dialog.getByRole('textbox', { name: /^(Password|Private key)/ }).fill(SECRET);
    if (kind === 'windows-password') await seen('new-credential');
    await dialog.getByRole('button', { name: 'Keep it' }).click();
    await page.getByRole('cell', { name, exact: true }).waitFor();
  }
  await button('Replace domain…').click();
  const dialog = page.getByRole('dialog', { name: 'Another secret for domain' });
  assert.equal(
    await dialog.getByRole('textbox', { name: 'Password' }).inputValue(),
    '',
    'the secret is not shown',
  );
  assert.equal(await dialog.getByLabel('User').inputValue(), 'EXAMPLE\\migration');
  await dialog.getByRole('textbox', { name: 'Password' }).fill(`${SECRET}, nor this`);
  await dialog.getByRole('button', { name: 'Replace' }).click();
  await dialog.waitFor({ state: 'detached' });
  await page.reload();
  await page.getByRole('cell', { name: 'web-root', exact: true }).waitFor();
  assert.ok(!(await page.content()).includes(SECRET), 'the secret is not in the page');
  await seen('credentials');
  await button('Remove web-root').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await page.getByText('1 credential', { exact: true }).waitFor();
}

async function enrolment({ page, seen, button, heading }) {
  await open({ page, heading }, 'Enrolment tokens');
  await page.getByText('There is no token.').waitFor();
  await page.getByLabel('What it is for').fill('web7');
  await page.getByLabel('Good for').selectOption('8 hours');
  await button('Make token').click();
  await page.getByText('It is shown this once').waitFor();
  const token = await page.locator('.made code').first().innerText();
  await page.getByRole('cell', { name: 'ends in 8 h' }).waitFor();
  await seen('enrolment');
  await page.reload();
  await page.getByRole('cell', { name: /^web7/ }).waitFor();
  assert.ok(!(await page.content()).includes(token), 'the token is shown once');
  await button('Revoke web7').click();
  await page.getByRole('cell', { name: 'Revoked', exact: true }).waitFor();
  assert.equal(await button('Revoke web7').count(), 0);
}

async function agents({ page, seen, button, heading }) {
  await open({ page, heading }, 'Agents');
  await seen('agents');
  await button('Revoke ldap2…').click();
  const dialog = page.getByRole('dialog', { name: 'Revoke ldap2?' });
  await seen('revoke-agent');
  await dialog.getByRole('button', { name: 'Revoke its key' }).click();
  await page.getByRole('cell', { name: 'Revoked', exact: true }).waitFor();
  assert.equal(await button('Revoke ldap2…').count(), 0);
}

async function users({ page, seen, button, heading, viewer }) {
  await open({ page, heading }, 'Users');
  await button('New user…').click();
  const dialog = page.getByRole('dialog', { name: 'New user' });
  await dialog.getByLabel('Name').fill(viewer.name);
  await dialog.getByLabel('Role').selectOption('viewer');
  await dialog.getByRole('textbox', { name: 'Password' }).fill(viewer.password);
  await seen('new-user');
  await dialog.getByRole('button', { name: 'Make user' }).click();
  await page.getByRole('cell', { name: viewer.name, exact: true }).waitFor();
  await seen('users');
}
