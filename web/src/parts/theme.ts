// Light or dark, and the colours of what is drawn.

export const THEMES = ["auto", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const KEY = "agentic-ray-theme";

export function firstTheme(): Theme {
  const chosen = localStorage.getItem(KEY);
  return chosen === "light" || chosen === "dark" ? chosen : "auto";
}

const changed = new Set<() => void>();
const system = matchMedia("(prefers-color-scheme: dark)");

/** Have the page in these colours, now and when it is opened again. */
export function applyTheme(theme: Theme): void {
  localStorage.setItem(KEY, theme);
  show();
}

function show(): void {
  const theme = firstTheme();
  document.documentElement.dataset.theme = theme === "auto" ? (system.matches ? "dark" : "light") : theme;
  for (const listener of changed) listener();
}

system.addEventListener("change", show);

/** Call `listener` when colours change; returns what ends that. */
export function onTheme(listener: () => void): () => void {
  changed.add(listener);
  return () => changed.delete(listener);
}

/** The value of a custom property of the style sheet now. */
export const color = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const SERIES = 8;

/** The colour of the series with this number. */
export const seriesColor = (number: number): string => color(`series-${number % SERIES}`);
