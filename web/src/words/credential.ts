/** What credentials are called. */

import type { CredentialKind } from '../api/types';

export interface KindWords {
  id: CredentialKind;
  title: string;
  /** What the user looks like; `null` where there is none. */
  user: string | null;
  /** What the secret is called. */
  secret: string;
}

export const CREDENTIAL_KINDS: readonly KindWords[] = [
  { id: 'ssh-password', title: 'SSH password', user: 'root', secret: 'Password' },
  { id: 'ssh-key', title: 'SSH key', user: 'root', secret: 'Private key (OpenSSH)' },
  { id: 'windows-password', title: 'Windows password', user: 'DOMAIN\\user', secret: 'Password' },
  { id: 'hypervisor-password', title: 'Hypervisor password', user: 'root', secret: 'Password' },
  { id: 'hypervisor-token', title: 'Hypervisor API token', user: 'user@realm!token', secret: 'Token' },
  { id: 'bmc-password', title: 'BMC password', user: 'admin', secret: 'Password' },
  { id: 'smtp-password', title: 'Mail server password', user: 'vconverter@example.org', secret: 'Password' },
];

export function kindWords(kind: CredentialKind): KindWords {
  return (
    CREDENTIAL_KINDS.find(({ id }) => id === kind) ?? { id: kind, title: kind, user: '', secret: 'Secret' }
  );
}
