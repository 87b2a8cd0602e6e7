// Requests as they flow: the newest answers, what was counted each second, and texts that are being written. No I/O.
import type { Answer, NodeLoad, Piece } from "./documents";

/** An answered request. One that was sampled from node/+/load has no answer: that went to its caller only. */
export type Request = { key: number; at: number; task: string; answer: Answer; sampled: boolean };
/** Counters of one second. */
export type Second = { at: number; finished: number; latencies: number[]; failed: number };

const REQUESTS = 100;
const SECONDS = 300;
const LATENCIES = 500;
const TEXTS = 20;
const LONGEST_TEXT = 20_000;

export class Traffic {
  readonly requests: Request[] = [];
  readonly seconds: Second[] = [];
  /** transaction -> text that is being streamed */
  readonly texts = new Map<string | number, string>();
  private key = 0;

  /** Advances the clock without a message. */
  tick(now: number): void {
    this.second(now);
  }

  /** What a node tells of the requests that it finished, and of the newest of each task. */
  sampled(load: NodeLoad, now: number, isTask: (task: string) => boolean): void {
    for (const finished of Object.values(load.finished)) this.second(now).finished += finished;
    for (const [task, steps] of Object.entries(load.latest)) {
      if (!isTask(task)) continue;
      const answer: Answer = { status: "ok", outputs: {}, latency_ms: 0, attempts: 1, steps };
      if (!this.requests.some((seen) => seen.task === task && sameSteps(seen.answer, answer)))
        push(this.requests, { key: this.key++, at: now, task, answer, sampled: true }, REQUESTS);
    }
  }

  /** A piece of a text that is being written. */
  write({ transaction, at, text }: Piece): void {
    if (transaction === undefined || transaction === null) return;
    const known = this.texts.get(transaction) ?? "";
    this.texts.delete(transaction); // so that insertion order is by age
    if (at <= known.length) this.texts.set(transaction, (known.slice(0, at) + text).slice(0, LONGEST_TEXT));
    if (this.texts.size > TEXTS) this.texts.delete(this.texts.keys().next().value!);
  }

  /** A request was answered on the shared topic. */
  answered(task: string, answer: Answer, now: number): void {
    push(this.requests, { key: this.key++, at: now, task, answer, sampled: false }, REQUESTS);
    const second = this.second(now);
    if (answer.status === "error") second.failed += 1;
    else if (second.latencies.length < LATENCIES) second.latencies.push(answer.latency_ms);
  }

  private second(now: number): Second {
    const at = Math.floor(now / 1000);
    let last = this.seconds.at(-1);
    const from = last === undefined ? at : Math.max(last.at + 1, at - SECONDS + 1);
    for (let next = from; next <= at; next++) {
      last = { at: next, finished: 0, latencies: [], failed: 0 };
      push(this.seconds, last, SECONDS);
    }
    return last!;
  }
}

/** Whether two answers are of the same request, by their timings: two requests hardly have equal microseconds. */
function sameSteps(a: Answer, b: Answer): boolean {
  return Object.entries(b.steps).every(
    ([step, { run_ms, queued_ms }]) => a.steps[step]?.run_ms === run_ms && a.steps[step].queued_ms === queued_ms,
  );
}

/** Adds an item, and drops the oldest ones beyond a number. */
export function push<T>(all: T[], item: T, most: number): void {
  all.push(item);
  if (all.length > most) all.splice(0, all.length - most);
}
