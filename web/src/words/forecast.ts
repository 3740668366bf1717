/** How long a copy will take, in words. */

import type { Preflight } from '../api/types';
import { bytes, duration, relative } from './quantity';
import { limitText } from './rate';

/** `About 1 h 20 min for 41 GiB: the link was measured 2 min ago, 93 MB/s.` */
export function forecastText({ bytes: count, forecast }: Preflight, now: number): string | null {
  if (!forecast) return null;
  const measured = `measured ${relative(forecast.tested_at, now)}`;
  return `About ${duration(forecast.copy_seconds)} for ${bytes(count)}, at ${limitText(forecast.bytes_per_second)} (link ${measured}). Fix-ups and boot proof take some minutes more.`;
}
