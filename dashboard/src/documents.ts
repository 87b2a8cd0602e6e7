// The documents of docs/schema as the page reads them; `read` rejects every message that is not valid.
import * as v from "valibot";
import type * as Bus from "./generated/documents";

/** Longest text from the bus, characters. Longer ones are truncated instead of rejected, as they are only displayed. */
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

/**
 * A value of a closed list U. All values of the schema must be listed (otherwise tsc reports `never`). Any other value, from
 * a newer release, becomes "unknown".
 */
const listed =
  <U extends string>() =>
  <const T extends readonly U[]>(known: [Exclude<U, T[number] | "unknown">] extends [never] ? T : never) =>
    v.fallback(v.picklist([...(known as readonly U[]), "unknown"] as (U | "unknown")[]), "unknown");

type Known<U> = U | "unknown";

/** The part of a document D that the page reads: some fields unchanged, and some with defaults if they are absent. */
type Of<D, As extends keyof D, Filled extends keyof D = never> = Pick<D, As> & {
  [Field in Filled]-?: Exclude<D[Field], undefined>;
};
/**
 * Types a valibot schema as a reader of D that returns T. tsc reports `never` unless the reader accepts every D that the JSON
 * Schema allows, names no field that D lacks, and returns T.
 */
const reader =
  <D, T>() =>
  <S extends v.GenericSchema<any, T>>(
    schema: D extends v.InferInput<S> ? (keyof v.InferInput<S> extends keyof D ? S : never) : never,
  ): v.GenericSchema<unknown, T> =>
    schema as unknown as v.GenericSchema<unknown, T>;

export type ErrorBody = Bus.ErrorBody;
const ErrorBody = reader<Bus.ErrorBody, ErrorBody>()(
  v.object({ code: text, detail: text, step: maybe(text), node: maybe(text) }),
);

export type Timing = Bus.StepTiming;
const Timing = reader<Bus.StepTiming, Timing>()(
  v.object({ node: id, queued_ms: amount, run_ms: amount, batch: amount }),
);

export type NodeState = { state: Known<Bus.NodeState["state"]> } & Of<Bus.NodeState, "boot">;
const NodeState = reader<Bus.NodeState, NodeState>()(
  v.object({ state: listed<Bus.NodeState["state"]>()(["ready", "draining", "lost"]), boot: text }),
);

export type NodeProfile = Of<
  Bus.NodeProfile,
  "version" | "memory_mb" | "runtime_mb" | "gflops" | "latency_ms" | "mbps"
>;
const NodeProfile = reader<Bus.NodeProfile, NodeProfile>()(
  v.object({
    version: text,
    memory_mb: amount,
    runtime_mb: amount,
    gflops: amount,
    latency_ms: amount,
    mbps: amount,
  }),
);

export type PartProgress = Of<Bus.PartProgress, "bytes" | "of", "nodes">;
const PartProgress = reader<Bus.PartProgress, PartProgress>()(
  v.object({ bytes: amount, of: amount, nodes: v.optional(list(text), []) }),
);

export type ModuleReport = { state: Known<Bus.ModuleReport["state"]>; fetched?: PartProgress | null } & Of<
  Bus.ModuleReport,
  "reason",
  "progress" | "bytes" | "memory_mb" | "ms"
>;
const ModuleReport = reader<Bus.ModuleReport, ModuleReport>()(
  v.object({
    state: listed<Bus.ModuleReport["state"]>()(["loading", "ready", "failed"]),
    progress: v.optional(amount, 0),
    bytes: v.optional(amount, 0),
    memory_mb: v.optional(amount, 0),
    ms: v.optional(amount, 0),
    reason: maybe(ErrorBody),
    fetched: maybe(PartProgress),
  }),
);

export type Reported = { modules: Record<string, ModuleReport> } & Of<Bus.Reported, never, "runtime_mb" | "free_mb">;
const Reported = reader<Bus.Reported, Reported>()(
  v.object({
    modules: v.optional(table(ModuleReport), {}),
    runtime_mb: v.optional(amount, 0),
    free_mb: v.optional(number, 0),
  }),
);

export type NodeLoad = Of<Bus.NodeLoad, "queues", "finished" | "latest">;
const NodeLoad = reader<Bus.NodeLoad, NodeLoad>()(
  v.object({
    queues: table(amount),
    finished: v.optional(table(amount), {}),
    latest: v.optional(table(table(Timing)), {}),
  }),
);

