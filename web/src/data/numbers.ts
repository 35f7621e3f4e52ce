// Figures as people read them.

export function seconds(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value <= 0) return "0 s";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toPrecision(3).replace(/\.?0+$/, "")} ms`;
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value: number | null): string {
  if (value === null) return "–";
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${UNITS[unit]}`;
}

export const percent = (value: number | null, digits = 0): string => (value === null ? "–" : `${(100 * value).toFixed(digits)} %`);

export const count = (value: number): string => value.toLocaleString("en-US").replaceAll(",", "\u202f");

export function clock(time: number | null, language: string): string {
  if (time === null) return "–";
  const date = new Date(1000 * time);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(language, {
    hourCycle: "h23",
    ...(today ? {} : { month: "short", day: "numeric" }),
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
}

export const moment = (time: number | null, language: string): string =>
  time === null ? "–" : new Date(1000 * time).toLocaleString(language, { hourCycle: "h23", dateStyle: "medium", timeStyle: "medium" });

/** The name of a codelet or bundle without the digits that make it unique. */
export const shortName = (name: string): string => name.replace(/-[0-9a-f]{8,}(?![0-9a-z])/g, "");

/** Whether all whole numbers in a JSON text can be held here without losing digits. */
export function isExact(text: string): boolean {
  const withoutStrings = text.replace(/"(?:[^"\\]|\\.)*"/g, '""');
  const tokens = withoutStrings.match(/-?\d+(\.\d+)?([eE][+-]?\d+)?/g) ?? [];
  return tokens.every((token) => /[.eE]/.test(token) || Number.isSafeInteger(Number(token)));
}
