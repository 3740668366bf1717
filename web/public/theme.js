// Before anything is painted: the theme that was chosen here, else that of the system.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem('vconverter-theme');
  } catch {
    // Storage may be forbidden; the system's theme is good then.
  }
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
})();
