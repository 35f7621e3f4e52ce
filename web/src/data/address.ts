// The address says what is shown: #/jobs?state=failed. So a reload, or a friend, sees the same.

import { useEffect, useState } from "preact/hooks";

export interface Address {
  path: string[];
  query: URLSearchParams;
}

export function address(): Address {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { path: (path ?? "").split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query ?? "") };
}

export function useAddress(): Address {
  const [now, set] = useState(address);
  useEffect(() => {
    const changed = (): void => set(address());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return now;
}

export function to(path: string, query: Record<string, string> | URLSearchParams = {}): string {
  const text = new URLSearchParams(query).toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}

export const jobLink = (id: string, query: Record<string, string> = {}): string => to(`jobs/${encodeURIComponent(id)}`, query);

export function go(link: string): void {
  location.hash = link;
}

/** Change some of the query and keep the rest; what is empty is left out. `replace`: no step back. */
export function change(changes: Record<string, string>, replace = false): void {
  const { path, query } = address();
  for (const [name, value] of Object.entries(changes)) {
    if (value === "") query.delete(name);
    else query.set(name, value);
  }
  const link = to(path.map(encodeURIComponent).join("/"), query);
  if (!replace) {
    go(link);
    return;
  }
  history.replaceState(null, "", link);
  dispatchEvent(new HashChangeEvent("hashchange"));
}
