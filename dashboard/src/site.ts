// The site as its topics describe it: documents are kept, views are derived from them. No I/O, no clock of its own.
import type {
  ControlResponse,
  ErrorBody,
  Event,
  ModuleReport,
  NodeLoad,
  NodeProfile,
  NodeState,
  PartProgress,
  Plan,
  PlannerState,
  Reported,
  RouteDoc,
  TaskSpec,
} from "./documents";
import type { Binding, BindingReport, BridgeState } from "./house-documents";
import type { Said } from "./messages";
import { Traffic, push } from "./traffic";

export type Node = {
  id: string;
  state?: NodeState;
  profile?: NodeProfile;
  reported?: Reported;
  plan?: Plan;
  load?: NodeLoad & { at: number };
  /** when its state last changed */
  since: number;
  /** number of the connection on which any of its retained documents last arrived */
  round: number;
};
export type Task = { id: string; spec?: TaskSpec; route?: RouteDoc; round: number };
/** A rule: messages on a topic become inputs of a task. */
export type Rule = { id: string; binding?: Binding; report?: BindingReport; round: number };
export type Happening = { key: number; at: number; event: Event };
export type Copy = {
  node: string;
  module: string;
  state: "planned" | ModuleReport["state"];
  progress: number;
  /** size of its tensors, bytes */
  weights_mb: number;
  /** memory that it needs on the node */
  memory_mb: number;
  ms: number;
  queue: number;
  reason?: ErrorBody;
  /** how much of it has come from other nodes */
  fetched?: PartProgress;
};
/** A module: the tasks that use it, and the nodes that hold it. */
export type Module = { id: string; role: string; weights_mb: number; tasks: string[]; copies: Copy[] };
/** The task or module that the user selected. */
export type Picked = { kind: "task" | "module"; id: string } | null;

const HAPPENINGS = 100;
const ORDERS = 50;
/** Most nodes and most tasks that are kept, so that a flooded bus cannot fill the browser's memory. */
export const MOST = 2_000;
/** Telemetry arrives each second while a node is busy; older telemetry than this is dropped, ms. */
const LOAD_MS = 3_000;

export class Site {
  readonly nodes = new Map<string, Node>();
  readonly tasks = new Map<string, Task>();
  readonly traffic = new Traffic();
  readonly happenings: Happening[] = [];
  readonly rules = new Map<string, Rule>();
  /** the last response to each order, by its transaction */
  readonly orders = new Map<string | number, ControlResponse>();
  planner?: PlannerState;
  bridge?: BridgeState;
  /** grows whenever something that is displayed has changed */
  placement = 0;
  round = 0;
  /** whether all retained documents must have arrived by now */
  settled = false;
  /** number of invalid messages, and the reason of the last one */
  unread = { count: 0, last: "" };
  private key = 0;
  private readonly roles = new Map<string, string>();
  private view?: { placement: number; modules: Map<string, Module> };

  /** Handles a new connection: documents that do not arrive on it are outdated. */
  begin(): void {
    this.round += 1;
    this.settled = false;
    this.placement += 1;
  }

  /** Drops documents that did not arrive again since `begin`. */
  forget(): void {
    this.settled = true;
    for (const kept of [this.nodes, this.tasks, this.rules])
      for (const [id, { round }] of kept) if (round < this.round) kept.delete(id);
    this.placement += 1;
  }

  /** Handles one message. */
  apply(said: Said, now: number): void {
    switch (said.kind) {
      case "planner":
        this.planner = said.document ?? undefined;
        break;
      case "state":
        this.keep(said.id, { state: said.document ?? undefined }, now);
        break;
      case "profile":
        this.keep(said.id, { profile: said.document ?? undefined }, now);
        break;
      case "reported":
        this.keep(said.id, { reported: said.document ?? undefined }, now);
        break;
      case "plan":
        this.learn(said.document);
        this.keep(said.id, { plan: said.document ?? undefined }, now);
        break;
      case "task":
        this.keepTask(said.id, { spec: said.document ?? undefined });
        break;
      case "route":
        this.keepTask(said.id, { route: said.document ?? undefined });
        break;
      case "load":
        if (said.document) this.count(said.id, said.document, now);
        break;
      case "response":
        if (said.document?.status === "piece") this.traffic.write(said.document);
        else if (said.document) this.traffic.answered(said.id, said.document, now);
        break;
      case "event":
        if (said.document) push(this.happenings, { key: this.key++, at: now, event: said.document }, HAPPENINGS);
        break;
      case "bridge":
        this.bridge = said.document ?? undefined;
        break;
      case "bind":
        this.keepRule(said.id, { binding: said.document ?? undefined });
        break;
      case "report":
        this.keepRule(said.id, { report: said.document ?? undefined });
        break;
      case "order":
        if (said.document?.transaction != null) {
          this.orders.set(said.document.transaction, said.document);
          if (this.orders.size > ORDERS) this.orders.delete(this.orders.keys().next().value!);
        }
        break;
    }
  }

  /** Counts an invalid message. */
  refuse(topic: string, why: string): void {
    this.unread = { count: this.unread.count + 1, last: `${topic.slice(0, 120)}: ${why.slice(0, 200)}` };
  }

  /** Module name -> the tasks that use it and the nodes that hold it. */
  modules(): Map<string, Module> {
    if (this.view?.placement !== this.placement) this.view = { placement: this.placement, modules: this.derive() };
    return this.view.modules;
  }