/** A task as it was published: a new question to the same model begins with it. */
export type TaskSpec = Of<Bus.TaskSpec, "model"> & { whole: Record<string, unknown> };
const TaskSpec = v.pipe(
  v.record(v.string(), v.unknown()),
  v.transform((whole) => ({ ...v.parse(v.object({ model: id }), whole), whole })),
);

/** A binding as it was published: what the page does not read is kept for when it is published again, changed. */
export type Binding = Of<Bus.Binding, "source" | "task" | "publish", "inputs" | "every_s" | "labels"> &
  Partial<Pick<Bus.Binding, "input" | "above">> & { whole: Record<string, unknown> };
const Binding = v.pipe(
  v.record(v.string(), v.unknown()),
  v.transform((whole) => ({
    ...v.parse(
      v.object({
        source: text,
        task: id,
        publish: text,
        input: maybe(text),
        inputs: v.optional(v.record(v.string(), v.unknown()), {}),
        every_s: v.optional(amount, 1),
        labels: v.optional(list(text), []),
        above: maybe(number),
      }),
      whole,
    ),
    whole,
  })),
);

export type BindingReport = { state: Known<Bus.BindingReport["state"]> } & Of<
  Bus.BindingReport,
  "error" | "last_error",
  "received" | "answered" | "failed"
>;
const BindingReport = reader<Bus.BindingReport, BindingReport>()(
  v.object({
    state: listed<Bus.BindingReport["state"]>()(["active", "refused", "paused"]),
    error: maybe(ErrorBody),
    last_error: maybe(ErrorBody),
    received: v.optional(amount, 0),
    answered: v.optional(amount, 0),
    failed: v.optional(amount, 0),
  }),
);

export type BridgeState = { state: Known<Bus.BridgeState["state"]> };
const BridgeState = reader<Bus.BridgeState, BridgeState>()(
  v.object({ state: listed<Bus.BridgeState["state"]>()(["online", "offline"]) }),
);

export type ControlResponse = { status: Known<Bus.ControlResponse["status"]> } & Of<
  Bus.ControlResponse,
  "error" | "transaction",
  "data"
>;
const ControlResponse = reader<Bus.ControlResponse, ControlResponse>()(
  v.object({
    status: listed<Bus.ControlResponse["status"]>()(["ok", "error"]),
    data: v.optional(v.record(v.string(), v.unknown()), {}),
    error: maybe(ErrorBody),
    transaction: maybe(v.union([text, number])),
  }),
);

/** A role; an unknown one is displayed as it is. */
type PlannedModule = Of<Bus.ModuleSpec, "id" | "memory_mb"> & { role: string };
const PlannedModule = reader<Bus.ModuleSpec, PlannedModule>()(
  v.object({ id, role: v.optional(text, ""), memory_mb: v.optional(amount, 0) }),
);

export type Plan = { modules: PlannedModule[] } & Of<Bus.Plan, never, "fronts">;
const Plan = reader<Bus.Plan, Plan>()(
  v.object({ modules: v.optional(list(PlannedModule), []), fronts: v.optional(list(id), []) }),
);

type Replica = Of<Bus.Replica, "node" | "ms">;
const Replica = reader<Bus.Replica, Replica>()(v.object({ node: id, ms: amount }));

type RouteStep = { replicas: Replica[] } & Of<Bus.RouteStep, "module" | "inputs">;
const RouteStep = reader<Bus.RouteStep, RouteStep>()(
  v.object({ module: id, inputs: v.record(v.string(), text), replicas: v.optional(list(Replica), []) }),
);

/** Kinds of inputs; an input of an unknown kind becomes a text field. */
export type RouteDoc = { inputs: Record<string, string>; steps: Record<string, RouteStep> } & Of<
  Bus.RouteDoc,
  "model" | "deadline_s" | "error",
  "defaults" | "answer" | "description" | "rank"
>;
const RouteDoc = reader<Bus.RouteDoc, RouteDoc>()(
  v.object({
    model: id,
    inputs: v.optional(v.record(v.string(), text), {}),
    answer: v.optional(list(text), []),
    description: v.optional(text, ""),
    defaults: v.optional(v.record(v.string(), v.unknown()), {}),
    deadline_s: amount,
    steps: v.optional(table(RouteStep), {}),
    error: maybe(ErrorBody),
    rank: v.optional(amount, 0),
  }),
);

