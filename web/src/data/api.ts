// Requests to the service. The token is kept for this tab only, and is sent as a header.

const KEY = "agentic-ray-token";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    message: string,
  ) {
    super(message);
  }
}

let refused: () => void = () => undefined;

/** Have `listener` called when the service wants a (or another) token. */
export function onRefused(listener: () => void): void {
  refused = listener;
}

export const token = (): string | null => sessionStorage.getItem(KEY);

export function setToken(value: string | null): void {
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  const known = token();
  return known === null ? more : { Authorization: `Bearer ${known}`, ...more };
}

/** The answer if it is a good one.
 * @throws ApiError with what the service says. */
export async function checked(answer: Response): Promise<Response> {
  if (answer.ok) return answer;
  if (answer.status === 401) refused();
  const text = await answer.text();
  throw new ApiError(answer.status, ...told(text, answer.statusText));
}

function told(text: string, otherwise: string): [kind: string, message: string] {
  try {
    const body = JSON.parse(text) as Record<string, unknown>;
    const error = body.error as { type?: string; message?: string } | undefined;
    if (error !== undefined) return [String(error.type ?? ""), String(error.message ?? otherwise)];
    // RFC 9457
    return [String(body.type ?? ""), String(body.detail ?? body.title ?? otherwise)];
  } catch {
    return ["", text.slice(0, 500) || otherwise];
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await checked(await fetch(path, { headers: headers(), signal, cache: "no-store" }));
  return (await answer.json()) as T;
}

export async function post<T>(path: string, body?: string, more: Record<string, string> = {}): Promise<T> {
  const type: Record<string, string> = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await checked(await fetch(path, { method: "POST", headers: headers({ ...type, ...more }), body }));
  return (await answer.json()) as T;
}

export const job = (path: string, id: string): string => `${path}/${encodeURIComponent(id)}`;

let offered: Promise<Set<string>> | null = null;

/** The paths that the service offers, e.g. "/retry/{task_id}". */
export function paths(): Promise<Set<string>> {
  offered ??= get<{ paths: Record<string, unknown> }>("/openapi.json").then(
    (document) => new Set(Object.keys(document.paths)),
    (error: unknown) => {
      offered = null;
      throw error;
    },
  );
  return offered;
}
