// The documents of a site, as docs/schema has them and the page reads them: nodes, tasks, plans, routes, answers.
import * as v from "valibot";
import type * as Bus from "./generated/documents";
import { type Known, type Of, amount, id, list, listed, maybe, number, reader, table, text } from "./reading";

export type ErrorBody = Bus.ErrorBody;
export const ErrorBody = reader<Bus.ErrorBody, ErrorBody>()(
  v.object({ code: text, detail: text, step: maybe(text), node: maybe(text) }),
);

export type Timing = Bus.StepTiming;
export const Timing = reader<Bus.StepTiming, Timing>()(
  v.object({ node: id, queued_ms: amount, run_ms: amount, batch: amount }),
);

export type NodeState = { state: Known<Bus.NodeState["state"]> } & Of<Bus.NodeState, "boot">;
export const NodeState = reader<Bus.NodeState, NodeState>()(
  v.object({ state: listed<Bus.NodeState["state"]>()(["ready", "draining", "lost"]), boot: text }),
);

export type NodeProfile = Of<
  Bus.NodeProfile,
  "version" | "memory_mb" | "runtime_mb" | "gflops" | "latency_ms" | "mbps",
  "sleeps" | "device"
>;
export const NodeProfile = reader<Bus.NodeProfile, NodeProfile>()(
  v.object({
    version: text,
    memory_mb: amount,
    runtime_mb: amount,
    gflops: amount,
    latency_ms: amount,
    mbps: amount,
    sleeps: v.optional(v.boolean(), false),
    device: v.optional(text, "cpu"),
  }),
);

export type PartProgress = Of<Bus.PartProgress, "bytes" | "of", "nodes">;
export const PartProgress = reader<Bus.PartProgress, PartProgress>()(
  v.object({ bytes: amount, of: amount, nodes: v.optional(list(text), []) }),
);

export type ModuleReport = { state: Known<Bus.ModuleReport["state"]>; fetched?: PartProgress | null } & Of<
  Bus.ModuleReport,
  "reason",
  "progress" | "bytes" | "memory_mb" | "ms"
>;
export const ModuleReport = reader<Bus.ModuleReport, ModuleReport>()(
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
export const Reported = reader<Bus.Reported, Reported>()(
  v.object({
    modules: v.optional(table(ModuleReport), {}),
    runtime_mb: v.optional(amount, 0),
    free_mb: v.optional(number, 0),
  }),
);

export type NodeLoad = Of<Bus.NodeLoad, "queues", "finished" | "latest">;
export const NodeLoad = reader<Bus.NodeLoad, NodeLoad>()(
  v.object({
    queues: table(amount),
    finished: v.optional(table(amount), {}),
    latest: v.optional(table(table(Timing)), {}),
  }),
);

/** A task as it was published: a new question to the same model begins with it. */
export type TaskSpec = Of<Bus.TaskSpec, "model"> & { whole: Record<string, unknown> };
export const TaskSpec = v.pipe(
  v.record(v.string(), v.unknown()),
  v.transform((whole) => ({ ...v.parse(v.object({ model: id }), whole), whole })),
);

export type ControlResponse = { status: Known<Bus.ControlResponse["status"]> } & Of<
  Bus.ControlResponse,
  "error" | "transaction",
  "data"
>;
export const ControlResponse = reader<Bus.ControlResponse, ControlResponse>()(
  v.object({
    status: listed<Bus.ControlResponse["status"]>()(["ok", "error"]),
    data: v.optional(v.record(v.string(), v.unknown()), {}),
    error: maybe(ErrorBody),
    transaction: maybe(v.union([text, number])),
  }),
);

/** A role; an unknown one is displayed as it is. */
type PlannedModule = Of<Bus.ModuleSpec, "id" | "memory_mb"> & { role: string };
export const PlannedModule = reader<Bus.ModuleSpec, PlannedModule>()(
  v.object({ id, role: v.optional(text, ""), memory_mb: v.optional(amount, 0) }),
);

export type Plan = { modules: PlannedModule[] } & Of<Bus.Plan, never, "fronts">;
export const Plan = reader<Bus.Plan, Plan>()(
  v.object({ modules: v.optional(list(PlannedModule), []), fronts: v.optional(list(id), []) }),
);

type Replica = Of<Bus.Replica, "node" | "ms">;
export const Replica = reader<Bus.Replica, Replica>()(v.object({ node: id, ms: amount }));

type RouteStep = { replicas: Replica[] } & Of<Bus.RouteStep, "module" | "inputs">;
export const RouteStep = reader<Bus.RouteStep, RouteStep>()(
  v.object({ module: id, inputs: v.record(v.string(), text), replicas: v.optional(list(Replica), []) }),
);

type RankRoute = { steps: Record<string, RouteStep> } & Of<Bus.RankRoute, "model">;
const RankRoute = reader<Bus.RankRoute, RankRoute>()(v.object({ model: id, steps: v.optional(table(RouteStep), {}) }));

/** Kinds of inputs; an input of an unknown kind becomes a text field. `ranks`: the models of a task with stand-ins. */
export type RouteDoc = {
  inputs: Record<string, string>;
  steps: Record<string, RouteStep>;
  ranks: RankRoute[];
} & Of<Bus.RouteDoc, "model" | "deadline_s" | "error", "defaults" | "answer" | "description" | "rank">;
export const RouteDoc = reader<Bus.RouteDoc, RouteDoc>()(
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
    ranks: v.optional(list(RankRoute), []),
  }),
);

export type PlannerState = { state: Known<Bus.PlannerState["state"]> } & Of<
  Bus.PlannerState,
  "epoch",
  "asleep" | "held"
>;
export const PlannerState = reader<Bus.PlannerState, PlannerState>()(
  v.object({
    state: listed<Bus.PlannerState["state"]>()(["online", "offline"]),
    epoch: amount,
    asleep: v.optional(table(text), {}),
    held: v.optional(table(text), {}),
  }),
);

export type Event = { event: Known<Bus.Event["event"]> } & Omit<Bus.Event, "event">;
export const Event = reader<Bus.Event, Event>()(
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
export const Answer = reader<AnyAnswer, Answer>()(
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
export const Piece = reader<Bus.PlainPiece, Piece>()(
  v.object({ status: v.literal("piece"), transaction: maybe(v.union([text, number])), at: amount, text }),
);
