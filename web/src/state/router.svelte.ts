/** Which page is shown. The address of the browser says it, so that each can be linked to and gone back to. */

let path = $state(window.location.pathname);
window.addEventListener('popstate', () => (path = window.location.pathname));

/** Links of the page itself change the page without loading it anew. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target instanceof Element ? event.target.closest('a') : null;
  if (!link || link.target || link.hasAttribute('download') || link.origin !== window.location.origin) return;
  if (link.pathname.startsWith('/api/')) return;
  event.preventDefault();
  go(link.pathname);
}

export function go(to: string): void {
  if (to === path) return;
  window.history.pushState(null, '', to);
  path = to;
}

export const router = {
  get path(): string {
    return path;
  },
  /** The parts of the path: `['tasks', 't-1a2b3c4d']`. */
  get parts(): string[] {
    return path.split('/').filter(Boolean).map(decode);
  },
};

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
