/** How the Network Browser is arranged: as it was chosen in this browser. */

import { ARRANGEMENTS, type Arrangement } from '../words/arrangement';

const KEY = 'vconverter-arrangement';

function kept(): Arrangement {
  try {
    const text = localStorage.getItem(KEY);
    return ARRANGEMENTS.find((one) => one.id === text)?.id ?? 'state';
  } catch {
    return 'state';
  }
}

let current = $state<Arrangement>(kept());

export const arrangement = {
  get by(): Arrangement {
    return current;
  },
  choose(by: Arrangement): void {
    current = by;
    try {
      localStorage.setItem(KEY, by);
    } catch {
      // Storage may be forbidden: it holds until the page is closed.
    }
  },
};
