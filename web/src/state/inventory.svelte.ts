/** Machines and tasks as the controller knows them, kept up to date by its events; without those, by asking again. */

import { SvelteMap } from 'svelte/reactivity';
import { api } from '../api/client';
import type { Machine, MachineGroup, Search, Task } from '../api/types';

/** Pause between two questions while there are no events. */
const ASK_EVERY_MS = 5000;

const machines = new SvelteMap<string, Machine>();
const tasks = new SvelteMap<string, Task>();
let groups = $state.raw<MachineGroup[]>([]);
let search = $state.raw<Search | null>(null);
let isLoaded = $state(false);
let isLive = $state(false);
let trouble = $state('');
let now = $state(Date.now());

/** A machine that was not approved yet has no id, but a key. */
export function keyOf(machine: Machine): string {
  return machine.id ?? machine.key ?? machine.name;
}

function replace<T>(map: SvelteMap<string, T>, items: T[], key: (item: T) => string): void {
  const kept = new Set(items.map(key));
  for (const old of [...map.keys()]) if (!kept.has(old)) map.delete(old);
  for (const item of items) map.set(key(item), item);
}

async function refresh(): Promise<void> {
  try {
    const asked = [api.machines(), api.tasks(), api.groups(), api.search()] as const;
    const [allMachines, allTasks, allGroups, lastSearch] = await Promise.all(asked);
    groups = allGroups;
    search = lastSearch ?? null;
    replace(machines, allMachines, keyOf);
    replace(tasks, allTasks, (task) => task.id);
    isLoaded = true;
    trouble = '';
  } catch (error) {
    trouble = error instanceof Error ? error.message : String(error);
  }
}

/** What an event says, if it says something of the expected kind. */
function read<T>(event: Event): T | null {
  try {
    return JSON.parse((event as MessageEvent<string>).data) as T;
  } catch {
    return null;
  }
}

function putMachine(machine: Machine): void {
  // Approved meanwhile: what it was called before is gone.
  if (machine.id && machine.key) machines.delete(machine.key);
  machines.set(keyOf(machine), machine);
}

function listen(): () => void {
  const events = new EventSource('/api/v1/events');
  events.addEventListener('open', () => (isLive = true));
  // At the beginning, and when something was missed.
  events.addEventListener('resync', () => void refresh());
  events.addEventListener('error', () => (isLive = false));
  events.addEventListener('task', (event) => {
    const task = read<Task>(event);
    if (task) tasks.set(task.id, task);
  });
  events.addEventListener('machine', (event) => {
    const machine = read<Machine>(event);
    if (machine) putMachine(machine);
  });
  events.addEventListener('machine-gone', (event) => {
    const gone = read<{ key: string }>(event);
    if (gone) machines.delete(gone.key);
  });
  events.addEventListener('task-gone', (event) => {
    const gone = read<{ id: string }>(event);
    if (gone) tasks.delete(gone.id);
  });
  events.addEventListener('search', (event) => {
    const moved = read<Search>(event);
    if (moved) search = moved;
  });
  return () => {
    events.close();
    isLive = false;
  };
}

export const inventory = {
  get isLoaded(): boolean {
    return isLoaded;
  },
  /** Whether changes are told as they happen. */
  get isLive(): boolean {
    return isLive;
  },
  get trouble(): string {
    return trouble;
  },
  /** The time by this browser's clock, every few seconds. */
  get now(): number {
    return now;
  },
  get machines(): Machine[] {
    return [...machines.values()];
  },
  get tasks(): Task[] {
    return [...tasks.values()].sort((a, b) => b.created_at.localeCompare(a.created_at));
  },
  /** Groups of machines by name, also those that are empty. */
  get groups(): MachineGroup[] {
    return groups;
  },
  /** The last search of a range of addresses. */
  get search(): Search | null {
    return search;
  },
  machine: (key: string): Machine | undefined => machines.get(key),
  task: (id: string): Task | undefined => tasks.get(id),
  /** The answer to a change is newer than what was known. */
  putTask: (task: Task): void => void tasks.set(task.id, task),
  putMachine,
  dropMachine: (key: string): void => void machines.delete(key),
  putGroups: (all: MachineGroup[]): void => void (groups = all),
  putSearch: (moved: Search): void => void (search = moved),
  dropTask: (id: string): void => void tasks.delete(id),
  refresh,

  /** Follows the controller until the returned function is called. */
  follow(): () => void {
    void refresh();
    const stop = listen();
    const ask = setInterval(() => {
      now = Date.now();
      if (!isLive) void refresh();
    }, ASK_EVERY_MS);
    return () => {
      stop();
      clearInterval(ask);
      machines.clear();
      tasks.clear();
      groups = [];
      search = null;
      isLoaded = false;
    };
  },
};
