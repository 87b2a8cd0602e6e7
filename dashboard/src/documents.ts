// The documents of docs/protocol.md as the page reads them. Whatever is not one of them never gets past `read`.
import * as v from "valibot";

/** What a text from the bus may be at most; longer ones are cut, never refused: they only have to be shown. */
const LONGEST = 2_000;
const MOST = 2_000;
const ID = /^[a-z0-9][a-z0-9-]{0,63}$/;

const text = v.pipe(
  v.string(),
  v.transform((s) => (s.length > LONGEST ? `${s.slice(0, LONGEST)}…` : s)),
);
const id = v.pipe(v.string(), v.regex(ID));
const number = v.pipe(v.number(), v.finite());
const amount = v.pipe(number, v.minValue(0));
const maybe = <S extends v.GenericSchema>(schema: S) => v.nullish(schema);
const list = <S extends v.GenericSchema>(schema: S) => v.pipe(v.array(schema), v.maxLength(MOST));
const table = <S extends v.GenericSchema>(schema: S) =>
  v.pipe(
    v.record(v.string(), schema),
    v.check((found) => Object.keys(found).length <= MOST && Object.keys(found).every((key) => ID.test(key))),
  );

/** A closed list that a newer release may have added to: any other value is taken as "unknown". */
const listed = <const T extends readonly string[]>(values: T) =>
  v.fallback(v.picklist([...values, "unknown"] as const), "unknown");

export const ErrorBody = v.object({ code: text, detail: text, step: maybe(text), node: maybe(text) });
export const NodeState = v.object({ state: listed(["ready", "draining", "lost"]), boot: text });
export const NodeProfile = v.object({
  version: text,
  memory_mb: amount,
  runtime_mb: amount,
  gflops: amount,
  latency_ms: amount,
  mbps: amount,
});
export const ModuleReport = v.object({
  state: listed(["loading", "ready", "failed"]),
  progress: v.optional(amount, 0),
  bytes: v.optional(amount, 0),
  memory_mb: v.optional(amount, 0),
  ms: v.optional(amount, 0),
  reason: maybe(ErrorBody),
});
export const Reported = v.object({
  modules: v.optional(table(ModuleReport), {}),
  runtime_mb: v.optional(amount, 0),
  free_mb: v.optional(number, 0),
});
const Step = v.object({ node: id, queued_ms: amount, run_ms: amount, batch: amount });
export const NodeLoad = v.object({
  queues: table(amount),
  finished: v.optional(table(amount), {}),
  latest: v.optional(table(table(Step)), {}),
});
export const TaskSpec = v.object({ model: id });
export const Plan = v.object({
  modules: v.optional(list(v.object({ id, role: v.optional(text, ""), memory_mb: v.optional(amount, 0) })), []),
  fronts: v.optional(list(id), []),
});
const RouteStep = v.object({
  module: id,
  inputs: v.record(v.string(), text),
  replicas: v.optional(list(v.object({ node: id, ms: amount })), []),
});
export const RouteDoc = v.object({
  model: id,
  inputs: v.optional(v.record(v.string(), text), {}),
  defaults: v.optional(v.record(v.string(), v.unknown()), {}),
  deadline_s: amount,
  steps: v.optional(table(RouteStep), {}),
  error: maybe(ErrorBody),
});
export const PlannerState = v.object({ state: listed(["online", "offline"]), epoch: amount });
export const Event = v.object({
  event: listed(["node_joined", "node_lost", "plan_changed", "module_failed", "request_failed"]),
  node: maybe(text),
  task: maybe(text),
  module: maybe(text),
  request: maybe(text),
  detail: maybe(text),
});
/** A plain answer: `transaction` is whatever the caller chose. */
export const Answer = v.object({
  status: v.picklist(["ok", "error"]),
  transaction: maybe(v.union([text, number])),
  answer: v.optional(v.unknown()),
  outputs: v.optional(v.record(v.string(), v.unknown()), {}),
  latency_ms: v.optional(amount, 0),
  attempts: v.optional(amount, 1),
  steps: v.optional(table(Step), {}),
  error: maybe(ErrorBody),
});

