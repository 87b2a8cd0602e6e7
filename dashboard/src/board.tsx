// The board: tasks, and nodes with their modules. Animates modules that move and requests that run (motion.ts).
import { memo } from "preact/compat";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Motion } from "./motion";
import { type Copy, type Module, type Node, type Picked, type Site, type Task, present } from "./site";
import { KNOWN_ROLES, count, mb, ms, names, role } from "./words";

type Toggle = (next: NonNullable<Picked>) => void;
type Props = { site: Site; picked: Picked; toggle: Toggle; stale: boolean };

/** With more nodes than this, cards are smaller. */
const MANY = 12;

export function Board({ site, picked, toggle, stale }: Props) {
  const at = useRef<HTMLDivElement>(null);
  const motion = useRef<Motion>(null);
  useLayoutEffect(() => {
    const made = new Motion(at.current!);
    motion.current = made;
    return () => made.close();
  }, []);
  useLayoutEffect(() => motion.current?.update(site, picked?.kind === "task" ? picked.id : null));
  const modules = site.modules();
  const nodes = [...site.nodes.values()].sort((a, b) => a.id.localeCompare(b.id));
  const tasks = [...site.tasks.values()].sort((a, b) => a.id.localeCompare(b.id));
  return (
    <section class="panel" aria-labelledby="board-title">
      <h2 id="board-title">What runs where</h2>
      <Legend />
      <div class={`board ${nodes.length > MANY ? "many" : ""}`} ref={at} data-stale={stale}>
        <div>
          <h3 class="label">Tasks</h3>
          <ul class="tasks">
            {tasks.map((task) => (
              <TaskButton
                key={task.id}
                task={task}
                ready={site.ready(task)}
                uses={usesPicked(task, picked)}
                toggle={toggle}
              />
            ))}
          </ul>
          {tasks.length === 0 && (
            <p class="quiet">
              {stale ? (
                "Not known: not connected."
              ) : (
                <>
                  No task yet: <code>s2m3 task add</code>
                </>
              )}
            </p>
          )}
        </div>
        <div>
          <h3 class="label">Nodes</h3>
          <ul class="nodes">
            {nodes.map((node) => (
              <NodeCard
                key={node.id}
                node={node}
                copies={site.copies(node)}
                modules={modules}
                shown={picked}
                old={node.round < site.round}
                toggle={toggle}
              />
            ))}
          </ul>
          {nodes.length === 0 && (
            <p class="quiet">
              {stale ? (
                "Not known: not connected."
              ) : (
                <>
                  No node yet: <code>s2m3 agent</code>
                </>
              )}
            </p>
          )}
        </div>
        <svg class="lines" aria-hidden="true" />
        <div class="dots" aria-hidden="true" />
      </div>
      <p class="caption" role="status">
        {caption(site, picked)}
      </p>
    </section>
  );
}

function Legend() {
  return (
    <ul class="legend" aria-label="What letters and colours mean">
      {KNOWN_ROLES.map((name) => (
        <li key={name}>
          <span class={`role ${name}`} aria-hidden="true">
            {role(name).letter}
          </span>{" "}
          {role(name).word}
        </li>
      ))}
      <li>
        memory of <span class="swatch runtime" aria-hidden="true" /> runtime and{" "}
        <span class="swatch held" aria-hidden="true" /> modules
      </li>
    </ul>
  );
}

function usesPicked(task: Task, picked: Picked): "picked" | "uses" | "" {
  if (picked?.kind === "task") return picked.id === task.id ? "picked" : "";
  return picked && Object.values(task.route?.steps ?? {}).some((step) => step.module === picked.id) ? "uses" : "";
}

/** Above rank 0 a stand-in answers: a model that is not the task's best. */
const readyWord = ({ route }: Task) => (route && route.rank > 0 ? `a stand-in answers: ${route.model}` : "ready");

const TaskButton = memo(
  ({ task, ready, uses, toggle }: { task: Task; ready: boolean; uses: string; toggle: Toggle }) => (
    <li>
      <button
        class={`task ${uses}`}
        data-task={task.id}
        data-ready={ready}
        aria-pressed={uses === "picked"}
        onClick={() => toggle({ kind: "task", id: task.id })}
      >
        <b>{task.id}</b>
        <small>
          <span aria-hidden="true">{ready ? "✓" : "✕"}</span>{" "}
          <span class="word">{ready ? readyWord(task) : "not ready"}</span>
          {uses === "uses" && ", uses it"}
        </small>
      </button>
    </li>
  ),
  (a, b) => a.task === b.task && a.ready === b.ready && a.uses === b.uses,
);

const STATES = {
  ready: ["●", "ready"],
  draining: ["◐", "draining"],
  lost: ["✕", "lost"],
  unknown: ["?", "not heard of"],
} as const;
/** The label of a state of a newer release: the node is present and gets no new work. */
const NEWER = ["?", "in a state that this page does not know"] as const;

type CardProps = {
  node: Node;
  copies: Copy[];
  modules: Map<string, Module>;
  shown: Picked;
  old: boolean;
  toggle: Toggle;
};

function card({ node, copies, modules, shown, old, toggle }: CardProps) {
  const state = node.state?.state ?? "unknown";
  const [mark, word] = state === "unknown" && node.state ? NEWER : STATES[state];
  return (
    <li class={`node ${state} ${old ? "old" : ""}`} data-node={node.id} data-state={state}>
      <div class="title">
        <h4>{node.id}</h4>
        <span class="state">
          <span aria-hidden="true">{mark}</span> <span class="word">{word}</span>
          {old && ", out of date"}
        </span>
      </div>
      {present(node) && <Memory node={node} copies={copies} />}
      {state === "lost" && <p class="gone">{whereNow(node, modules)}</p>}
      <ul class="chips" aria-label={`Modules on ${node.id}`}>
        {copies.map((copy) => (
          <Chip key={copy.module} copy={copy} module={modules.get(copy.module)} shown={shown} toggle={toggle} />
        ))}
      </ul>
    </li>
  );
}

