// The time of one request by step: a bar for each step on a common time axis, and the same as text.
import type { Answer, RouteDoc, Timing } from "./documents";
import { before } from "./site";
import { t } from "./texts";
import { ms } from "./words";

export type Span = Timing & { step: string; start: number };

/** The steps with their start, i.e. when their inputs were complete, milliseconds after the request's start. */
export function spans(answer: Timed, route: RouteDoc | undefined): Span[] {
  const found = new Map<string, Span>();
  const place = (step: string, seen: readonly string[]): number => {
    const known = found.get(step);
    const timing = answer.steps[step];
    if (known) return known.start + known.queued_ms + known.run_ms;
    if (!timing || seen.includes(step)) return 0;
    const start = Math.max(0, ...(route ? before(route, step) : []).map((name) => place(name, [...seen, step])));
    found.set(step, { ...timing, step, start });
    return start + timing.queued_ms + timing.run_ms;
  };
  for (const step of Object.keys(answer.steps)) place(step, []);
  return [...found.values()].sort((a, b) => a.start - b.start);
}

/** Milliseconds from the first step's start to the last step's end, without transfer times of messages. */
export function worked(all: readonly Span[]): number {
  return Math.max(0, ...all.map((span) => span.start + span.queued_ms + span.run_ms));
}

/** What is drawn of an answer: its steps, and the time of the whole. */
export type Timed = Pick<Answer, "steps" | "latency_ms">;

export function Steps({ answer, route }: { answer: Timed; route: RouteDoc | undefined }) {
  const all = spans(answer, route);
  const busy = worked(all);
  const whole = Math.max(answer.latency_ms, busy, 0.001);
  const share = (amount: number) => `${(100 * amount) / whole}%`;
  return (
    <ul class="steps" aria-label={t.steps.label}>
      {all.map((span) => (
        <li key={span.step} data-step={span.step}>
          <span class="name">
            {span.step}{" "}
            <small>
              {t.steps.on} {span.node}
            </small>
          </span>
          <span class="number">
            {span.queued_ms >= 0.1 && <small>{t.steps.queued(ms(span.queued_ms))}</small>}
            {ms(span.run_ms)}
          </span>
          <span class="track" aria-hidden="true">
            <span class="queued" style={{ left: share(span.start), width: share(span.queued_ms) }} />
            <span class="run" style={{ left: share(span.start + span.queued_ms), width: share(span.run_ms) }} />
          </span>
        </li>
      ))}
      {answer.latency_ms > busy && (
        <li class="rest">
          <span class="name">{t.steps.between}</span>
          <span class="number">{ms(answer.latency_ms - busy)}</span>
        </li>
      )}
    </ul>
  );
}
