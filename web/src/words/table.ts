/** Machines from a table of comma-separated values (RFC 4180), as `vconverter machines import` takes them. */

import type { NewMachine, Reach } from '../api/types';
import { REACHES } from './inventory';

/** Columns of the table; all but the first may be missing, and so may values. */
export const COLUMNS = ['address', 'name', 'group', 'note', 'reach', 'uuid'] as const;
type Column = (typeof COLUMNS)[number];

/** Largest table in bytes, and machines of one: as the controller takes them at once. */
export const TABLE_BYTES_MAX = 8 << 20;
const MACHINES_MAX = 1000;

/** A machine of the table, and in which line it begins. */
export interface Row {
  line: number;
  machine: NewMachine;
}

export interface Fault {
  line: number;
  text: string;
}

export interface Table {
  rows: Row[];
  faults: Fault[];
}

interface Fields {
  line: number;
  fields: string[];
}

/** Fields of each row that is neither empty nor a comment; `null` and a line for a quote that is not closed. */
function* fieldsOf(text: string): Generator<Fields | { line: number; fields: null }> {
  let line = 1;
  let at = 0;
  while (at < text.length) {
    const end = text.indexOf('\n', at);
    const whole = text.slice(at, end < 0 ? undefined : end);
    if (whole.trim() === '' || whole.startsWith('#')) {
      at = end < 0 ? text.length : end + 1;
      line += 1;
      continue;
    }
    const began = line;
    const fields: string[] = [];
    for (;;) {
      while (text[at] === ' ' || text[at] === '\t') at += 1;
      let field = '';
      if (text[at] === '"') {
        at += 1;
        for (;;) {
          const quote = text.indexOf('"', at);
          if (quote < 0) return yield { line: began, fields: null };
          field += text.slice(at, quote);
          at = quote + 1;
          if (text[at] !== '"') break;
          field += '"';
          at += 1;
        }
        line += field.split('\n').length - 1;
      }
      let stop = at;
      while (stop < text.length && text[stop] !== ',' && text[stop] !== '\n') stop += 1;
      fields.push((field + text.slice(at, stop)).trim());
      at = stop + 1;
      if (text[stop] !== ',') break;
    }
    line += 1;
    yield { line: began, fields };
  }
}

/** The machines of a table, and what is wrong with its form; what cannot be of a machine the controller says. */
export function parseTable(text: string, group: string): Table {
  const table = fieldsOf(text.replace(/^\uFEFF/, ''));
  const wrong = (line: number, text: string): Table => ({ rows: [], faults: [{ line, text }] });
  const { value: header } = table.next();
  if (!header?.fields) return wrong(header?.line ?? 1, 'a heading with the column address is expected');
  const names: string[] = header.fields;
  for (const [place, name] of names.entries()) {
    if (!COLUMNS.includes(name as Column))
      return wrong(
        header.line,
        `column ${place + 1}: “${name}” is not known; the columns are ${COLUMNS.join(', ')}`,
      );
    if (names.indexOf(name) !== place) return wrong(header.line, `column ${place + 1}: ${name} stands twice`);
  }
  if (!names.includes('address')) return wrong(header.line, 'a heading with the column address is expected');

  const rows: Row[] = [];
  const faults: Fault[] = [];
  for (const { line, fields } of table) {
    if (!fields) return wrong(line, 'a quote that is opened here is not closed');
    if (rows.length >= MACHINES_MAX)
      return wrong(line, `at most ${MACHINES_MAX} machines are taken at once: make several tables of it`);
    if (fields.length !== names.length)
      faults.push({
        line,
        text: `${names.length} fields are expected, as in the heading; it has ${fields.length}`,
      });
    const value = (name: Column): string | null => fields[names.indexOf(name)] || null;
    const reach = value('reach')?.toLowerCase() ?? 'unknown';
    if (!REACHES.some(({ id }) => id === reach))
      faults.push({ line, text: `reach: ssh, winrm or unknown is expected, “${reach}” was found` });
    rows.push({
      line,
      machine: {
        address: value('address') ?? '',
        name: value('name'),
        group: value('group') ?? (group.trim() || null),
        note: value('note'),
        reach: reach as Reach,
        uuid: value('uuid'),
      },
    });
  }
  if (rows.length === 0 && faults.length === 0) return wrong(header.line, 'it names no machine');
  return { rows, faults };
}
