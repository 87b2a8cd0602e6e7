// What moves on the picture: modules that fly to their new node, requests as dots, the picked task's way as lines.
// It only reads the picture's layout and draws over it; reduced motion is respected.
import type { Answer, RouteDoc } from "./documents";
import { type Site, before } from "./site";

const FLIGHT_MS = 900;
const HOP_MS = 320;
const DOTS = 24;
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
type Point = { x: number; y: number };

export class Motion {
  private places = new Map<string, Point>();
  private last = -1;
  private flying = 0;
  private task: { id: string; route?: RouteDoc } | null = null;
  private readonly resized: ResizeObserver;

  constructor(private readonly board: HTMLElement) {
    this.resized = new ResizeObserver(() => {
      this.places = this.measure();
      this.draw();
    });
    this.resized.observe(board);
  }

  close(): void {
    this.resized.disconnect();
  }

  /** After each drawing of the picture. */
  update(site: Site, picked: string | null): void {
    this.fly();
    this.flow(site);
    const route = picked === null ? undefined : site.tasks.get(picked)?.route;
    if (picked !== null || this.task !== null) {
      this.task = picked === null ? null : { id: picked, route };
      this.draw();
    }
  }

  /** Moves each new copy of a module in from where another copy is, or just was. */
  private fly(): void {
    const chips = [...this.board.querySelectorAll<HTMLElement>("[data-chip]")];
    if (chips.length === this.places.size && chips.every((chip) => this.places.has(chip.dataset.chip!))) return;
    const now = this.measure();
    const known = this.places.size > 0;
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
    return (copies.find(([name]) => !now.has(name)) ?? copies[0])?.[1];
  }

  /** Sends a dot along each branch of each new answer, as far as there is room for dots. */
  private flow(site: Site): void {
    const fresh = site.requests.filter(({ key }) => key > this.last);
    this.last = site.requests.at(-1)?.key ?? this.last;
    if (STILL.matches || document.hidden) return;
    for (const { task, answer } of fresh) {
      const route = site.tasks.get(task)?.route;
      if (route && answer.status === "ok") for (const way of ways(route, answer)) this.send(task, way, route);
    }
  }

  private send(task: string, steps: readonly string[], route: RouteDoc): void {
    const home = this.spot(this.board.querySelector(`[data-task="${task}"]`));
    const stops = steps.map((step) => this.spot(this.board.querySelector(`[data-chip="${route.steps[step.split("@")[0]!]?.module}@${step.split("@")[1]}"]`)));
    if (this.flying >= DOTS || !home || stops.some((stop) => !stop)) return;
    const all = [home, ...(stops as Point[]), home];
    const dot = document.createElement("span");
    this.board.querySelector(".dots")!.append(dot);
    this.flying += 1;
    const flight = dot.animate(all.map(({ x, y }) => ({ transform: `translate(${x}px, ${y}px)`, easing: "ease-in-out" })), { duration: HOP_MS * (all.length - 1) });
    flight.onfinish = flight.oncancel = () => {
      dot.remove();
      this.flying -= 1;
    };
  }

  /** Draws the picked task's way: from the task to every copy of its first steps, and on to the next steps. */
  private draw(): void {
    const svg = this.board.querySelector("svg.lines")!;
    const route = this.task?.route;
    const paths: string[] = [];
    for (const step of Object.keys(route?.steps ?? {})) {
      const from = before(route!, step);
      const starts = from.length ? from.flatMap((name) => this.copies(route!, name)) : [this.spot(this.board.querySelector(`[data-task="${this.task!.id}"]`), "right")];
      for (const a of starts) for (const b of this.copies(route!, step)) if (a) paths.push(curve(a, b));
    }
    while (svg.childElementCount > paths.length) svg.lastElementChild!.remove();
    while (svg.childElementCount < paths.length) svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    paths.forEach((d, index) => svg.children[index]!.setAttribute("d", d));
  }

  private copies(route: RouteDoc, step: string): Point[] {
    const { module, replicas } = route.steps[step]!;
    return replicas.map(({ node }) => this.spot(this.board.querySelector(`[data-chip="${module}@${node}"]`))).filter((point) => point !== null);
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

  private spot(element: Element | null, side: "left" | "right" = "left"): Point | null {
    if (!element) return null;
    const origin = this.board.getBoundingClientRect();
    const { left, right, top, height } = element.getBoundingClientRect();
    return { x: (side === "left" ? left + 14 : right) - origin.left, y: top + height / 2 - origin.top };
  }
}

function arrive(chip: HTMLElement, from: Point, to: Point): void {
  chip.style.zIndex = "5";
  const flight = chip.animate(
    [{ transform: `translate(${from.x - to.x}px, ${from.y - to.y}px)`, boxShadow: "0 6px 20px #0006" }, { transform: "none" }],
    { duration: FLIGHT_MS, easing: "cubic-bezier(.2,.8,.2,1)" },
  );
  flight.onfinish = () => (chip.style.zIndex = "");
}

/** Each branch of an answered request, from a first step to the head, as `step@node`. */
export function ways(route: RouteDoc, answer: Answer): string[][] {
  const steps = Object.keys(route.steps).filter((step) => answer.steps[step]);
  const named = (step: string) => `${step}@${answer.steps[step]!.node}`;
  const onwards = (step: string, seen: readonly string[]): string[] => {
    const next = steps.find((name) => !seen.includes(name) && before(route, name).includes(step));
    return next ? [named(step), ...onwards(next, [...seen, next])] : [named(step)];
  };
  return steps.filter((step) => before(route, step).length === 0).map((step) => onwards(step, [step]));
}

function curve(a: Point, b: Point): string {
  const bend = Math.max(24, Math.abs(b.x - a.x) / 2);
  return `M${a.x} ${a.y}C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}`;
}
