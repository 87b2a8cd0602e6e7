// Animations on the board: modules move to their new node, requests are dots, the selected task's route is lines.
// Reads the board's layout and draws on top of it; honours the user's setting for reduced motion.
import type { Answer, RouteDoc } from "./documents";
import { MOST, type Site, before } from "./site";

const FLIGHT_MS = 900;
const HOP_MS = 320;
const DOTS = 24;
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
type Point = { x: number; y: number };
/** a step and the node that ran it */
type Hop = [step: string, node: string];
type Box = { left: number; right: number; y: number };

export class Motion {
  private places = new Map<string, Point>();
  /** module -> position of its last removed copy, from which the animation of the next copy starts */
  private readonly left = new Map<string, Point>();
  private last = -1;
  private flying = 0;
  /** `task step` -> the node that ran it last; cleared if it grows beyond the size of any site */
  private readonly used = new Map<string, string>();
  private task: { id: string; route?: RouteDoc } | null = null;
  private readonly resized: ResizeObserver;

  constructor(private readonly board: HTMLElement) {
    this.resized = new ResizeObserver(() => {
      this.follow();
      this.draw();
    });
    this.resized.observe(board);
  }

  close(): void {
    this.resized.disconnect();
  }

  /** Called after each rendering. */
  update(site: Site, picked: string | null): void {
    this.fly();
    this.flow(site);
    const route = picked === null ? undefined : site.tasks.get(picked)?.route;
    if (picked !== null || this.task !== null) {
      this.task = picked === null ? null : { id: picked, route };
      this.draw();
    }
  }

  /** Animates each new copy of a module from the position of another or a removed copy. */
  private fly(): void {
    const chips = [...this.board.querySelectorAll<HTMLElement>("[data-chip]")];
    if (chips.length === this.places.size && chips.every((chip) => this.places.has(chip.dataset.chip!))) return;
    const now = this.measure();
    // when the last copies go before the next ones come, there is no place for a moment, but a layout was there
    const known = this.places.size > 0 || this.left.size > 0;
    if (this.left.size > MOST) this.left.clear();
    for (const [name, place] of this.places) if (!now.has(name)) this.left.set(name.split("@")[0]!, place);
    for (const chip of chips) {
      const name = chip.dataset.chip!;
      const to = now.get(name);
      if (!known || this.places.has(name) || !to || STILL.matches) continue;
      const from = this.origin(name.split("@")[0]!, now);
      if (from) arrive(chip, from, to);
    }
    this.places = now;
  }

  private origin(module: string, now: Map<string, Point>): Point | undefined {
    const copies = [...this.places].filter(([name]) => name.startsWith(`${module}@`));
    return (copies.find(([name]) => !now.has(name)) ?? copies[0])?.[1] ?? this.left.get(module);
  }

  /** Animates a dot along each branch of each new answer, up to the largest number of dots. */
  private flow(site: Site): void {
    if (this.used.size > MOST) this.used.clear();
    const fresh = site.traffic.requests.filter(({ key }) => key > this.last);
    this.last = site.traffic.requests.at(-1)?.key ?? this.last;
    for (const { task, answer } of fresh) {
      const route = site.tasks.get(task)?.route;
      for (const [step, { node }] of Object.entries(answer.steps)) this.used.set(`${task} ${step}`, node);
      if (route && answer.status === "ok") for (const way of ways(route, answer)) this.send(task, way, route);
    }
  }

  private send(task: string, steps: readonly Hop[], route: RouteDoc): void {
    const home = this.spot(`[data-task="${task}"]`);
    const stops = steps.map(([step, node]) => this.ran(route.steps[step]?.module, node));
    if (STILL.matches || document.hidden || this.flying >= DOTS || !home || stops.some((stop) => !stop)) return;
    const all = [home, ...(stops as Point[]), home];
    const dot = document.createElement("span");
    this.board.querySelector(".dots")!.append(dot);
    this.flying += 1;
    const flight = dot.animate(
      all.map(({ x, y }) => ({ transform: `translate(${x}px, ${y}px)`, easing: "ease-in-out" })),
      { duration: HOP_MS * (all.length - 1) },
    );
    flight.onfinish = flight.oncancel = () => {
      dot.remove();
      this.flying -= 1;
    };
  }