export type PlannerState = { state: Known<Bus.PlannerState["state"]> } & Of<
  Bus.PlannerState,
  "epoch",
  "asleep" | "held"
>;
const PlannerState = reader<Bus.PlannerState, PlannerState>()(
  v.object({
    state: listed<Bus.PlannerState["state"]>()(["online", "offline"]),
    epoch: amount,
    asleep: v.optional(table(text), {}),
    held: v.optional(table(text), {}),
  }),
);

export type Event = { event: Known<Bus.Event["event"]> } & Omit<Bus.Event, "event">;
const Event = reader<Bus.Event, Event>()(
  v.object({
    event: listed<Bus.Event["event"]>()([
      "node_joined",
      "node_lost",
      "node_woken",
      "plan_changed",
      "module_failed",
      "request_failed",
      "node_woken",
    ]),
    node: maybe(text),
    task: maybe(text),
    module: maybe(text),
    request: maybe(text),
    detail: maybe(text),
  }),
);

/** A plain answer. `transaction` is the caller's own id; a failed request has `error` and no answer. */
export type Answer = {
  status: Bus.PlainAnswer["status"];
  answer?: unknown;
  error?: ErrorBody | null;
} & Of<AnyAnswer, "transaction", "outputs" | "latency_ms" | "attempts" | "steps">;
type AnyAnswer = Pick<Bus.PlainAnswer, "status"> &
  Partial<Omit<Bus.PlainResult, "status"> & Omit<Bus.PlainFailure, "status">>;
const Answer = reader<AnyAnswer, Answer>()(
  v.object({
    status: v.picklist(["ok", "error"]),
    transaction: maybe(v.union([text, number])),
    answer: v.optional(v.unknown()),
    outputs: v.optional(v.record(v.string(), v.unknown()), {}),
    latency_ms: v.optional(amount, 0),
    attempts: v.optional(amount, 1),
    steps: v.optional(table(Timing), {}),
    error: maybe(ErrorBody),
  }),
);

/** A piece of streamed text; it replaces the text after offset `at`. */
export type Piece = Of<Bus.PlainPiece, "status" | "at" | "text"> & Partial<Pick<Bus.PlainPiece, "transaction">>;
const Piece = reader<Bus.PlainPiece, Piece>()(
  v.object({ status: v.literal("piece"), transaction: maybe(v.union([text, number])), at: amount, text }),
);

/** What the page reads of an answer that the bridge keeps. */
export type Entry = Of<Bus.HistoryEntry, "id" | "task" | "at_ms" | "model" | "rank" | "fits", "asked" | "picture"> & {
  answer: KeptAnswer;
  boxes: Box[];
  steps: Record<string, Timing>;
};
export type KeptAnswer = { event_type: Known<Bus.BridgeAnswer["event_type"]> } & Of<
  Bus.BridgeAnswer,
  "state" | "score" | "latency_ms" | "source" | "topic" | "question" | "error",
  "outputs" | "detected"
>;
const KeptAnswer = reader<Bus.BridgeAnswer, KeptAnswer>()(
  v.object({
    event_type: listed<Bus.BridgeAnswer["event_type"]>()(["answered", "failed"]),
    state: maybe(text),
    score: maybe(number),
    detected: v.optional(v.record(v.string(), amount), {}),
    outputs: v.optional(v.record(v.string(), v.unknown()), {}),
    latency_ms: maybe(amount),
    source: text,
    topic: maybe(text),
    question: maybe(text),
    error: maybe(ErrorBody),
  }),
);
export type Box = Bus.HistoryBox;
const part = v.pipe(number, v.minValue(0), v.maxValue(1));
const Box = v.object({ label: text, score: number, left: part, top: part, right: part, bottom: part });
const Entry = reader<Bus.HistoryEntry, Entry>()(
  v.object({
    id: amount,
    task: id,
    at_ms: amount,
    answer: KeptAnswer,
    model: maybe(text),
    rank: maybe(amount),
    fits: maybe(number),
    asked: v.optional(v.record(v.string(), text), {}),
    boxes: v.optional(list(Box), []),
    steps: v.optional(table(Timing), {}),
    picture: v.optional(v.boolean(), false),
  }),
);

export type HistoryState = { kept: Known<Bus.HistoryState["kept"]> } & Of<
  Bus.HistoryState,
  "search",
  "answers" | "mb" | "limit_mb" | "limit_s"
