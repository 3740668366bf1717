/** A profile of tasks as its dialog holds it, as the API takes it, and in words. */

import type { Allocation, OutputFormat, Profile, TaskSettings } from '../api/types';
import { backByForm, backByText, type BackByForm } from './back-by';
import { duration } from './quantity';
import { limitText } from './rate';

/** What is left open is left to the conversion. */
export type Choice = '' | 'yes' | 'no';

export interface ProfileForm {
  name: string;
  isDefault: boolean;
  output: string;
  format: OutputFormat | '';
  allocation: Allocation | '';
  verify: Choice;
  proves: Choice;
  skipsUnreadable: Choice;
  keepsSwap: Choice;
  proofTime: number | null;
  bytesPerSecond: number | null;
  backBy: BackByForm;
  windows: string[];
}

const choice = (value: boolean | null | undefined): Choice => (value == null ? '' : value ? 'yes' : 'no');
const chosen = (value: Choice): boolean | null => (value === '' ? null : value === 'yes');

export function profileForm(profile: Profile | null): ProfileForm {
  const settings = profile?.settings ?? {};
  return {
    name: profile?.name ?? '',
    isDefault: profile?.is_default ?? false,
    output: settings.output ?? '',
    format: settings.format ?? '',
    allocation: settings.allocation ?? '',
    verify: choice(settings.verify),
    proves: choice(settings.prove_boot),
    skipsUnreadable: choice(settings.skip_unreadable),
    keepsSwap: choice(settings.keep_swap),
    proofTime: settings.proof_time_s ?? null,
    bytesPerSecond: settings.bytes_per_second ?? null,
    backBy: backByForm(settings.back_by),
    windows: settings.windows ?? [],
  };
}

export function profileSettings(form: ProfileForm): TaskSettings {
  return {
    output: form.output.trim() || null,
    format: form.format || null,
    allocation: form.allocation || null,
    verify: chosen(form.verify),
    prove_boot: chosen(form.proves),
    skip_unreadable: chosen(form.skipsUnreadable),
    keep_swap: chosen(form.keepsSwap),
    proof_time_s: form.proofTime,
    bytes_per_second: form.bytesPerSecond,
    back_by: backByText(form.backBy),
    windows: form.windows.length > 0 ? form.windows : null,
  };
}

/** What it sets, one thing each. */
export function settingsWords(settings: TaskSettings): string[] {
  const either = (value: boolean | null | undefined, yes: string, no: string): string | null =>
    value == null ? null : value ? yes : no;
  const said = [
    settings.output && `into ${settings.output}`,
    settings.format && `as ${settings.format}`,
    settings.allocation && `${settings.allocation} room`,
    either(settings.verify, 'verified', 'not verified'),
    either(settings.prove_boot, 'boot proven', 'boot not proven'),
    settings.proof_time_s && `${duration(settings.proof_time_s)} for the proof`,
    either(settings.skip_unreadable, 'unreadable sectors skipped', 'stops at unreadable sectors'),
    either(settings.keep_swap, 'swap copied', 'swap left out'),
    settings.bytes_per_second && `at most ${limitText(settings.bytes_per_second)}`,
    settings.back_by && `back by ${settings.back_by}`,
    settings.windows?.length && `begins ${settings.windows.join(' or ')}`,
  ];
  return said.filter((text): text is string => Boolean(text));
}
