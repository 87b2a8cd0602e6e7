// Requests: rate, latency, and the newest ones with their answers, as far as these are on the shared topic.
import { useState } from "preact/hooks";
import { Chart } from "./chart";
import type { Request, Second, Site } from "./site";
import { Steps, spans, worked } from "./steps";
import { clock, inWords, ms, shown } from "./words";

const SHOWN = 8;
const MINUTE = 60;

export function Requests({ site }: { site: Site }) {
  const [open, setOpen] = useState<number | null>(null);
  const seconds = site.seconds;
  const times = seconds.map((second) => second.at);
  const latest = site.requests.slice(-SHOWN).reverse();
  return (
    <section class="panel" aria-labelledby="requests-title">
      <h2 id="requests-title">Requests</h2>
      <p class="summary">{summary(seconds)}</p>
      <div class="charts">
        <figure>
          <figcaption>Answered each second</figcaption>
          <Chart
            times={times}
            unit=""
            height={130}
            lines={[{ label: "answered", colour: "--accent", values: seconds.map((s) => s.finished), fill: true }]}
          />
        </figure>
        <figure>
          <figcaption>
            Latency: <span class="key median">● median</span> <span class="key slowest">● slowest</span>
          </figcaption>
          <Chart
            times={times}
            unit="ms"
            height={130}
            lines={[
              { label: "median", colour: "--accent", values: seconds.map((s) => quantile(s.latencies, 0.5)) },
              { label: "slowest", colour: "--warm", values: seconds.map((s) => quantile(s.latencies, 1)) },
            ]}
          />
        </figure>
      </div>
      {latest.length === 0 && (
        <p class="quiet">No answer yet. Requests show up here as they are answered, whoever asked; try one.</p>
      )}
      <ol class="requests">
        {latest.map((request) => (
          <li key={request.key}>
            <button
              class="plain request"
              aria-expanded={open === request.key}
              onClick={() => setOpen(open === request.key ? null : request.key)}
            >
              <time>{clock(request.at)}</time>
              <b>{request.task}</b>
              <span class={request.answer.status}>{said(request)}</span>
              <span class="number">{took(request, site)}</span>
            </button>
            {open === request.key && <Steps answer={request.answer} route={site.tasks.get(request.task)?.route} />}
          </li>
        ))}
      </ol>
    </section>
  );
}

function took({ task, answer, sampled }: Request, site: Site): string {
  if (answer.status === "error") return "failed";
  return sampled ? `${ms(worked(spans(answer, site.tasks.get(task)?.route)))} of work` : ms(answer.latency_ms);
}

function said({ answer, sampled }: Request): string {
  if (sampled) return "answered to its caller alone";
  if (answer.status === "ok") return shown(answer.answer, 120);
  return `✕ ${answer.error ? inWords(answer.error) : "failed without a reason"}`;
}

function summary(seconds: readonly Second[]): string {
  const last = seconds.slice(-MINUTE);
  const latencies = last.flatMap((second) => second.latencies);
  const answered = last.reduce((sum, second) => sum + second.finished, 0);
  const failed = last.reduce((sum, second) => sum + second.failed, 0);
  const pace = latencies.length
    ? ` Half of those seen took less than ${ms(quantile(latencies, 0.5) ?? 0)}, the slowest ${ms(quantile(latencies, 1) ?? 0)}.`
    : "";
  return `In the last minute: ${answered} answered, ${failed} failed.${pace}`;
}

/** The quantile `share` (0 to 1) of values; null if there are no values. */
export function quantile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}