>;
const HistoryState = reader<Bus.HistoryState, HistoryState>()(
  v.object({
    kept: listed<Bus.HistoryState["kept"]>()(["disk", "memory"]),
    search: maybe(id),
    answers: v.optional(amount, 0),
    mb: v.optional(amount, 0),
    limit_mb: v.optional(amount, 0),
    limit_s: v.optional(amount, 0),
  }),
);

export type Kept = { transaction: string; entries: Entry[] };
const Kept = reader<Bus.HistoryKept, Kept>()(
  v.object({ transaction: v.optional(text, ""), entries: v.optional(list(Entry), []) }),
);
export type Done = Of<Bus.HistoryDone, "error", "transaction" | "more">;
const Done = reader<Bus.HistoryDone, Done>()(
  v.object({ transaction: v.optional(text, ""), more: v.optional(v.boolean(), false), error: maybe(ErrorBody) }),
);

/** A message: the topic's family, its node or task, and the document; null if the retained document was cleared. */
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
  | { kind: "event"; document: Event | null }
  | { kind: "bind"; id: string; document: Binding | null }
  | { kind: "report"; id: string; document: BindingReport | null }
  | { kind: "bridge"; document: BridgeState | null }
  | { kind: "history"; document: HistoryState | null }
  | { kind: "entry"; id: string; document: Entry | null }
  | { kind: "kept"; id: string; document: Kept | null }
  | { kind: "done"; document: Done | null }
  | { kind: "order"; id: string; document: ControlResponse | null };

type Family = {
  pattern: RegExp;
  /** `{asker}` is this page's own name */
  filter: string;
  kind: Said["kind"];
  schema: v.GenericSchema;
  qos: 0 | 1;
  /** whether a login may do without it: a refusal is no problem to tell */
  optional?: true;
};

/** All topics to which the page subscribes. */
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
  { filter: "bind/+", pattern: /^bind\/([^/]+)$/, kind: "bind", schema: Binding, qos: 1, optional: true },
  {
    filter: "bridge/binding/+",
    pattern: /^bridge\/binding\/([^/]+)$/,
    kind: "report",
    schema: BindingReport,
    qos: 1,
    optional: true,
  },
  { filter: "bridge/state", pattern: /^bridge\/state$/, kind: "bridge", schema: BridgeState, qos: 1, optional: true },
  {
    filter: "history/state",
    pattern: /^history\/state$/,
    kind: "history",
    schema: HistoryState,
    qos: 1,
    optional: true,
  },
  { filter: "history/new/+", pattern: /^history\/new\/([^/]+)$/, kind: "entry", schema: Entry, qos: 1, optional: true },
  {
    filter: "history/kept/{asker}/+",
    pattern: /^history\/kept\/[^/]+\/([^/]+)$/,
    kind: "kept",
    schema: Kept,
    qos: 1,
    optional: true,
  },
  {
    filter: "history/done/{asker}",
    pattern: /^history\/done\/[^/]+$/,
    kind: "done",
    schema: Done,
    qos: 1,
    optional: true,
  },
  {
    filter: "control/+/response",
    pattern: /^control\/([^/]+)\/response$/,
    kind: "order",
    schema: ControlResponse,
    qos: 1,
    optional: true,
  },
];

/** Pictures of kept answers: JPEG files, not documents. */
export const PICTURES = { filter: "history/picture/{asker}/+/+", pattern: /^history\/picture\/[^/]+\/[^/]+\/(\d+)$/ };

/** Larger messages are not parsed: an answer with images is only useful to its caller. */
const LARGEST = 1_000_000;

/** Parses one message; throws an Error with a short reason if it is invalid. */
export function read(topic: string, payload: Uint8Array): Said {
  const family = FAMILIES.find(({ pattern }) => pattern.test(topic));
  if (!family) throw new Error("not a topic of ours");
  const name = family.pattern.exec(topic)?.[1];
  if (name !== undefined && !ID.test(name)) throw new Error("its name is not an id");
  if (payload.length > LARGEST) throw new Error(`larger than ${LARGEST / 1e6} MB`);
  const document = payload.length === 0 ? null : v.parse(family.schema, JSON.parse(new TextDecoder().decode(payload)));
  return { kind: family.kind, id: name, document } as Said; // the table above pairs kinds with their schemas
}
