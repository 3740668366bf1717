/** Light or dark: as the system has it, or as it was chosen here. `public/theme.js` sets it before anything is painted. */

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'vconverter-theme';
const chosen = document.documentElement.dataset['theme'];
let current = $state<Theme>(chosen === 'light' || chosen === 'dark' ? chosen : 'system');
let systemIsDark = $state(window.matchMedia('(prefers-color-scheme: dark)').matches);
window
  .matchMedia('(prefers-color-scheme: dark)')
  .addEventListener('change', (event) => (systemIsDark = event.matches));

export const theme = {
  get isDark(): boolean {
    return current === 'dark' || (current === 'system' && systemIsDark);
  },

  toggle(): void {
    const wanted = this.isDark ? 'light' : 'dark';
    const isSystem = (wanted === 'dark') === systemIsDark;
    current = isSystem ? 'system' : wanted;
    if (isSystem) delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = wanted;
    try {
      if (isSystem) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, wanted);
    } catch {
      // Storage may be forbidden: it holds until the page is closed.
    }
  },
};