/** A part of a text that is being written: it replaces what is behind `at`. */
export const Piece = v.object({
  status: v.literal("piece"),
  transaction: maybe(v.union([text, number])),
  at: amount,
  text,
});

export type ErrorBody = v.InferOutput<typeof ErrorBody>;
export type NodeState = v.InferOutput<typeof NodeState>;
export type NodeProfile = v.InferOutput<typeof NodeProfile>;
export type ModuleReport = v.InferOutput<typeof ModuleReport>;
export type Reported = v.InferOutput<typeof Reported>;
export type NodeLoad = v.InferOutput<typeof NodeLoad>;
export type TaskSpec = v.InferOutput<typeof TaskSpec>;
export type Plan = v.InferOutput<typeof Plan>;
export type RouteDoc = v.InferOutput<typeof RouteDoc>;
export type PlannerState = v.InferOutput<typeof PlannerState>;
export type Event = v.InferOutput<typeof Event>;
export type Answer = v.InferOutput<typeof Answer>;
export type Piece = v.InferOutput<typeof Piece>;
export type Timing = v.InferOutput<typeof Step>;

/** What a topic says: which family, of which node or task, and the document; null where a retained one was removed. */
export type Said =
  | { kind: "planner"; document: PlannerState | null }
  | { kind: "state"; id: string; document: NodeState | null }
  | { kind: "profile"; id: string; document: NodeProfile | null }
  | { kind: "reported"; id: string; document: Reported | null }
  | { kind: "load"; id: string; document: NodeLoad | null }
  | { kind: "task"; id: string; document: TaskSpec | null }
  | { kind: "plan"; id: string; document: Plan | null }
  | { kind: "route"; id: string; document: RouteDoc | null }
  | { kind: "response"; id: string; document: Answer | Piece | null }
  | { kind: "event"; document: Event | null };

type Family = { pattern: RegExp; filter: string; kind: Said["kind"]; schema: v.GenericSchema; qos: 0 | 1 };

/** Every topic that the page listens to. */
export const FAMILIES: readonly Family[] = [
  { filter: "planner/state", pattern: /^planner\/state$/, kind: "planner", schema: PlannerState, qos: 1 },
  { filter: "event", pattern: /^event$/, kind: "event", schema: Event, qos: 1 },
  { filter: "task/+", pattern: /^task\/([^/]+)$/, kind: "task", schema: TaskSpec, qos: 1 },
  { filter: "route/+", pattern: /^route\/([^/]+)$/, kind: "route", schema: RouteDoc, qos: 1 },
  { filter: "plan/+", pattern: /^plan\/([^/]+)$/, kind: "plan", schema: Plan, qos: 1 },
  { filter: "node/+/profile", pattern: /^node\/([^/]+)\/profile$/, kind: "profile", schema: NodeProfile, qos: 1 },
  { filter: "node/+/reported", pattern: /^node\/([^/]+)\/reported$/, kind: "reported", schema: Reported, qos: 1 },
  { filter: "node/+/state", pattern: /^node\/([^/]+)\/state$/, kind: "state", schema: NodeState, qos: 1 },
  { filter: "node/+/load", pattern: /^node\/([^/]+)\/load$/, kind: "load", schema: NodeLoad, qos: 0 },
  { filter: "response/+", pattern: /^response\/([^/]+)$/, kind: "response", schema: v.union([Answer, Piece]), qos: 1 },
];

/** Bigger messages are not looked at: an answer that carries pictures is for whoever asked. */
const LARGEST = 1_000_000;

/** Reads one message; throws an Error that says in a few words what is wrong with it. */
export function read(topic: string, payload: Uint8Array): Said {
  const family = FAMILIES.find(({ pattern }) => pattern.test(topic));
  if (!family) throw new Error("not a topic of ours");
  const name = family.pattern.exec(topic)?.[1];
  if (name !== undefined && !ID.test(name)) throw new Error("its name is not an id");
  if (payload.length > LARGEST) throw new Error(`larger than ${LARGEST / 1e6} MB`);
  const document = payload.length === 0 ? null : v.parse(family.schema, JSON.parse(new TextDecoder().decode(payload)));
  return { kind: family.kind, id: name, document } as Said; // the table above pairs kinds with their schemas
}
