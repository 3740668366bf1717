/** The API of the controller this page came from. */

import createClient, { type Middleware } from 'openapi-fetch';
import type { paths } from './schema';
import type {
  CutoverWish,
  Driver,
  Limits,
  MachineChange,
  NewConversion,
  NewCredential,
  NewEnrolment,
  NewMachines,
  NewProfile,
  NewSearch,
  NewToken,
  NewUser,
  PxePolicy,
  TaskSchedule,
  UserChange,
} from './types';

/** What the controller answered instead of what was asked for (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

let csrfToken = '';
let whenSignedOut = () => {};

/** Sent with everything that changes something, from the sign-in on. */
export function setCsrfToken(token: string): void {
  csrfToken = token;
}

/** Called when the controller no longer knows this session. */
export function onSignedOut(callback: () => void): void {
  whenSignedOut = callback;
}

/** What is asked without a session, or to find out whether there is one. */
const ENTRANCE = ['/api/v1/session', '/api/v1/login', '/api/v1/setup', '/api/v1/session/password'];

const session: Middleware = {
  onRequest({ request }) {
    if (request.method !== 'GET') request.headers.set('x-csrf-token', csrfToken);
  },
  async onResponse({ response, schemaPath }) {
    if (response.ok) return;
    if (response.status === 401 && !ENTRANCE.includes(schemaPath)) whenSignedOut();
    throw new Problem(
      response.status,
      detailOf(await response.text()) ?? `the controller answered ${response.status}`,
    );
  },
  onError() {
    return new Problem(0, 'The controller does not answer. Is it running, and is the network there?');
  },
};

function detailOf(text: string): string | null {
  try {
    const json: unknown = JSON.parse(text);
    const detail = typeof json === 'object' && json !== null && 'detail' in json ? json.detail : null;
    return typeof detail === 'string' && detail ? detail : null;
  } catch {
    return null;
  }
}

const client = createClient<paths>({ baseUrl: window.location.origin });
client.use(session);

/** The answer of a request that did not fail: those that do have thrown. */
async function answer<T>(request: Promise<{ data?: T }>): Promise<T> {
  return (await request).data as T;
}

/** Items of a page, and of all that are fetched at most: more are never shown at once. */
const PAGE = 200;
const ITEMS_MAX = 5000;

interface Page<T> {
  items: T[];
  next?: string | null;
}

async function all<T>(page: (query: { limit: number; after?: string }) => Promise<Page<T>>): Promise<T[]> {
  const items: T[] = [];
  let after: string | undefined;
  do {
    const found = await page(after === undefined ? { limit: PAGE } : { limit: PAGE, after });
    items.push(...found.items);
    after = found.next ?? undefined;
  } while (after !== undefined && items.length < ITEMS_MAX);
  return items;
}

const task = (id: string) => ({ params: { path: { id } } });

const machine = (id: string) => ({ params: { path: { machine: id } } });

const named = (name: string) => ({ params: { path: { name } } });

