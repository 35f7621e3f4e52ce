// What the service answers. Times are seconds since the epoch.

export type State = "queued" | "running" | "succeeded" | "failed" | "cancelled";
export const STATES: readonly State[] = ["queued", "running", "succeeded", "failed", "cancelled"];
export const isFinished = (state: State): boolean => state !== "queued" && state !== "running";

export interface Metrics {
  efficiency: number;
  imbalance: number;
  decomposition: number;
  recovery: number;
  mean_task_seconds: number;
  makespan_seconds: number;
  busy_seconds: number;
  slots: number;
  tasks: number;
  bundles: number;
  failed: number;
  recovered: number;
}

export interface Row {
  task_id: string;
  state: State;
  workload: string;
  version: string;
  priority: number;
  created_at: number;
  started_at: number | null;
  finished_at: number | null;
  timeout_seconds: number | null;
  deadline_at: number | null;
  user: string;
  attempts: number;
  deaths: number;
  cached: boolean;
  cancel_requested: boolean;
  error: { type: string; message: string } | null;
  metrics: Metrics | null;
  sequence: number;
}

export interface JobPage {
  jobs: Row[];
  total: number;
  counts: Record<State, number>;
  workloads: string[];
  users: string[];
  position: string;
}

// Params and result are JSON as text: numbers in it may be larger than a number here can be.
export interface JobDetail extends Row {
  effects: boolean;
  params_bytes: number;
  params?: string;
  result_bytes?: number;
  result?: string;
}

export interface PlacementColumns {
  name: number[];
  label: string[];
  node: number[];
  device: number[];
  reason: number[];
  start: number[];
  end: number[];
  actual: number[];
  predicted: (number | null)[];
  items: number[];
  retried: number[];
  names: string[];
  nodes: string[];
  devices: string[];
  reasons: string[];
  dropped: number;
}

export interface Stage {
  name: string;
  depth: number;
  tasks: number;
  items: number;
}

export interface GraphShape {
  tasks: number;
  items: number;
  stages: Stage[];
  links: { source: number; target: number; count: number }[];
  left_out: string;
}

export type TraceEvent = [time: number, kind: string, text: string, bundle: string, node: string];

export interface Trace {
  items_done: number;
  items_total: number;
  events: TraceEvent[];
  placements: PlacementColumns;
  graphs: GraphShape[];
}

export interface Gpu {
  uuid: string;
  index: number;
  name: string;
  memory_total_bytes: number | null;
  memory_used_bytes: number | null;
  utilization: number | null;
  process_count: number | null;
  temperature_celsius: number | null;
  power_watts: number | null;
  throttle_reasons: string[] | null;
  healthy: boolean;
  reason: string | null;
  mig_parent: string | null;
  mig_index: number | null;
}

export interface Node {
  node_id: string;
  host: string;
  cpus_total: number;
  cpus_free: number;
  cpu_fraction: number | null;
  host_memory_total_bytes: number | null;
  host_memory_free_bytes: number | null;
  store_total_bytes: number | null;
  store_used_bytes: number | null;
  load: number | null;
  gpus: Gpu[];
  alive: boolean;
  heartbeat_age_seconds: number | null;
  gpus_reason: string | null;
}

export interface ClusterState {
  taken_at: number;
  nodes: Node[];
}

export interface Sample {
  time: number;
  cpu: number | null;
  cpus_total: number;
  cpus_free: number;
  memory_used: number | null;
  memory_total: number | null;
  store_used: number | null;
  store_total: number | null;
  gpus: Record<string, { utilization: number | null; memory_used: number | null; memory_total: number | null; temperature: number | null }>;
}

export interface ClusterNews {
  sample: Sample | null;
  state: ClusterState | null;
  reason: string;
}

export interface LogLine {
  number: number;
  time: number;
  node: string;
  stream: "stdout" | "stderr";
  text: string;
}

export interface Schema {
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  const?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  $ref?: string;
  $defs?: Record<string, Schema>;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
}

export interface Workload {
  name: string;
  version: string;
  effects: boolean;
  schema: Schema | null;
  summary: string;
}