/** A card is rendered again if its node, the selection, or the tasks that share one of its modules have changed. */
const NodeCard = memo(
  card,
  (a, b) =>
    a.node === b.node &&
    a.old === b.old &&
    a.shown === b.shown &&
    (a.modules === b.modules || (present(a.node) && sameSharing(a, b))),
);

function sameSharing(a: CardProps, b: CardProps): boolean {
  const users = (of: CardProps, module: string) => of.modules.get(module)?.tasks.join();
  return b.copies.every(({ module }) => users(a, module) === users(b, module));
}

function Memory({ node, copies }: { node: Node; copies: Copy[] }) {
  const budget = node.profile?.memory_mb ?? 0;
  if (budget === 0) return null;
  const runtime = node.reported?.runtime_mb ?? 0;
  const held = copies.filter((copy) => copy.state === "ready");
  const used = Math.max(0, budget - (node.reported?.free_mb ?? budget));
  const share = (amount: number) => ({ width: `${Math.min(100, (100 * amount) / budget)}%` });
  return (
    <>
      <div class="memory" aria-hidden="true">
        <span class="runtime" style={share(runtime)} />
        {held.map((copy) => (
          <span key={copy.module} class="held" style={share(copy.memory_mb)} />
        ))}
      </div>
      <p class="amounts">
        {Math.round(used)} of {mb(budget)} used
      </p>
    </>
  );
}

function Chip({ copy, module, shown, toggle }: { copy: Copy; module?: Module; shown: Picked; toggle: Toggle }) {
  const kind = role(module?.role ?? "");
  const tasks = module?.tasks ?? [];
  const picked = shown?.kind === "module" && shown.id === copy.module;
  const used = shown?.kind === "task" && tasks.includes(shown.id);
  return (
    <li>
      <button
        class={`chip ${copy.state} ${picked ? "picked" : ""} ${used ? "uses" : ""}`}
        data-chip={`${copy.module}@${copy.node}`}
        data-state={copy.state}
        aria-pressed={picked}
        onClick={() => toggle({ kind: "module", id: copy.module })}
        title={`${copy.module}, ${kind.word}: ${tasks.length ? `used by ${tasks.join(", ")}` : "no task uses it"}`}
      >
        <span class={`role ${module?.role ?? ""}`} aria-hidden="true">
          {kind.letter}
        </span>
        <span class="name">{copy.module}</span>
        {tasks.length > 1 && (
          <small class="shared">
            <span aria-hidden="true">×{tasks.length}</span>
            <span class="unseen">, shared by {tasks.length} tasks</span>
          </small>
        )}
        {copy.state === "loading" && <small class="note">{loading(copy)}</small>}
        {copy.state === "planned" && <small class="note">to come</small>}
        {copy.state === "failed" && <small class="note">✕ failed</small>}
        {copy.queue > 0 && <small class="note">{copy.queue} queued</small>}
      </button>
    </li>
  );
}

function loading(copy: Copy): string {
  const fetched = copy.fetched;
  if (!fetched) return `loading ${Math.round(100 * copy.progress)} %`;
  if (fetched.of === 0 && fetched.nodes.length > 0) return `${names(fetched.nodes)} makes its part ready`;
  if (fetched.of === 0) return "looking for its part";
  const from = fetched.nodes.length > 0 ? ` from ${names(fetched.nodes)}` : "";
  return `${(fetched.bytes / 1e6).toFixed(0)} of ${(fetched.of / 1e6).toFixed(0)} MB${from}`;
}

function whereNow(node: Node, modules: Map<string, Module>): string {
  const lost = Object.keys(node.reported?.modules ?? {});
  if (lost.length === 0) return "Held nothing.";
  const nowhere = lost.filter((id) => !modules.get(id)?.copies.some((copy) => copy.state === "ready"));
  const held = `Held ${names(lost)}.`;
  return nowhere.length === 0
    ? `${held} All of it runs elsewhere now.`
    : `${held} Not running elsewhere yet: ${names(nowhere)}.`;
}

function caption(site: Site, picked: Picked): string {
  if (picked?.kind === "module") {
    const module = site.modules().get(picked.id);
    if (!module) return `${picked.id} is not there any more.`;
    const held = module.copies.map(
      (copy) =>
        `${copy.node}${copy.state === "ready" ? (copy.ms ? ` (${ms(copy.ms)} an item)` : "") : ` (${copy.state})`}`,
    );
    const users =
      module.tasks.length > 1
        ? `shared by ${count(module.tasks.length, "task")}: ${names(module.tasks, 8)}`
        : module.tasks.length
          ? `used by ${module.tasks[0]}`
          : "used by no task";
    return `${module.id}, a ${role(module.role).word} of ${mb(module.weights_mb)}, ${users}. On ${held.length ? names(held, 6) : "no node"}.`;
  }
  if (picked?.kind === "task") {
    const steps = Object.entries(site.tasks.get(picked.id)?.route?.steps ?? {});
    return `${picked.id}: ${steps.map(([step, { module, replicas }]) => `${step} is ${module} on ${names(replicas.map((r) => r.node)) || "no node"}`).join("; ") || "no route yet"}.`;
  }
  return "Pick a task to see its way through the nodes, or a module to see who shares it. A dot is a request on its way.";
}