export const api = {
  setupNeeded: () => answer(client.GET('/api/v1/setup')),
  setUp: (body: { code: string; name: string; password: string }) =>
    answer(client.POST('/api/v1/setup', { body })),
  session: () => answer(client.GET('/api/v1/session')),
  login: (body: { name: string; password: string }) => answer(client.POST('/api/v1/login', { body })),
  logout: () => answer(client.POST('/api/v1/logout')),
  changePassword: (body: { old: string; new: string }) =>
    answer(client.POST('/api/v1/session/password', { body })),

  users: () => answer(client.GET('/api/v1/users')),
  addUser: (body: NewUser) => answer(client.POST('/api/v1/users', { body })),
  changeUser: (name: string, body: UserChange) =>
    answer(client.POST('/api/v1/users/{name}', { ...named(name), body })),
  removeUser: (name: string) => answer(client.DELETE('/api/v1/users/{name}', named(name))),
  tokens: () => answer(client.GET('/api/v1/tokens')),
  makeToken: (body: NewToken) => answer(client.POST('/api/v1/tokens', { body })),
  revokeToken: (id: string) => answer(client.DELETE('/api/v1/tokens/{name}', named(id))),

  limits: () => answer(client.GET('/api/v1/limits')),
  setLimits: (body: Limits) => answer(client.PUT('/api/v1/limits', { body })),
  credentials: () => answer(client.GET('/api/v1/credentials')),
  setCredential: (name: string, body: NewCredential) =>
    answer(client.PUT('/api/v1/credentials/{name}', { ...named(name), body })),
  removeCredential: (name: string) => answer(client.DELETE('/api/v1/credentials/{name}', named(name))),
  enrolmentTokens: () =>
    all((query) => answer(client.GET('/api/v1/enrolment-tokens', { params: { query } }))),
  makeEnrolmentToken: (body: NewEnrolment) => answer(client.POST('/api/v1/enrolment-tokens', { body })),
  revokeEnrolmentToken: (id: string) =>
    answer(client.DELETE('/api/v1/enrolment-tokens/{id}', { params: { path: { id } } })),
  agents: () => all((query) => answer(client.GET('/api/v1/agents', { params: { query } }))),
  revokeAgent: (key: string) => answer(client.DELETE('/api/v1/agents/{key}', { params: { path: { key } } })),

  status: () => answer(client.GET('/api/v1/status')),
  audit: (limit: number) => answer(client.GET('/api/v1/audit', { params: { query: { limit } } })),

  machines: () => all((query) => answer(client.GET('/api/v1/machines', { params: { query } }))),
  addMachines: (body: NewMachines) => answer(client.POST('/api/v1/machines', { body })),
  changeMachine: (id: string, body: MachineChange) =>
    answer(client.POST('/api/v1/machines/{machine}', { ...machine(id), body })),
  joinMachine: (id: string, added: string) =>
    answer(client.POST('/api/v1/machines/{machine}/join', { ...machine(id), body: { added } })),
  forgetMachine: (id: string) => answer(client.DELETE('/api/v1/machines/{machine}', machine(id))),
  candidates: (id: string) => answer(client.GET('/api/v1/machines/{machine}/candidates', machine(id))),
  history: (id: string) => answer(client.GET('/api/v1/machines/{machine}/history', machine(id))),
  groups: () => answer(client.GET('/api/v1/groups')),
  makeGroup: (name: string) => answer(client.PUT('/api/v1/groups/{name}', named(name))),
  renameGroup: (name: string, other: string) =>
    answer(client.POST('/api/v1/groups/{name}', { ...named(name), body: { name: other } })),
  deleteGroup: (name: string) => answer(client.DELETE('/api/v1/groups/{name}', named(name))),
  search: () => answer(client.GET('/api/v1/search')),
  startSearch: (body: NewSearch) => answer(client.POST('/api/v1/search', { body })),
  cancelSearch: () => answer(client.DELETE('/api/v1/search')),
  foundHosts: () => all((query) => answer(client.GET('/api/v1/search/hosts', { params: { query } }))),
  approve: (code: string) => answer(client.POST('/api/v1/machines/approve', { body: { code } })),

  tasks: () => all((query) => answer(client.GET('/api/v1/tasks', { params: { query } }))),
  task: (id: string) => answer(client.GET('/api/v1/tasks/{id}', task(id))),
  taskLog: (id: string, after: number) =>
    answer(client.GET('/api/v1/tasks/{id}/log', { params: { path: { id }, query: { after } } })),
  proof: (id: string) => answer(client.GET('/api/v1/tasks/{id}/proof', task(id))),
  profiles: () => answer(client.GET('/api/v1/profiles')),
  setProfile: (name: string, body: NewProfile) =>
    answer(client.PUT('/api/v1/profiles/{name}', { ...named(name), body })),
  deleteProfile: (name: string) => answer(client.DELETE('/api/v1/profiles/{name}', named(name))),
  preflight: (conversion: NewConversion) =>
    answer(client.POST('/api/v1/preflight', { body: { conversions: [conversion] } })),
  testLink: (id: string) => answer(client.POST('/api/v1/machines/{machine}/link-test', machine(id))),
  convert: (body: NewConversion) => answer(client.POST('/api/v1/tasks', { body })),
  cancel: (id: string) => answer(client.POST('/api/v1/tasks/{id}/cancel', task(id))),
  pause: (id: string) => answer(client.POST('/api/v1/tasks/{id}/pause', task(id))),
  remove: (id: string, discard: boolean) =>
    answer(client.DELETE('/api/v1/tasks/{id}', { params: { path: { id }, query: { discard } } })),
  cloneTask: (id: string, name: string) =>
    answer(client.POST('/api/v1/tasks/{id}/clone', { ...task(id), body: { name } })),
  limitTask: (id: string, bytesPerSecond: number | null) =>
    answer(
      client.POST('/api/v1/tasks/{id}/bandwidth', {
        ...task(id),
        body: { bytes_per_second: bytesPerSecond },
      }),
    ),
  returnTask: (id: string, backBy: string | null) =>
    answer(client.POST('/api/v1/tasks/{id}/back-by', { ...task(id), body: { back_by: backBy } })),
  retry: (id: string) => answer(client.POST('/api/v1/tasks/{id}/retry', task(id))),
  resume: (id: string) => answer(client.POST('/api/v1/tasks/{id}/resume', task(id))),
  startNow: (id: string) => answer(client.POST('/api/v1/tasks/{id}/start', task(id))),
  schedule: (id: string, body: TaskSchedule) =>
    answer(client.POST('/api/v1/tasks/{id}/schedule', { ...task(id), body })),

  cutover: (id: string) => answer(client.GET('/api/v1/tasks/{id}/cutover', task(id))),
  beginCutover: (id: string, body: CutoverWish) =>
    answer(client.POST('/api/v1/tasks/{id}/cutover', { ...task(id), body })),
  undoCutover: (id: string) => answer(client.POST('/api/v1/tasks/{id}/cutover/undo', task(id))),

  pxeRules: () => answer(client.GET('/api/v1/pxe/rules')),
  setPxeRule: (machine: string, policy: PxePolicy | null) =>
    answer(client.POST('/api/v1/pxe/rules', { body: { machine, policy } })),
  pxeLog: (after: number) => answer(client.GET('/api/v1/pxe/log', { params: { query: { after } } })),

  drivers: () => answer(client.GET('/api/v1/drivers')),
  addDriver: (file: File): Promise<Driver> =>
    answer(
      client.PUT('/api/v1/drivers/{name}', {
        params: { path: { name: file.name } },
        // As it is: the document describes a body of bytes as numbers.
        body: file as unknown as number[],
        bodySerializer: (body) => body as unknown as Blob,
        headers: { 'content-type': 'application/octet-stream' },
      }),
    ),
  removeDriver: (name: string) => answer(client.DELETE('/api/v1/drivers/{name}', named(name))),
};

/** Where the browser fetches a task's log as a text. */
export const logUrl = (id: string): string => `/api/v1/tasks/${encodeURIComponent(id)}/log.txt`;

/** Where the browser fetches what the boot proof left of a task. */
export function proofUrl(id: string, what: 'screenshot' | 'serial-log'): string {
  return `/api/v1/tasks/${encodeURIComponent(id)}/proof/${what}`;
}
