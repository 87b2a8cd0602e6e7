// The documents of the bridge to a house, as the page reads them: bindings, and the answers that are kept.
import * as v from "valibot";
import { ErrorBody, Timing } from "./documents";
import type * as Bus from "./generated/documents";
import { type Known, type Of, amount, id, list, listed, maybe, number, reader, table, text } from "./reading";

/** A binding as it was published: what the page does not read is kept for when it is published again, changed. */
export type Binding = Of<Bus.Binding, "source" | "task" | "publish", "inputs" | "every_s" | "labels"> &
  Partial<Pick<Bus.Binding, "input" | "above">> & { whole: Record<string, unknown> };
export const Binding = v.pipe(
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
export const BindingReport = reader<Bus.BindingReport, BindingReport>()(
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
export const BridgeState = reader<Bus.BridgeState, BridgeState>()(
  v.object({ state: listed<Bus.BridgeState["state"]>()(["online", "offline"]) }),
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
export const KeptAnswer = reader<Bus.BridgeAnswer, KeptAnswer>()(
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
export const part = v.pipe(number, v.minValue(0), v.maxValue(1));
export const Box = v.object({ label: text, score: number, left: part, top: part, right: part, bottom: part });
export const Entry = reader<Bus.HistoryEntry, Entry>()(
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
export const HistoryState = reader<Bus.HistoryState, HistoryState>()(
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
export const Kept = reader<Bus.HistoryKept, Kept>()(
  v.object({ transaction: v.optional(text, ""), entries: v.optional(list(Entry), []) }),
);
export type Done = Of<Bus.HistoryDone, "error" | "missing", "transaction" | "more">;
export const Done = reader<Bus.HistoryDone, Done>()(
  v.object({
    transaction: v.optional(text, ""),
    more: v.optional(v.boolean(), false),
    missing: maybe(amount),
    error: maybe(ErrorBody),
  }),
);