  /** Draws the route of the selected task: that of its latest answer, else through the first copy of each module. */
  private draw(): void {
    const svg = this.board.querySelector("svg.lines")!;
    const paths = this.task?.route ? this.paths(this.task.id, this.task.route) : [];
    while (svg.childElementCount > paths.length) svg.lastElementChild!.remove();
    while (svg.childElementCount < paths.length)
      svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    paths.forEach((d, index) => svg.children[index]!.setAttribute("d", d));
  }

  private paths(task: string, route: RouteDoc): string[] {
    const home = this.box(`[data-task="${task}"]`);
    const at = (step: string): Box | null => {
      const { module, replicas } = route.steps[step]!;
      const used = replicas.find(({ node }) => node === this.used.get(`${task} ${step}`)) ?? replicas[0];
      return used ? this.box(`[data-chip="${module}@${used.node}"]`) : null;
    };
    return Object.keys(route.steps).flatMap((step) => {
      const from = before(route, step);
      const starts = from.length > 0 ? from.map(at) : [home];
      const end = at(step);
      return end ? starts.filter((start) => start !== null).map((start) => curve(start, end)) : [];
    });
  }

  /** Notes where the known copies are after the layout changed. A copy that came or went is left to `fly`. */
  private follow(): void {
    const now = this.measure();
    for (const name of this.places.keys()) this.places.set(name, now.get(name) ?? this.places.get(name)!);
  }

  private measure(): Map<string, Point> {
    const found = new Map<string, Point>();
    const origin = this.board.getBoundingClientRect();
    for (const chip of this.board.querySelectorAll<HTMLElement>("[data-chip]")) {
      const { left, top } = chip.getBoundingClientRect();
      found.set(chip.dataset.chip!, { x: left - origin.left, y: top - origin.top });
    }
    return found;
  }

  private box(selector: string): Box | null {
    const element = this.board.querySelector(selector);
    if (!element) return null;
    const origin = this.board.getBoundingClientRect();
    const { left, right, top, height } = element.getBoundingClientRect();
    return { left: left - origin.left, right: right - origin.left, y: top - origin.top + height / 2 };
  }

  /** Where a step ran: at the module's chip, at the node's title if that copy has gone since. */
  private ran(module: string | undefined, node: string): Point | null {
    return this.spot(`[data-chip="${module}@${node}"]`) ?? this.spot(`[data-node="${node}"] .title`);
  }

  private spot(selector: string): Point | null {
    const box = this.box(selector);
    return box && { x: box.left + 14, y: box.y };
  }
}

function arrive(chip: HTMLElement, from: Point, to: Point): void {
  chip.style.zIndex = "5";
  const flight = chip.animate(
    [
      { transform: `translate(${from.x - to.x}px, ${from.y - to.y}px)`, boxShadow: "0 6px 20px #0006" },
      { transform: "none" },
    ],
    { duration: FLIGHT_MS, easing: "cubic-bezier(.2,.8,.2,1)" },
  );
  flight.onfinish = () => (chip.style.zIndex = "");
}

/** All paths of an answered request, each from a first step to the head. */
export function ways(route: RouteDoc, answer: Answer): Hop[][] {
  const steps = Object.keys(route.steps).filter((step) => answer.steps[step]);
  const named = (step: string): Hop => [step, answer.steps[step]!.node];
  const onwards = (step: string, seen: readonly string[]): Hop[] => {
    const next = steps.find((name) => !seen.includes(name) && before(route, name).includes(step));
    return next ? [named(step), ...onwards(next, [...seen, next])] : [named(step)];
  };
  return steps.filter((step) => before(route, step).length === 0).map((step) => onwards(step, [step]));
}

/** A path between the edges of two cards: to the right, to the left, or around the left side of stacked cards. */
function curve(a: Box, b: Box): string {
  const around = a.left < b.right && b.left < a.right;
  const from = !around && b.left >= a.right ? a.right : a.left;
  const to = around || b.left >= a.right ? b.left : b.right;
  const bend = around ? -18 : Math.max(24, Math.abs(to - from) / 2) * Math.sign(to - from);
  return `M${from} ${a.y}C${from + bend} ${a.y} ${to + (around ? bend : -bend)} ${b.y} ${to} ${b.y}`;
}
