// The board: tasks, and nodes with their modules. Animates modules that move and requests that run (motion.ts).
import { memo } from "preact/compat";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Motion } from "./motion";
import { Search } from "./search";
import { type Copy, type Module, type Node, type Picked, type Site, type Task, present } from "./site";
import { t } from "./texts";
import { KNOWN_ROLES, mb, ms, role } from "./words";

type Toggle = (next: NonNullable<Picked>) => void;
type Props = { site: Site; picked: Picked; toggle: Toggle; stale: boolean };

/** With more nodes than this, cards are smaller; with more tasks than this, they are a list that can be searched. */
const MANY = 12;
const MANY_TASKS = 16;

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
  const all = [...site.tasks.values()].sort((a, b) => a.id.localeCompare(b.id));
  const [sought, seek] = useState("");
  const tasks = all.filter((task) => `${task.id} ${task.spec?.model ?? ""}`.includes(sought.trim().toLowerCase()));
  return (
    <section class="panel" aria-labelledby="board-title">
      <h2 id="board-title">{t.board.title}</h2>
      <Legend />
      <div class={`board ${nodes.length > MANY ? "many" : ""}`} ref={at} data-stale={stale}>
        <div>
          <h3 class="label">{t.board.tasks}</h3>
          {all.length > MANY_TASKS && <Search label={t.board.search} sought={sought} seek={seek} />}
          <ul class={`tasks ${all.length > MANY_TASKS ? "list" : ""}`}>
            {tasks.map((task) => (
              <TaskButton
                key={task.id}
                task={task}
                word={stateWord(site, task)}
                ready={site.ready(task)}
                uses={usesPicked(task, picked)}
                toggle={toggle}
              />
            ))}
          </ul>
          {all.length === 0 && <Missing stale={stale} text={t.board.noTask} command="s2m3 task add" />}
        </div>
        <div>
          <h3 class="label">{t.board.nodes}</h3>
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
          {nodes.length === 0 && <Missing stale={stale} text={t.board.noNode} command="s2m3 agent" />}
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

function Missing({ stale, text, command }: { stale: boolean; text: string; command: string }) {
  return (
    <p class="quiet">
      {stale ? (
        t.board.unknown
      ) : (
        <>
          {text} <code>{command}</code>
        </>
      )}
    </p>
  );
}

function Legend() {
  return (
    <ul class="legend" aria-label={t.board.legend}>
      {KNOWN_ROLES.map((name) => (
        <li key={name}>
          <span class={`role ${name}`} aria-hidden="true">
            {role(name).sign}
          </span>{" "}
          {role(name).word}
        </li>
      ))}
      <li>
        {t.board.memory} <span class="swatch runtime" aria-hidden="true" /> {t.board.runtime}{" "}
        <span class="swatch held" aria-hidden="true" /> {t.board.held}
      </li>
    </ul>
  );
}

function usesPicked(task: Task, picked: Picked): "picked" | "uses" | "" {
  if (picked?.kind === "task") return picked.id === task.id ? "picked" : "";
  return picked && Object.values(task.route?.steps ?? {}).some((step) => step.module === picked.id) ? "uses" : "";
}

/** Above rank 0 a stand-in answers: a model that is not the task's best. */
function stateWord(site: Site, task: Task): string {
  const answers = site.answering(task);
  if (!answers) return t.board.notReady;
  return answers.rank > 0 ? t.board.standIn(answers.model) : t.board.ready;
}

const TaskButton = memo(
  ({ task, word, ready, uses, toggle }: { task: Task; word: string; ready: boolean; uses: string; toggle: Toggle }) => (
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
          <span aria-hidden="true">{ready ? "✓" : "✕"}</span> <span class="word">{word}</span>
          {uses === "uses" && t.board.uses}
        </small>
      </button>
    </li>
  ),
  (a, b) => a.task === b.task && a.word === b.word && a.ready === b.ready && a.uses === b.uses,
);

const MARKS = { ready: "●", draining: "◐", lost: "✕", unknown: "?" } as const;

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
  // a state of a newer release: the node is present and gets no new work
  const word = state === "unknown" && node.state ? t.board.newerState : t.board.states[state];
  return (
    <li class={`node ${state} ${old ? "old" : ""}`} data-node={node.id} data-state={state}>
      <div class="title">
        <h4>{node.id}</h4>
        <span class="state">
          <span aria-hidden="true">{MARKS[state]}</span> <span class="word">{word}</span>
          {old && t.board.old}
        </span>
      </div>
      {present(node) && <Memory node={node} copies={copies} />}
      {state === "lost" && <p class="gone">{whereNow(node, modules)}</p>}
      <ul class="chips" aria-label={t.board.modulesOn(node.id)}>
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
  const device = node.profile?.device ?? "cpu";
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
        {device !== "cpu" && <span class="device">{device}: </span>}
        {t.board.used(Math.round(used), mb(budget))}
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
        title={t.board.chip(copy.module, kind.word, tasks)}
      >
        <span class={`role ${module?.role ?? ""}`} aria-hidden="true">
          {kind.sign}
        </span>
        <span class="name">{copy.module}</span>
        {tasks.length > 1 && (
          <small class="shared">
            <span aria-hidden="true">{t.board.shared(tasks.length)}</span>
            <span class="unseen">{t.board.sharedBy(tasks.length)}</span>
          </small>
        )}
        {copy.state === "loading" && <small class="note">{loading(copy)}</small>}
        {copy.state === "planned" && <small class="note">{t.board.planned}</small>}
        {copy.state === "failed" && <small class="note">{t.board.failed}</small>}
        {copy.queue > 0 && <small class="note">{t.board.queued(copy.queue)}</small>}
      </button>
    </li>
  );
}

function loading(copy: Copy): string {
  const fetched = copy.fetched;
  if (!fetched) return t.board.loading(Math.round(100 * copy.progress));
  if (fetched.of === 0 && fetched.nodes.length > 0) return t.board.making(fetched.nodes);
  if (fetched.of === 0) return t.board.seeking;
  return t.board.fetching((fetched.bytes / 1e6).toFixed(0), (fetched.of / 1e6).toFixed(0), fetched.nodes);
}

function whereNow(node: Node, modules: Map<string, Module>): string {
  const lost = Object.keys(node.reported?.modules ?? {});
  if (lost.length === 0) return t.board.heldNothing;
  const nowhere = lost.filter((id) => !modules.get(id)?.copies.some((copy) => copy.state === "ready"));
  return nowhere.length === 0 ? t.board.heldAll(lost) : t.board.heldSome(lost, nowhere);
}

function caption(site: Site, picked: Picked): string {
  if (picked?.kind === "module") {
    const module = site.modules().get(picked.id);
    if (!module) return t.board.gone(picked.id);
    const on = module.copies.map((copy) => {
      const detail = copy.ms ? t.board.item(ms(copy.ms)) : "";
      return copy.node + (copy.state === "ready" ? detail : ` (${t.modules.states[copy.state]})`);
    });
    return t.board.module(module.id, role(module.role).word, mb(module.weights_mb), module.tasks, on);
  }
  if (picked?.kind === "task") {
    const steps = Object.entries(site.tasks.get(picked.id)?.route?.steps ?? {});
    return t.board.way(
      picked.id,
      steps.map(([step, { module, replicas }]) => [step, module, replicas.map((replica) => replica.node)]),
    );
  }
  return t.board.hint;
}
