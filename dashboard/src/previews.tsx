// What the planner says before a task is added: which models there are, what it would cost, where it would run.
import { useEffect, useState } from "preact/hooks";
import * as v from "valibot";
import type { Connection } from "./connection";
import { ErrorBody } from "./documents";
import type * as Bus from "./generated/documents";
import { act } from "./orders";
import { type Of, amount, id, list, maybe, reader, table, text } from "./reading";
import type { Site } from "./site";
import { t } from "./texts";
import { inWords, todo } from "./words";

export type KnownModel = Of<Bus.KnownModel, "id" | "added_mb" | "error", "description" | "inputs" | "answer">;
const KnownModel = reader<Bus.KnownModel, KnownModel>()(
  v.object({
    id,
    added_mb: amount,
    description: v.optional(text, ""),
    inputs: v.optional(v.record(v.string(), text), {}),
    answer: v.optional(list(text), []),
    error: maybe(ErrorBody),
  }),
);
const ModelList = v.object({ models: list(KnownModel) });

type PreviewedModule = Of<Bus.PreviewedModule, "id", "nodes">;
const PreviewedModule = reader<Bus.PreviewedModule, PreviewedModule>()(
  v.object({ id, nodes: v.optional(list(id), []) }),
);
type TaskPreview = { modules: PreviewedModule[] } & Of<Bus.TaskPreview, "added_mb", "displaced">;
const TaskPreview = reader<Bus.TaskPreview, TaskPreview>()(
  v.object({
    added_mb: amount,
    modules: v.optional(list(PreviewedModule), []),
    displaced: v.optional(table(text), {}),
  }),
);

/** A plan of a large site takes seconds, ms. */
const PATIENCE_MS = 10_000;
/** Pause after a change before the planner is asked, ms. */
const TYPED_MS = 300;

/** The models of the planner's definitions; none while they are not known, or if nobody says. */
export type Models = { asked: boolean; known: KnownModel[] };
const NONE: Models = { asked: false, known: [] };

export function useModels(site: Site, connection: Connection): Models {
  const [models, set] = useState(NONE);
  useEffect(() => {
    let gone = false;
    void act.order(connection, site, "preview", {}, PATIENCE_MS).then((response) => {
      const found = typeof response === "string" ? null : v.safeParse(ModelList, response.data);
      const known = found?.success ? found.output.models.filter((model) => !model.id.startsWith("noop")) : [];
      if (!gone) set({ asked: true, known });
    });
    return () => void (gone = true);
  }, []);
  return models;
}

/** What a task would cost: not known yet, not to be known, or as the planner says it. */
export type Cost =
  | { kind: "asking" }
  | { kind: "unknown" }
  | { kind: "known"; preview: TaskPreview }
  | { kind: "refused"; error: ErrorBody };

/** Asks the planner what a task would cost; anew whenever the task has changed. Nothing is asked without a task. */
export function useCost(site: Site, connection: Connection, task: string, spec: object | undefined): Cost {
  const [cost, set] = useState<Cost>({ kind: "unknown" });
  const wanted = spec && JSON.stringify({ task, spec });
  useEffect(() => {
    if (!wanted) return set({ kind: "unknown" });
    let gone = false;
    set({ kind: "asking" });
    const ask = async () => {
      const order = act.ask(connection, site, "preview", JSON.parse(wanted) as object, PATIENCE_MS);
      const response = await order.catch(() => undefined); // not connected: nothing is known
      if (gone) return;
      const found = response && !response.error ? v.safeParse(TaskPreview, response.data) : null;
      if (response?.error) set({ kind: "refused", error: response.error });
      else set(found?.success ? { kind: "known", preview: found.output } : { kind: "unknown" });
    };
    const timer = setTimeout(() => void ask(), TYPED_MS);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [wanted]);
  return cost;
}

/** What a task would cost, in words. */
export function CostLine({ cost }: { cost: Cost }) {
  if (cost.kind === "asking") return <p class="quiet cost">{t.setup.costAsked}</p>;
  if (cost.kind === "unknown") return <p class="quiet cost">{t.setup.costUnknown}</p>;
  if (cost.kind === "refused") return <p class="error cost">{`✕ ${inWords(cost.error)} ${todo(cost.error)}`}</p>;
  const { added_mb, modules, displaced } = cost.preview;
  const on = [...new Set(modules.flatMap(({ nodes }) => nodes))].sort();
  return (
    <div class="cost">
      <p class="quiet">{t.setup.cost(added_mb, on)}</p>
      {Object.entries(displaced).map(([task, why]) => (
        <p key={task} class="error">
          {t.setup.displaces(task, why)}
        </p>
      ))}
    </div>
  );
}