  /** Topics of documents that others refer to, or that every site has, and that the broker did not deliver. */
  missing(): Set<string> {
    const found = new Set<string>();
    if (!this.planner) found.add("planner/state");
    const named = (id: string) => this.nodes.get(id)?.state || found.add(`node/${id}/state`);
    for (const node of this.nodes.values()) {
      named(node.id);
      if (present(node) && !node.profile) found.add(`node/${node.id}/profile`);
    }
    for (const { id, spec, route } of this.tasks.values()) {
      if (!spec) found.add(`task/${id}`);
      if (!route && this.planner?.state === "online") found.add(`route/${id}`);
      for (const step of Object.values(route?.steps ?? {})) for (const { node } of step.replicas) named(node);
    }
    return found;
  }

  /** The modules that a node holds or is to hold; none if it is lost. */
  copies(node: Node): Copy[] {
    if (!present(node)) return [];
    const reported = node.reported?.modules ?? {};
    const planned = new Map((node.plan?.modules ?? []).map((module) => [module.id, module]));
    const all = new Set([...Object.keys(reported), ...planned.keys()]);
    return [...all].sort().map((module) => {
      const report = reported[module];
      return {
        node: node.id,
        module,
        state: report?.state ?? "planned",
        progress: report?.progress ?? 0,
        weights_mb: (report?.bytes ?? 0) / 1e6 || (planned.get(module)?.memory_mb ?? 0),
        memory_mb: report?.memory_mb ?? 0,
        ms: report?.ms ?? 0,
        queue: node.load?.queues[module] ?? 0,
        reason: report?.reason ?? undefined,
        fetched: report?.fetched ?? undefined,
      };
    });
  }

  /** Whether every step of one of a task's models has a ready copy on a present node. */
  ready(task: Task): boolean {
    return this.answering(task) !== undefined;
  }

  /** The best of a task's models that present nodes can answer with, and its rank: above 0 it is a stand-in. */
  answering({ route }: Task): { model: string; rank: number } | undefined {
    if (!route) return undefined;
    const there = (node: string) => present(this.nodes.get(node));
    const models = route.ranks.length ? route.ranks.map((one, rank) => ({ ...one, rank })) : [route];
    return models.find((model) => {
      const steps = Object.values(model.steps);
      return steps.length > 0 && steps.every((step) => step.replicas.some((replica) => there(replica.node)));
    });
  }

  /** Advances the clock without a message: charts move on, old telemetry is dropped. */
  tick(now: number): void {
    this.traffic.tick(now);
    for (const node of this.nodes.values())
      if (node.load && now - node.load.at > LOAD_MS) this.replace({ ...node, load: undefined });
  }

  /** MB of weights that sharing saves: with one copy per task that uses a module, minus with one copy per module. */
  saved(): number {
    let saved = 0;
    for (const module of this.modules().values()) saved += Math.max(0, module.tasks.length - 1) * module.weights_mb;
    return saved;
  }

  private keep(id: string, said: Partial<Node>, now: number): void {
    const old = this.nodes.get(id);
    if (!old && this.nodes.size >= MOST) return;
    const changed = "state" in said && old?.state?.state !== said.state?.state;
    const node: Node = {
      ...(old ?? { id, since: now }),
      ...said,
      since: changed || !old ? now : old.since,
      round: this.round,
    };
    if (node.state || node.profile || node.reported) this.replace(node);
    else if (said.plan?.modules.length || said.plan?.fronts.length) this.replace(node);
    else {
      this.nodes.delete(id);
      this.placement += 1;
    }
  }

  private keepTask(id: string, said: Partial<Task>): void {
    const old = this.tasks.get(id);
    if (!old && this.tasks.size >= MOST) return;
    const task = { ...(old ?? { id }), ...said, round: this.round };
    if (task.spec || task.route) this.tasks.set(id, task);
    else this.tasks.delete(id);
    this.placement += 1;
  }

  private keepRule(id: string, said: Partial<Rule>): void {
    const old = this.rules.get(id);
    if (!old && this.rules.size >= MOST) return;
    const rule = { ...(old ?? { id }), ...said, round: this.round };
    if (rule.binding || rule.report) this.rules.set(id, rule);
    else this.rules.delete(id);
  }

  private learn(plan: Plan | null): void {
    for (const { id, role } of plan?.modules ?? []) if (role && this.roles.size < MOST) this.roles.set(id, role);
  }

  private count(id: string, load: NodeLoad, now: number): void {
    const node = this.nodes.get(id);
    if (node) this.replace({ ...node, load: { ...load, at: now } });
    // the bridge embeds pictures for searches: no task of the site
    this.traffic.sampled(load, now, (task) => this.tasks.has(task));
  }

  private replace(node: Node): void {
    this.nodes.set(node.id, node);
    this.placement += 1;
  }

  private derive(): Map<string, Module> {
    const modules = new Map<string, Module>();
    const of = (id: string): Module => {
      const found = modules.get(id) ?? { id, role: this.roles.get(id) ?? "", weights_mb: 0, tasks: [], copies: [] };
      modules.set(id, found);
      return found;
    };
    for (const node of this.nodes.values())
      for (const copy of this.copies(node)) {
        const module = of(copy.module);
        module.copies.push(copy);
        module.weights_mb = Math.max(module.weights_mb, copy.weights_mb);
      }
    for (const task of this.tasks.values())
      for (const module of new Set(Object.values(task.route?.steps ?? {}).map((step) => step.module)))
        of(module).tasks.push(task.id);
    for (const { tasks } of modules.values()) tasks.sort();
    return modules;
  }
}

/** Whether a node is present: ready or draining. */
export function present(node: Node | undefined): boolean {
  return node?.state !== undefined && node.state.state !== "lost";
}

/** The steps of a route whose outputs a step takes. */
export function before(route: RouteDoc, step: string): string[] {
  const from = Object.values(route.steps[step]?.inputs ?? {}).map((ref) => ref.split(".")[0] ?? "");
  return [...new Set(from)].filter((name) => name !== "input" && name in route.steps);
}
