/** Who sits before the page, and what they may do. The controller refuses what is not allowed in any case. */

import { api, onSignedOut, Problem, setCsrfToken } from '../api/client';
import type { Role, Session } from '../api/types';

type Phase = 'asking' | 'first-start' | 'signed-out' | 'signed-in' | 'unreachable';

let phase = $state<Phase>('asking');
let user = $state<Session | null>(null);
let trouble = $state('');

function enter(session: Session): void {
  setCsrfToken(session.csrf_token ?? '');
  user = session;
  phase = 'signed-in';
}

function leave(): void {
  setCsrfToken('');
  user = null;
  phase = 'signed-out';
}

onSignedOut(leave);

export const session = {
  get phase(): Phase {
    return phase;
  },
  get trouble(): string {
    return trouble;
  },
  get name(): string {
    return user?.name ?? '';
  },
  get role(): Role {
    return user?.role ?? 'viewer';
  },
  get canOperate(): boolean {
    return user?.role === 'operator' || user?.role === 'administrator';
  },
  get canAdminister(): boolean {
    return user?.role === 'administrator';
  },

  async load(): Promise<void> {
    try {
      enter(await api.session());
      return;
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) {
        trouble = error instanceof Error ? error.message : String(error);
        phase = 'unreachable';
        return;
      }
    }
    try {
      phase = (await api.setupNeeded()).needed ? 'first-start' : 'signed-out';
    } catch {
      phase = 'signed-out';
    }
  },

  async signIn(name: string, password: string): Promise<void> {
    enter(await api.login({ name, password }));
  },

  async setUp(code: string, name: string, password: string): Promise<void> {
    enter(await api.setUp({ code, name, password }));
  },

  /** Another password ends all sessions of the user, and begins another one here. */
  async changePassword(old: string, password: string): Promise<void> {
    enter(await api.changePassword({ old, new: password }));
  },

  async signOut(): Promise<void> {
    try {
      await api.logout();
    } finally {
      leave();
    }
  },
};
