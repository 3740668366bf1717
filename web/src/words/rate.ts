/** How fast data may come in: as it is typed, and in words. In units of ten, as links are sold. */

export const RATE_UNITS = [
  { name: 'MB/s', bytes: 1_000_000 },
  { name: 'Mbit/s', bytes: 125_000 },
  { name: 'kB/s', bytes: 1000 },
] as const;
export type RateUnit = (typeof RATE_UNITS)[number];

/** The first unit in which it is a whole number; else the first of all. */
export function unitOf(bytesPerSecond: number | null): RateUnit {
  return RATE_UNITS.find(({ bytes }) => (bytesPerSecond ?? 0) % bytes === 0) ?? RATE_UNITS[0];
}

/** `12.5 MB/s`, `300 kB/s`; without a limit `as fast as it goes`. */
export function limitText(bytesPerSecond: number | null | undefined): string {
  if (bytesPerSecond == null) return 'as fast as it goes';
  const [bytes, name] = bytesPerSecond >= 1_000_000 ? [1_000_000, 'MB/s'] : [1000, 'kB/s'];
  return `${Number((bytesPerSecond / bytes).toFixed(2))} ${name}`;
}
