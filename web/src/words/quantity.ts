/** Sizes, rates and times as people read them. */

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/** As the command line prints it: `3.0 GiB`, `512 B`. */
export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  let value = count / 1024;
  let unit = 0;
  while (value >= 1023.95 && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(value < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond: number): string {
  return `${bytes(bytesPerSecond)}/s`;
}

/** `42 s`, `3 min 10 s`, `2 h 5 min`, `4 d 3 h`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const pairs = [
    [86_400, 'd', 3600, 'h'],
    [3600, 'h', 60, 'min'],
    [60, 'min', 1, 's'],
  ] as const;
  for (const [big, bigName, small, smallName] of pairs) {
    if (whole < big) continue;
    const rest = Math.floor((whole % big) / small);
    return rest
      ? `${Math.floor(whole / big)} ${bigName} ${rest} ${smallName}`
      : `${Math.floor(whole / big)} ${bigName}`;
  }
  return `${whole} s`;
}

const moments = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
const times = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

/** In the reader's zone. */
export function moment(at: string): string {
  return moments.format(new Date(at));
}

export function timeOfDay(at: string): string {
  return times.format(new Date(at));
}

/** `just now`, `4 min ago`, `in 2 h`. */
export function relative(at: string, now: number): string {
  const seconds = (new Date(at).getTime() - now) / 1000;
  const length = Math.abs(seconds);
  if (length < 45) return seconds > 20 ? 'in a moment' : 'just now';
  const steps = [
    [31_557_600, 'y'],
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'min'],
  ] as const;
  const [size, name] = steps.find(([size]) => length >= size) ?? [60, 'min'];
  const count = Math.max(1, Math.round(length / size));
  return seconds < 0 ? `${count} ${name} ago` : `in ${count} ${name}`;
}

export function percent(done: number, total: number): number | null {
  return total > 0 ? Math.floor((Math.min(done, total) * 100) / total) : null;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
